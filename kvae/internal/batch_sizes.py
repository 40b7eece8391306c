"""How many images are computed at once, so that a set of any size needs a bounded memory."""

import math
from collections.abc import Sequence

VALUES_AT_ONCE = 4096 * 784  # number of values that are decoded in one batch: about 13 MB as float32


def images_at_once(shape: Sequence[int]) -> int:
    """Number of images that are decoded in one batch, at least 1.

    Args:
        shape: shape of what the decoder returns for one image.
    """
    return max(1, VALUES_AT_ONCE // math.prod(shape))
