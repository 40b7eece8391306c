"""Seeds of a set of images, and which seeds a caller may give."""

import math

import numpy as np
import pytest
from portable_words import EXTREME

from kvae.internal.errors import UserError
from kvae.internal.tensorflow import tf
from kvae.noise import portable


@pytest.mark.parametrize(
    ("seed", "expected"),
    [(0, [1239825273, -302899336, -164494421, 497638241]), (2**31 - 1, [-1114423208, -183031842, -1120165486])],
)
def test_the_seeds_of_a_set_are_pinned(seed, expected):
    assert portable.seeds(len(expected), seed).tolist() == expected


# Seeds of a set


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
def test_a_million_seeds_of_a_set_are_all_different(seed):
    assert len(np.unique(portable.seeds(10**6, seed))) == 10**6


def test_seeds_are_int32():
    assert (portable.seeds(5, 0).dtype, portable.seeds(5, 0).shape) == (np.int32, (5,))


@pytest.mark.parametrize("start", [0, 1, 64, 10**6, 2**32, 2**40])
def test_seeds_of_a_set_depend_on_their_place_alone(start):
    assert np.array_equal(portable.seeds(30, 3, start)[10:15], portable.seeds(5, 3, start + 10))


def test_a_larger_set_begins_with_the_smaller():
    assert np.array_equal(portable.seeds(100, 3)[:7], portable.seeds(7, 3))


def test_sets_have_other_seeds():
    first, second = portable.seeds(1000, 3), portable.seeds(1000, 4)
    # Of two sets, two seeds are equal by chance once in 4000 such tests; this one is fixed.
    assert not np.isin(first, second).any()


@pytest.mark.parametrize("seed", [np.int64(3), np.int32(3), np.uint8(3)])
def test_seeds_take_whole_numbers_of_numpy(seed):
    assert np.array_equal(portable.seeds(np.int64(5), seed), portable.seeds(5, 3))


@pytest.mark.parametrize("n", [0, -1, True, 1.0, "3", None])
def test_seeds_refuse_what_is_no_number_of_images(n):
    with pytest.raises(UserError, match=r"Expected n to be a whole number of at least 1\. Received"):
        portable.seeds(n, 0)


@pytest.mark.parametrize("seed", [-1, 2**31, True, 0.0, "0", None])
def test_seeds_refuse_what_is_no_seed_of_a_set(seed):
    with pytest.raises(UserError, match=r"Expected seed to be a whole number from 0 to 2147483647\. Received"):
        portable.seeds(1, seed)


# Seeds of the caller


@pytest.mark.parametrize("values", [EXTREME, tuple(EXTREME), np.array(EXTREME), tf.constant(EXTREME), np.uint8([7])])
def test_seeds_of_the_caller_become_int32(values):
    checked = portable.check_seeds(values)
    assert (checked.dtype, checked.tolist()) == (np.int32, np.asarray(values).tolist())


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([1.0, 2.0], r"float64 of shape \[2\]"),
        ([1, math.nan], r"float64 of shape \[2\]"),
        ([[1, 2]], r"int64 of shape \[1, 2\]"),
        (3, r"int64 of shape \[\]"),
        ([], r"float64 of shape \[0\]"),
        ([True, False], r"bool of shape \[2\]"),
        (["1", "2"], r"<U1 of shape \[2\]"),
        ("12", r"<U2 of shape \[\]"),
        ([1j], r"complex128 of shape \[1\]"),
        (None, r"object of shape \[\]"),
        ([1, None], r"object of shape \[2\]"),
        ([2**70], r"object of shape \[1\]"),
        ({1, 2}, r"object of shape \[\]"),
    ],
)
def test_what_is_no_list_of_whole_numbers_is_refused(values, shown):
    with pytest.raises(UserError, match=rf"Expected seeds, a list of whole numbers \[n\].*Received {shown}"):
        portable.check_seeds(values)


def test_a_ragged_list_of_seeds_is_refused():
    with pytest.raises(UserError, match="Expected seeds, a list of whole numbers"):
        portable.check_seeds([[1], [1, 2]])


def test_no_seeds_are_refused():
    with pytest.raises(UserError, match=r"Expected at least one seed\. Received none"):
        portable.check_seeds(np.zeros(0, np.int32))


@pytest.mark.parametrize(
    ("values", "wrong"),
    [([0, 2**31], 2**31), ([-(2**31) - 1, 0], -(2**31) - 1), (np.uint64([2**64 - 1]), 2**64 - 1), ([2**62], 2**62)],
)
def test_seeds_outside_int32_are_refused(values, wrong):
    with pytest.raises(UserError, match=rf"Expected seeds in int32, from .* to 2147483647\. Received {wrong}\."):
        portable.check_seeds(values)
