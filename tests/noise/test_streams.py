"""No two uses of random numbers share any."""

import itertools

import numpy as np
import pytest

from kvae.noise import keyed, portable, streams
from kvae.noise.streams import Stream

PARTS = (Stream.LATENT, Stream.PIXELS, Stream.SEEDS, Stream.CHOICE, Stream.POSTERIOR)
USES = tuple(use for use in Stream if use not in (*PARTS, Stream.BINARIZATION))
# The draws of these have numbers, and the posterior and the prior never draw the same one.
NUMBERED = (Stream.PREDICTION, Stream.SCORE, Stream.BASELINE)


def keys(use):
    """Keys as the uses of a stream have them: of the length of a binarization's where that is possible."""
    places = np.arange(3, dtype=np.int32)
    kept = [word for (other, _), word in streams._WORDS_OF_VERSION_0_1.items() if other is use]
    return [(places, 0), (places, 1)] if kept and max(kept) < 2**31 else [(places,)]


def test_the_streams_of_what_a_seed_stands_for_never_change():
    assert (Stream.LATENT, Stream.PIXELS, Stream.SEEDS) == (0, 1, 2)


def test_every_pair_of_a_use_and_a_part_has_a_different_word():
    pairs = itertools.product(USES, PARTS)
    words = {}
    for use, part in pairs:
        words.setdefault(streams.words(use, part), []).append((use, part))
    shared = [found for found in words.values() if len(found) > 1]
    assert sorted(shared) == [[(use, Stream.LATENT), (use, Stream.POSTERIOR)] for use in NUMBERED]


def test_words_that_are_not_kept_are_no_epoch():
    for use, part in set(itertools.product(USES, PARTS)) - streams._WORDS_OF_VERSION_0_1.keys():
        assert streams.words(use, part)[0] >= 2**31


def drawn():
    """Some words of every use, by its name: 24 bits each, as `uniform` makes them."""
    found = {}
    for use, part in itertools.product(USES, PARTS):
        if use in NUMBERED and part is Stream.LATENT:
            continue
        for key in keys(use):
            found[use.name, part.name, key[1:]] = np.asarray(keyed.Keyed(7, use, *key).uniform((4,), part)).ravel()
    for epoch in (*range(8), 100, 101, 200, 204, 300, 2**31 - 1):
        binarized = keyed.Keyed(7, Stream.BINARIZATION, epoch, np.arange(3))
        found["binarization", epoch] = np.asarray(binarized.uniform((4,), Stream.PIXELS)).ravel()
    return found


def test_no_two_streams_share_numbers():
    found = drawn()
    everything = np.concatenate(list(found.values()))
    # 12 numbers of 24 bits for each of some 100 streams: 0.04 pairs are expected to be equal by chance, and a stream
    # that is shared makes 12.
    assert len(everything) - len(np.unique(everything)) <= 2


def test_a_stream_of_version_0_1_would_have_shared_them():
    """What moved: the evaluation's numbers were those of the binarization of epoch 100."""
    old = keyed.Keyed(7, Stream.TEST_ELBO_BEFORE_0_2, np.arange(3)).uniform((4,), Stream.POSTERIOR)
    binarized = keyed.Keyed(7, Stream.BINARIZATION, 100, np.arange(3)).uniform((4,), Stream.PIXELS)
    assert np.array_equal(old, binarized)


def test_keyed_noise_depends_on_seed_use_part_and_key():
    def numbers(seed=0, use=Stream.TRAINING, part=Stream.POSTERIOR, step=0):
        return np.asarray(keyed.Keyed(seed, use, step, 0, np.arange(2)).normal((3,), part))

    base = numbers()
    assert np.array_equal(base, numbers())
    for other in ({"seed": 1}, {"use": Stream.EVALUATION}, {"part": Stream.LATENT}, {"step": 1}):
        assert not np.isin(numbers(**other), base).any(), other


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_numbered_draws_do_not_depend_on_how_many_are_made_at_once(kind):
    noise = keyed.Keyed(3, Stream.BOUND, np.arange(4, dtype=np.int32))
    whole = np.asarray(getattr(noise.numbered(np.arange(6)), kind)((6, 5), Stream.POSTERIOR))
    assert whole.shape == (4, 6, 5)
    pieces = [noise.numbered(np.arange(2)), noise.numbered(np.arange(2, 6))]
    parts = [
        np.asarray(getattr(piece, kind)((count, 5), Stream.POSTERIOR))
        for piece, count in zip(pieces, (2, 4), strict=True)
    ]
    assert np.array_equal(np.concatenate(parts, axis=1), whole)
    assert len(np.unique(whole)) == whole.size


@pytest.mark.parametrize("ops", [portable.NUMPY, keyed.TENSORFLOW], ids=["NumPy", "TensorFlow"])
def test_portable_noise_is_the_portable_sampler(ops):
    seeds = np.array([3, -5], np.int32)
    found = portable.Portable(seeds, ops)
    expected = portable.normals(seeds, Stream.LATENT, 6).reshape(2, 2, 3)
    assert np.array_equal(found.normal((2, 3), Stream.LATENT), expected)
    assert np.array_equal(found.uniform((), Stream.CHOICE), portable.uniforms(seeds, Stream.CHOICE, 1)[:, 0])
