"""Data and untrained models that figures are drawn of; no test changes them."""

import numpy as np
import pytest
from figure_cases import HISTORY, LABELS, SHAPES
from PIL import Image

import kvae
from kvae.plotting import completion_figures, drawing, figures


@pytest.fixture(scope="session")
def sources(tmp_path_factory) -> dict[str, str]:
    """mnist5k as `digits`, archives of noise, and `pets`, a folder of pictures whose classes have names."""
    folder, rng = tmp_path_factory.mktemp("sources"), np.random.default_rng(0)
    for name, shape in SHAPES.items():
        arrays = {
            "x_train": rng.integers(0, 256, (12, *shape), np.uint8),
            "x_test": rng.integers(0, 256, (len(LABELS), *shape), np.uint8),
            "y_train": np.arange(12) % 3,
            "y_test": LABELS * (name != "one class"),
        }
        kept = [key for key in arrays if name != "unlabelled" or key.startswith("x")]
        np.savez(folder / f"{name}.npz", **{key: arrays[key] for key in kept})
    for part in ("train", "test"):
        for label in ("Cat", "cow", "dog"):
            (folder / "pets" / part / label).mkdir(parents=True)
            for place in range(4):
                picture = Image.fromarray(rng.integers(0, 256, (3, 4), np.uint8))
                picture.save(folder / "pets" / part / label / f"{place}.png")
    archives = {name: f"npz:{folder / name}.npz" for name in SHAPES}
    return {"digits": "mnist5k", "pets": f"images:{folder / 'pets'}", **archives}


@pytest.fixture(scope="session")
def subject_of(sources):
    """A function from the name of a source and a latent size to a subject, the same one at every call."""
    made = {}

    def subject_of(name: str, latent_dim: int = 2) -> figures.Subject:
        if (name, latent_dim) not in made:
            slices = {"train": "train[:40]", "test": "test[:100]"} if name == "digits" else {}
            data = kvae.data.load(sources[name], batch_size=10, **slices)
            vae = kvae.VAE(latent_dim, hidden_units=(8,), seed=1)
            vae.build((None, *data.info.image_shape))
            made[name, latent_dim] = figures.Subject(vae, data, HISTORY)
        return made[name, latent_dim]

    return subject_of


@pytest.fixture
def digits_2d(subject_of) -> figures.Subject:
    return subject_of("digits")


@pytest.fixture
def tiny(subject_of) -> figures.Subject:
    return subject_of("tiny")


@pytest.fixture
def few_contour_points(monkeypatch):
    """A grid that is coarser than that of the pictures, where only what is in them counts."""
    monkeypatch.setattr(completion_figures, "CONTOUR_POINTS", 41)


@pytest.fixture
def scatter(rng):
    """A function that draws 30 points of three labels in a latent space of `dimensions`."""
    return lambda dimensions, **more: drawing.latent_scatter(
        rng.normal(size=(30, dimensions)), **({"labels": np.arange(30) % 3} | more)
    )
