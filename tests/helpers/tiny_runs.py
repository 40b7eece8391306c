"""Runs of a tiny model on a few random images, trained in a moment."""

from pathlib import Path

import numpy as np

from kvae import training
from kvae.training.config import RunConfig
from kvae.training.runs import Run


def tiny_run(folder: Path, test_images: int = 20, name: str = "run", epochs: int = 1, **model: object) -> Run:
    """`epochs` epochs on 20 images of 6 x 5 random pixels without labels, in a new folder `run` within `folder`."""
    rng = np.random.default_rng(0)
    arrays = {"x_train": 20, "x_test": test_images}
    np.savez(folder / "odd.npz", **{key: rng.integers(0, 256, (n, 6, 5), np.uint8) for key, n in arrays.items()})
    values = {
        "name": name,
        "data": {"source": f"npz:{folder / 'odd.npz'}", "batch_size": 10},
        "model": {"hidden_units": [4], **model},
        "training": {"epochs": epochs, "jit_compile": False},
    }
    return training.train(RunConfig.from_dict(values), folder / "run", verbose=0)
