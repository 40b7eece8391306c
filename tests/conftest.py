"""What several test files share."""

import os
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def digits() -> np.ndarray:
    """200 binary digits, `[200, 28, 28, 1]` float32."""
    with np.load(Path(__file__).parent.parent / "kvae" / "data" / "mnist5k.npz") as archive:
        return (archive["x_train"][:200, ..., None] > 127).astype(np.float32)
