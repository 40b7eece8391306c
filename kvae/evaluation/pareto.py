"""The tail of importance weights: the shape k of a generalized Pareto distribution fitted to the largest ones."""

import numpy as np

GRID = 30  # points of the grid of the fit, beside the square root of the number of values
PRIOR_SHAPE, PRIOR_WEIGHT = 0.5, 10  # the weakly informative prior of k, and how many values it counts as
LARGEST_RELIABLE = 0.7


def tail_shape(log_weights: np.ndarray) -> np.ndarray:
    """The k of Pareto-smoothed importance sampling for each image: how heavy the tail of its weights is.

    The weights have 1 / k finite moments. Vehtari, Simpson, Gelman, Yao and Gabry, "Pareto Smoothed Importance
    Sampling" (2024): the tail is the largest min(S / 5, 3 sqrt(S)) of the S weights, and k is that of a
    generalized Pareto distribution fitted to their differences from the next smaller weight, under a weak prior around
    0.5. For S draws k is trustworthy up to `threshold(S)`. It is 0 if all weights of the tail are equal, and NaN if
    they are 0.

    Args:
        log_weights: logarithms of the weights, `[S, B]`, with S at least 10.

    Returns:
        `[B]`.
    """
    size = tail_size(len(log_weights))
    tail = np.sort(np.partition(log_weights, -size - 1, axis=0)[-size - 1 :], axis=0).astype(np.float64)
    with np.errstate(invalid="ignore"):
        weights = np.exp(tail - tail[-1])
        excess = weights[1:] - weights[0]
        heavy = excess[-1] > 1e-10  # else the differences are those of rounding
        shape, _ = fit_generalized_pareto(np.where(heavy, excess, 1.0))
        shape = (shape * size + PRIOR_SHAPE * PRIOR_WEIGHT) / (size + PRIOR_WEIGHT)
        return np.where(heavy, shape, np.where(np.isfinite(tail[-1]), 0.0, np.nan))


def tail_size(draws: int) -> int:
    """The number of weights in the tail of S weights."""
    return int(np.ceil(min(draws / 5, 3 * np.sqrt(draws))))


def threshold(draws: int) -> float:
    """The largest k for which the mean of S weights is reliable: min(1 - 1 / log10 S, 0.7)."""
    return min(1 - 1 / float(np.log10(draws)), LARGEST_RELIABLE)


def fit_generalized_pareto(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fits 1 - (1 + k x / sigma)^(-1 / k) to each column by an approximate posterior mean.

    Zhang and Stephens, "A New and Efficient Estimation Method for the Generalized Pareto Distribution" (2009), with
    theta = -k / sigma: for a given theta the likelihood is largest at k(theta) = mean log(1 - theta x); the estimate of
    theta is its mean under the profile likelihood over a grid of quantiles of their prior.

    Args:
        values: positive numbers in rising order, `[N, B]`.

    Returns:
        k and sigma, each `[B]`.
    """
    count = len(values)
    points = GRID + int(np.sqrt(count))
    quartile = np.maximum(values[int(count / 4 + 0.5) - 1], 1e-12 * values[-1])
    quantiles = 1 - np.sqrt(points / (np.arange(1, points + 1) - 0.5))
    theta = 1 / values[-1] + quantiles[:, None] / (3 * quartile)  # [points, B]
    shapes = np.stack([_shape(each, values) for each in theta])
    profile = count * (np.log(-theta / shapes) - shapes - 1)
    likelihoods = np.exp(profile - profile.max(axis=0))
    best = (theta * likelihoods).sum(axis=0) / likelihoods.sum(axis=0)
    shape = _shape(best, values)
    return shape, -shape / best


def _shape(theta: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.log1p(-theta * values).mean(axis=0)
