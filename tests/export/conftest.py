"""Bundles and a run that several files of this folder read; a test that changes one makes a copy."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from exports import FORMATS, quick_parity
from small_models import SHAPE, tiny_built
from tiny_runs import tiny_run

import kvae
from kvae import export


@pytest.fixture(scope="session")
def x() -> np.ndarray:
    """20 binary images, `[20, 6, 5, 1]`."""
    return np.random.default_rng(0).integers(0, 2, (20, *SHAPE)).astype(np.float32)


@pytest.fixture(scope="session")
def whole(tmp_path_factory, x) -> tuple[kvae.VAE, Path, dict]:
    """A model, its bundle with everything in it and the card that `bundle` returned."""
    vae, folder = tiny_built(), tmp_path_factory.mktemp("whole") / "bundle"
    with quick_parity():
        card = export.bundle(vae, folder, formats=FORMATS, test=x, name="tiny", metrics={"elbo": -20.0}, tolerances={})
    return vae, folder, card


@pytest.fixture(scope="session")
def lite(tmp_path_factory) -> Path:
    """A bundle of one .tflite file."""
    folder = tmp_path_factory.mktemp("lite") / "bundle"
    with quick_parity():
        export.bundle(tiny_built(), folder, formats=["tflite"], variants=["float32"])
    return folder


@pytest.fixture
def lite_copy(lite, tmp_path) -> Path:
    """A copy of that bundle, which a test may change."""
    return Path(shutil.copytree(lite, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A tiny run with its bundle."""
    run = tiny_run(tmp_path_factory.mktemp("trained"), name="odd", latent_dim=2)
    with quick_parity():
        export.bundle_of_run(run, variants=["float32"], test=export.test_images(run))
    return run.folder


@pytest.fixture
def copied(trained, tmp_path) -> Path:
    """A copy of that run with its bundle, which a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "run"))
