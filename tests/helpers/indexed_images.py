"""Images that can be recognised after shuffling: each carries its index in its first row.

The index is written as eight pixels of black or white, which no binarization changes.
"""

import numpy as np

TRAIN, TEST = 50, 20


def pictures(count: int) -> np.ndarray:
    """`[count, 8, 8]` uint8, grey below a first row of index bits."""
    images = np.random.default_rng(count).integers(1, 255, (count, 8, 8)).astype(np.uint8)
    images[:, 0] = 255 * np.unpackbits(np.arange(count, dtype=np.uint8)[:, None], axis=1)
    return images


def indices(x: np.ndarray) -> list[int]:
    """The index of each image, from its first row."""
    return np.packbits(x[:, 0, :, 0].astype(bool), axis=1).ravel().tolist()


def gathered(dataset) -> np.ndarray:
    """All batches of a dataset as one array."""
    return np.concatenate([batch.numpy() for batch in dataset])


def by_index(dataset) -> np.ndarray:
    """All images of a dataset in the order of their index."""
    x = gathered(dataset)
    return x[np.argsort(indices(x))]
