"""The uses of random numbers, in one enumeration, so that no two uses share numbers."""

import enum


class Stream(enum.IntEnum):
    """A use of random numbers.

    The members of the first block are the parts of a model that draw random numbers. A part passes its member to
    `normal` or `uniform` of the noise that it is given. The members of the second block are the computations that need
    random numbers. A computation passes its member to the constructor of `kvae.noise.keyed.Keyed`.
    """

    # The parts. The first three determine the image of a seed, so their values never change.
    LATENT = 0  # z ~ p(z)
    PIXELS = 1  # x ~ p(x|z), and the binarization of data
    SEEDS = 2  # the seeds of a set of images
    CHOICE = 3  # a random choice: a component of a mixture, or one of several draws
    POSTERIOR = 4  # z ~ q(z|x)

    # The computations.
    BINARIZATION = 100
    TRAINING = 101
    EVALUATION = 102  # Keras `evaluate`, and the validation in `fit`
    ELBO_TERMS = 103  # `VAE.elbo` and `kvae.sampling.elbo_draws`
    RECONSTRUCTION = 104
    POSTERIOR_MEAN = 105  # of a posterior whose mean has no closed form
    TEST_ELBO = 106  # `kvae.evaluation.elbo`
    TEST_ELBO_BEFORE_0_2 = 107  # the same in kvae 0.1, so that its evaluations can be repeated
    BOUND = 108
    PARITY = 109
    PICTURES = 110
    START = 111  # start, steps and final result of the inference of q(z | observed)
    STEPS = 112
    FINAL = 113
    PREDICTION = 114  # this one and the next two: prediction of missing pixels
    RESAMPLING = 115
    COMPLETION = 116
    SCORE = 117
    BASELINE = 118
    ANNEALING = 119  # warm-up, forward and backward chains, and images that are simulated: numbered in the key
    INITIAL_BITS = 120  # of a compressed message
    MIXED_BITS = 121  # bits of a compressed message that decide a z
    INFORMATION = 122
    DEFENSIVE = 123  # `kvae.evaluation.defensive`
    GAPS = 124  # `kvae.evaluation.gaps`


# The words that version 0.1 used for these pairs, kept so that a seed gives the same numbers as before. They are small,
# and the words of all other pairs are 2^31 or more. The key of a binarization has the epoch instead of this word, but
# no key with one of these words has the length of that key, so a binarization shares no numbers with these pairs.
# Prediction, score and baseline have one word for two parts: their draws are numbered, and the posterior and the prior
# never draw the same number.
_WORDS_OF_VERSION_0_1 = {
    (Stream.TRAINING, Stream.POSTERIOR): 0,
    (Stream.EVALUATION, Stream.POSTERIOR): 1,
    (Stream.ELBO_TERMS, Stream.POSTERIOR): 3,
    (Stream.TEST_ELBO_BEFORE_0_2, Stream.POSTERIOR): 100,
    (Stream.BOUND, Stream.POSTERIOR): 101,
    (Stream.STEPS, Stream.POSTERIOR): 201,
    (Stream.FINAL, Stream.POSTERIOR): 202,
    (Stream.PREDICTION, Stream.POSTERIOR): 203,
    (Stream.PREDICTION, Stream.LATENT): 203,
    (Stream.COMPLETION, Stream.PIXELS): 205,
    (Stream.SCORE, Stream.POSTERIOR): 206,
    (Stream.SCORE, Stream.LATENT): 206,
    (Stream.BASELINE, Stream.POSTERIOR): 207,
    (Stream.BASELINE, Stream.LATENT): 207,
    (Stream.PICTURES, Stream.PIXELS): 300,
}


def words(use: Stream, part: Stream) -> tuple[int, ...]:
    """The words that a hash takes between the seed and the rest of a key.

    Args:
        use: computation that needs the numbers.
        part: part of the model that draws them.

    Returns:
        One word: that of version 0.1 if the pair has one, else a word of its own, 2^31 or more. No word for a
        binarization, whose key continues with the epoch, which is below 2^31.
    """
    if use is Stream.BINARIZATION:
        return ()
    return (_WORDS_OF_VERSION_0_1.get((use, part), 2**31 + 1000 * int(use) + int(part)),)
