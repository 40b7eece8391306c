"""Statistical tests of the portable numbers, which weak generators fail.

A statistic draws images of 784 numbers and returns one p-value, that of its least likely part times the number of its
parts (Bonferroni), so that each of the tests here would fail for one set of seeds in 10^6; seeds are fixed.
"""

import math

import numpy as np
import pytest
from portable_words import GOLDEN, MASK
from scipy import stats

from kvae.noise import portable
from kvae.noise.streams import Stream

PIXELS = 784
FEW, LOTS = 1300, 13_000  # images: 1.02e6 and 1.02e7 numbers
LEAST = 1e-6


def in_parts(draw, stream, seeds):
    """`[n, 784]`, made of a thousand images at a time."""
    parts = range(0, len(seeds), 1000)
    return np.concatenate([draw(seeds[start : start + 1000], stream, PIXELS) for start in parts])


def words(images, stream=Stream.LATENT):
    return in_parts(portable.bits, stream, portable.seeds(images, 0))


def uniforms(images):
    return in_parts(portable.uniforms, Stream.PIXELS, portable.seeds(images, 0))


def normals(images):
    return in_parts(portable.normals, Stream.LATENT, portable.seeds(images, 0))


def of_scores(scores):
    """The p-value of standard normal scores, two-sided."""
    return min(1.0, 2 * stats.norm.sf(np.abs(scores)).min() * np.size(scores))


def of_counts(counts, trials, share):
    """The p-value of binomial counts."""
    pairs = np.broadcast(counts, trials, share)
    return min(1.0, min(stats.binomtest(int(k), int(n), p).pvalue for k, n, p in pairs) * pairs.size)


def of_correlations(pairs):
    """The p-value of the correlations of arrays whose numbers have mean 0 and variance 1."""
    return of_scores([np.einsum("ij,ij->", a, b, dtype=float) / math.sqrt(a.size) for a, b in pairs])


def of_even_cells(cells, number):
    """The p-value of chi-square, for counts that are too uneven as well as too even."""
    pvalue = stats.chisquare(np.bincount(cells.ravel(), minlength=number)).pvalue
    return 2 * min(pvalue, 1 - pvalue)


def spread(z):
    """The squares of normal numbers, with mean 0 and variance 1: their dependence is not that of the numbers."""
    return (np.square(z) - 1) / math.sqrt(2)


def moments(images):
    z = np.float64(normals(images))
    # z^n has the variance E z^2n - (E z^n)^2.
    known = [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]
    return of_scores([(np.mean(z**n) - mean) / math.sqrt(variance / z.size) for n, mean, variance in known])


def kolmogorov_smirnov_of_normals(images):
    return stats.kstest(normals(images).ravel(), stats.norm.cdf).pvalue


def kolmogorov_smirnov_of_uniforms(images):
    return stats.kstest(uniforms(images).ravel(), stats.uniform.cdf).pvalue


def cells_of_normals(images):
    return of_even_cells(np.int64(stats.norm.cdf(normals(images)) * 256), 256)


def cells_of_uniforms(images):
    return of_even_cells(np.int64(uniforms(images) * 256), 256)


def fine_cells_of_uniforms(images):
    return of_even_cells(np.int64(uniforms(images) * 65_536), 65_536)


def cells_of_uniform_pairs(images):
    u = np.int64(uniforms(images) * 64)
    return of_even_cells(64 * u[:, ::2] + u[:, 1::2], 64 * 64)


def tails(images):
    z = normals(images)
    distances = np.array([3, 4, 4.5])
    counts = [[np.count_nonzero(sign * z > distance) for distance in distances] for sign in (-1, 1)]
    return of_counts(counts, z.size, stats.norm.sf(distances))


def serial_correlation(images):
    z = normals(images)
    lagged = [(part[:, :-lag], part[:, lag:]) for part in (z, spread(z)) for lag in (1, 2, 3, 28)]
    return of_correlations(lagged)


def correlation_of_streams(images):
    z, u = normals(images), (uniforms(images) - np.float32(0.5)) * np.float32(math.sqrt(12))
    return of_correlations([(z, u), (z[:, 1:], u[:, :-1]), (spread(z), (u * u - 1) * np.float32(math.sqrt(5 / 4)))])


def correlation_of_sets(images):
    first, second = (in_parts(portable.normals, 0, portable.seeds(images, seed)) for seed in (0, 1))
    return of_correlations([(first, second)])


def correlation_of_consecutive_seeds(images):
    z = in_parts(portable.normals, Stream.LATENT, np.arange(-images // 2, images // 2))
    # Also with the next place: a generator that adds seed and place would have the same numbers there.
    return of_correlations([(z[:-1], z[1:]), (z[:-1, 1:], z[1:, :-1]), (spread(z[:-1]), spread(z[1:]))])


def correlation_of_seeds_that_differ_in_a_bit(images):
    seeds = np.int64(portable.seeds(images // 32, 0)) & MASK
    z = in_parts(portable.normals, Stream.LATENT, seeds)
    return of_correlations([(z, in_parts(portable.normals, Stream.LATENT, seeds ^ 1 << bit)) for bit in range(32)])


def ones(words):
    """How many of the words have each bit set, `[32]`."""
    return np.array([np.count_nonzero(words >> np.uint32(bit) & np.uint32(1)) for bit in range(32)])


def avalanche(images):
    """A flipped bit of the seed flips every bit of the words half of the time."""
    seeds = np.int64(portable.seeds(images // 32, 0)) & MASK
    before = in_parts(portable.bits, Stream.LATENT, seeds)
    flips = [ones(before ^ in_parts(portable.bits, Stream.LATENT, seeds ^ 1 << bit)) for bit in range(32)]
    return of_scores((np.array(flips) - before.size / 2) / math.sqrt(before.size / 4))


def balance_of_bits(images):
    drawn = words(images)
    return of_scores((ones(drawn) - drawn.size / 2) / math.sqrt(drawn.size / 4))


def collisions(images):
    """The number of equal words in two images, which is that of chance."""
    drawn = np.sort(words(images), axis=None)
    found = np.count_nonzero(drawn[1:] == drawn[:-1])
    expected = drawn.size * (drawn.size - PIXELS) / 2 / 2**32  # pairs within an image are never equal
    return min(1.0, 2 * min(stats.poisson.cdf(found, expected), stats.poisson.sf(found - 1, expected)))


def runs(images):
    """Changes of sign from one number of an image to the next."""
    negative = normals(images) < 0
    return of_counts(np.count_nonzero(negative[:, 1:] != negative[:, :-1]), negative[:, 1:].size, 0.5)


STATISTICS = [
    moments,
    kolmogorov_smirnov_of_normals,
    kolmogorov_smirnov_of_uniforms,
    cells_of_normals,
    cells_of_uniforms,
    fine_cells_of_uniforms,
    cells_of_uniform_pairs,
    tails,
    serial_correlation,
    correlation_of_streams,
    correlation_of_sets,
    correlation_of_consecutive_seeds,
    correlation_of_seeds_that_differ_in_a_bit,
    avalanche,
    balance_of_bits,
    collisions,
    runs,
]


@pytest.mark.parametrize("statistic", STATISTICS)
def test_a_million_numbers_are_random(statistic):
    assert statistic(FEW) > LEAST


@pytest.mark.slow
@pytest.mark.parametrize("statistic", STATISTICS)
def test_ten_million_numbers_are_random(statistic):
    assert statistic(LOTS) > LEAST


STRONG = portable.bits


def unmixed(seeds, stream, count, *_):
    places = np.arange(count, dtype=np.int64) * GOLDEN
    return ((np.asarray(seeds, np.int64)[:, None] + places) & MASK).astype(np.uint32)


def skewed(seeds, stream, count, *_):
    """Less than half of the bits are set."""
    return STRONG(seeds, stream, count) & (STRONG(seeds, stream + 5, count) | STRONG(seeds, stream + 6, count))


def coarse(seeds, stream, count, *_):
    return STRONG(seeds, stream, count) & np.uint32(0xFFFFF000)


def one_stream(seeds, stream, count, *_):
    return STRONG(seeds, 0, count)


def pairs_of_seeds(seeds, stream, count, *_):
    return STRONG(np.asarray(seeds) >> 1, stream, count)


def slow_walk(seeds, stream, count, *_):
    """Every other word is the one before, except for its last bits."""
    strong = STRONG(seeds, stream, count)
    return strong[:, np.arange(count) // 2 * 2] ^ (strong & np.uint32(0xFFFF))


def one_set(seeds, stream, count, *_):
    """The seed counts for nothing, but its place in the batch."""
    return STRONG(np.arange(len(seeds)), stream, count)


@pytest.mark.parametrize(
    ("weak", "statistics"),
    [
        (unmixed, [fine_cells_of_uniforms, serial_correlation, correlation_of_streams, avalanche, runs]),
        (skewed, [moments, kolmogorov_smirnov_of_normals, kolmogorov_smirnov_of_uniforms, tails]),
        (skewed, [cells_of_normals, cells_of_uniforms, balance_of_bits]),
        (coarse, [balance_of_bits, collisions, avalanche]),
        (one_stream, [correlation_of_streams]),
        (pairs_of_seeds, [correlation_of_consecutive_seeds, correlation_of_seeds_that_differ_in_a_bit, avalanche]),
        (slow_walk, [serial_correlation, runs, cells_of_uniform_pairs]),
        (one_set, [correlation_of_sets]),
    ],
)
def test_the_statistics_reject_a_weak_generator(monkeypatch, weak, statistics):
    monkeypatch.setattr(portable, "bits", weak)
    assert [statistic.__name__ for statistic in statistics if statistic(FEW) > LEAST] == []
