"""Rounding the weights of a dense layer to int8 so that its outputs change least, not its weights.

Frantar, Ashkboos, Hoefler and Alistarh, "GPTQ" (2023), algorithm 1, after the optimal brain surgeon: one input after
another is rounded, and the weights of those that follow, at last the bias, make up for the error as far as the inputs
are correlated. A decoder's are, for they all are functions of a few latent dimensions.
"""

import numpy as np

DAMPING = 0.01  # of the mean square of the inputs, added to each: keeps the inverse in bounds


def rounded(
    weights: np.ndarray, bias: np.ndarray | None, scales: np.ndarray, inputs: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """int8 weights and the bias to go with them.

    Args:
        weights: `[O, I]` float.
        bias: `[O]` float, if there is one.
        scales: `[O]`, of every output: a weight is scale times its integer.
        inputs: `[N, I]`, examples of what the layer sees.

    Returns:
        `[O, I]` int8 within +-127 and `[O]` float32, or None without a bias.
    """
    seen, left = inputs.astype(np.float64), weights.astype(np.float64)
    if bias is not None:
        seen, left = np.insert(seen, seen.shape[1], 1, axis=1), np.insert(left, left.shape[1], bias, axis=1)
    moments = seen.T @ seen / len(seen)
    moments[np.diag_indices_from(moments)] += DAMPING * np.diag(moments).mean()
    factor = np.linalg.cholesky(np.linalg.inv(moments)).T  # upper; row j tells how errors of input j spread
    steps = np.where(scales > 0, scales, 1.0)
    integers = np.empty(weights.shape, np.int8)
    for j in range(weights.shape[1]):
        integers[:, j] = np.clip(np.rint(left[:, j] / steps), -127, 127)
        error = (left[:, j] - integers[:, j] * steps) / factor[j, j]
        left[:, j + 1 :] -= error[:, None] * factor[j, j + 1 :]
    return integers, None if bias is None else left[:, -1].astype(np.float32)
