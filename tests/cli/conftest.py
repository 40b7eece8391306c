"""Runs that the commands of several files read; a test that changes one makes a copy."""

import shutil
from pathlib import Path

import pytest
import tiny_runs
from command_line import SMALL, kvae
from exports import FORMATS, quick_parity

from kvae import export
from kvae.training.runs import Run


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    """A small trained run, made by the command itself in a process of its own."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    result = kvae("train", *SMALL, "--out", folder)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return folder


@pytest.fixture(scope="session")
def odd(tmp_path_factory) -> Path:
    """A run of 3 latent dimensions on small pictures without labels."""
    return tiny_runs.tiny_run(tmp_path_factory.mktemp("odd"), test_images=9, latent_dim=3).folder


@pytest.fixture(scope="session")
def exported(shared_run, tmp_path_factory) -> Path:
    """The tiny run with a bundle of every format."""
    folder = Path(shutil.copytree(shared_run, tmp_path_factory.mktemp("bundled") / "run"))
    run = Run.open(folder)
    with quick_parity():
        export.bundle_of_run(run, formats=FORMATS, test=export.test_images(run))
    return folder


@pytest.fixture
def copied(exported, tmp_path) -> Path:
    """A copy of the run with a bundle, which a test may change."""
    return Path(shutil.copytree(exported, tmp_path / "run"))
