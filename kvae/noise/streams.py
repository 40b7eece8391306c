"""What random numbers are for: one enumeration, so that no two uses can ever share numbers."""

import enum


class Stream(enum.IntEnum):
    """A use of random numbers.

    The first block names the parts of a model that draw: a part passes one of them to `normal` or `uniform` of the
    noise that it was given. The second block names the computations that need numbers of their own: it is what a
    `kvae.noise.keyed.Keyed` is made with.
    """

    # The parts. The first three decide which image a seed stands for, so their values never change.
    LATENT = 0  # z ~ p(z)
    PIXELS = 1  # x ~ p(x|z), and the binarization of data
    SEEDS = 2  # the seeds of a set of images
    CHOICE = 3  # which of several: a component of a mixture, one of many draws
    POSTERIOR = 4  # z ~ q(z|x)

    # The computations.
    BINARIZATION = 100
    TRAINING = 101
    EVALUATION = 102  # Keras `evaluate`, and the validation in `fit`
    ELBO_TERMS = 103  # `VAE.elbo` and `VAE.elbo_terms`
    RECONSTRUCTION = 104
    POSTERIOR_MEAN = 105  # where it has no closed form
    TEST_ELBO = 106  # `kvae.evaluation.elbo`
    TEST_ELBO_BEFORE_0_2 = 107  # the same for evaluations of kvae 0.1, so that they can be derived again
    BOUND = 108
    PARITY = 109
    PICTURES = 110
    START = 111  # of the inference of q(z | observed), as the next two
    STEPS = 112
    FINAL = 113
    PREDICTION = 114  # of missing pixels, as the next two
    RESAMPLING = 115
    COMPLETION = 116
    SCORE = 117
    BASELINE = 118


# The words by which version 0.1 told uses apart, kept so that a seed keeps its numbers. All of them are below the words
# of other uses, and none is used with a key of the length of a binarization's, whose second word is the epoch: neither
# can share numbers with it. (Prediction, score and baseline number their draws: the posterior and the prior never draw
# the same one.)
_KEPT = {
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
    """What a hash takes in after the seed and before the rest of a key.

    One word that no other pair of a computation and a part has, 2^31 or more, or one that is kept from version 0.1; for
    a binarization none: its second word is the epoch, which stays below 2^31.
    """
    if use is Stream.BINARIZATION:
        return ()
    return (_KEPT.get((use, part), 2**31 + 1000 * int(use) + int(part)),)
