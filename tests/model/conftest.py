"""Fixtures that several files of this folder share."""

import keras
import numpy as np
import pytest
from fit_paths import recorded_paths
from small_models import SHAPE, tiny_built


@pytest.fixture
def x(rng):
    """23 binary images, `[23, 6, 5, 1]`."""
    return rng.integers(0, 2, (23, *SHAPE)).astype(np.float32)


@pytest.fixture
def vae():
    """A small model, built for the images `x`."""
    return tiny_built()


@pytest.fixture
def mixed_precision():
    """The policy mixed_float16 for all layers that a test makes."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


@pytest.fixture
def paths():
    """The path that each call of compiled steps took, as `recorded_paths` tells it."""
    with recorded_paths() as taken:
        yield taken
