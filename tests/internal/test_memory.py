"""What cannot fit into the memory of the machine is refused before it is computed; what can is not."""

import sys
from functools import cache

import numpy as np
import pytest

import kvae
from kvae.completion import complete
from kvae.data import Data
from kvae.internal import memory
from kvae.internal.errors import UserError
from kvae.plotting import figures
from kvae.training import load_data
from kvae.training.build import build_model
from kvae.training.config import RunConfig


@pytest.fixture(autouse=True)
def small_machine(monkeypatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 16 * 10**9)


def test_the_memory_of_a_machine_is_known_without_psutil(monkeypatch):
    known = memory._of_machine()
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert memory._of_machine() == known


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("data") / "x.npz"
    np.savez(path, x_train=np.zeros((20, 6, 5), np.uint8), x_test=np.zeros((20, 6, 5), np.uint8))
    data_of(f"npz:{path}")  # now, because some tests leave no memory for the data
    return f"npz:{path}"


def config_of(source: str, **model: object) -> RunConfig:
    return RunConfig.from_dict({"model": model, "data": {"source": source, "batch_size": 10}})


@cache
def data_of(source: str) -> Data:
    return load_data(config_of(source))


def built(source: str, **model: object) -> kvae.VAE:
    return build_model(config_of(source, **model), data_of(source))


TOO_LARGE = {
    "latent_dim": {"latent_dim": 10**9},
    "the largest latent_dim": {"latent_dim": 2**31 - 1},
    "hidden_units": {"hidden_units": [10**9]},
    "the sum of layers": {"hidden_units": [10**5] * 100},
    "filters": {"network": "conv", "filters": [10**9]},
    "images of a deep network": {"network": "conv", "filters": [4] * 60},
    "dense_units": {"network": "conv", "dense_units": 10**9},
    "samples": {"samples": 10**9},
}


@pytest.mark.parametrize("model", TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_model_that_cannot_be_trained_here_is_refused_with_the_number(source, model):
    with pytest.raises(UserError, match=r"to fit into the memory of this machine, .* GB\. It needs at least .* GB"):
        built(source, **model)


def test_a_large_model_is_refused_in_python_too():
    with pytest.raises(
        UserError, match=r"at least 501,000,000,000 weights to fit into .* It needs at least 2,004\.0 GB"
    ):
        kvae.VAE(10**9).build((None, 28, 28, 1))


@pytest.mark.parametrize(
    "model", [{"samples": 10**12}, {"hidden_units": [1] * 1001}, {"hidden_units": [2**31]}, {"hidden_units": [True]}]
)
def test_a_size_beyond_all_machines_is_refused_by_its_part(source, model):
    with pytest.raises(UserError, match=r"^model\.(network|objective): Expected "):
        built(source, **model)


def test_the_estimate_counts_weights_gradients_optimizer_and_outputs(source, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 0)
    with pytest.raises(UserError, match="at least 124 weights"):  # 30 pixels and a bias, to 4 units
        built(source, hidden_units=[4])
    needed = []
    monkeypatch.setattr(memory, "check", lambda number, *_: needed.append(number))
    built(source, hidden_units=[4], samples=3)
    weights = 31 * 4 + 2 * 5 * 2 + 3 * 4 + 5 * 30
    assert needed[-1] == 4 * (weights * 4 + 10 * (4 + 2 * 2 + 3 * (4 + 30)))


def test_the_largest_model_that_fits_is_built(source, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 4 * (306 * 4 + 10 * (4 + 4 + 34)))
    assert built(source, hidden_units=[4]).count_params() == 306
    with pytest.raises(UserError, match="memory"):
        built(source, hidden_units=[5])


@pytest.fixture(scope="module")
def subject(source) -> figures.Subject:
    return figures.Subject(built(source), data_of(source))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            "lattice",
            {"n": 100_000},
            r"a lattice of 100,000 x 100,000 images to fit into .* It needs at least 2,700\.0 GB",
        ),
        ("lattice", {"n": 10**12}, "at most 2,147,483,647"),
        ("samples", {"n": 10**9}, "a figure of at most 65,535 dots"),
        ("samples", {"n": 10**4}, "a figure of at most 65,535 dots"),
        ("interpolation", {"between": [(0, 1)], "steps": 10**9}, "a figure of at most 65,535 dots"),
        ("interpolation", {"between": [(0, 2**64)]}, f"from 0 to 19. Received {2**64}"),
        ("completion", {"places": [2**64]}, f"from 0 to 19. Received {2**64}"),
    ],
)
def test_a_picture_that_cannot_be_made_is_refused(subject, tmp_path, kind, options, message):
    with pytest.raises(UserError, match=message):
        figures.draw(kind, subject, tmp_path, **options)


def test_draws_of_a_completion_that_cannot_fit_are_refused(subject):
    x = subject.test().examples("test", 2)[0]
    with pytest.raises(UserError, match=r"10,000,000,000 draws|at most 2,147,483,647"):
        complete(subject.vae, x, "top", samples=10**10)
    with pytest.raises(UserError, match="2,000,000,000 draws of z per image to fit into the memory"):
        complete(subject.vae, x, "top", samples=2 * 10**9)
