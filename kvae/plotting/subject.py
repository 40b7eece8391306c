"""What pictures are made of: a model, its data and its history; and what several kinds of pictures need of these."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kvae.completion import article_options
from kvae.data import Data
from kvae.evaluation import encode, evidence
from kvae.internal.errors import UserError
from kvae.model import sampling
from kvae.model.vae import VAE
from kvae.plotting import drawing

Drawings = dict[str, drawing.Drawing]  # by the name of the file, without its suffix


class Unsuitable(UserError):  # noqa: N818 - read as "except figures.Unsuitable"
    """This kind of picture cannot be made of this model or these data, but others can."""


@dataclass(frozen=True)
class Subject:
    """What pictures are made of.

    Attributes:
        vae: a built model.
        data: its data, or None for kinds that do not use them.
        history: the columns of history.csv by name, for `learning_curves`.
        held_out: a name for the data that the `val_...` columns were measured on.
    """

    vae: VAE
    data: Data | None = None
    history: Mapping[str, Any] | None = None
    held_out: str = "validation"

    def test(self) -> Data:
        """The data, for a kind that uses test images; raises `Unsuitable` if there are none."""
        if self.data is None:
            raise Unsuitable("Expected data for this kind of picture. Received none.")
        return self.data

    def test_name(self) -> str:
        """The name of the dataset, short enough for a title."""
        return Path(self.test().info.source).name

    def encoded(self, n: int) -> tuple[np.ndarray, np.ndarray | None]:
        """The posterior means `[N, D]` of the first n test images, and their labels `[N]` or None."""
        x, labels = self.test().examples("test", n)
        return encode(self.vae, x if self.vae.condition_shape is None else (x, labels)).mean, labels

    def originals(self, x: np.ndarray, places: Any) -> np.ndarray | None:
        """The test images at some places before they were binarized, if this changed them.

        Args:
            x: these images as the model sees them, `[N, H, W, C]`.
            places: their indices, `[N]`.
        """
        originals = self.test().originals_at("test", places)
        return None if np.array_equal(originals, x) else originals


def means_at(vae: VAE, z: Any) -> np.ndarray:
    """E[x|z] as pictures: z `[..., D]` -> `[..., H, W, C]`, clipped to [0, 1]."""
    points = np.asarray(z)
    flat = points.reshape(-1, points.shape[-1])
    size = sampling.images_at_once(vae)
    parts = [clip(vae.likelihood.mean(vae.decode(flat[i : i + size]))) for i in range(0, len(flat), size)]
    return np.concatenate(parts).reshape(*points.shape[:-1], *parts[0].shape[1:])


def clip(means: Any) -> np.ndarray:
    """Values as those of a picture, in [0, 1]."""
    return np.clip(np.asarray(means), 0, 1)


def check_plane(vae: VAE) -> None:
    """Raises `Unsuitable` if a model does not have 2 latent dimensions."""
    try:
        evidence.check_plane(vae)
    except UserError as error:
        raise Unsuitable(str(error)) from None


def inference_options(vae: VAE, plain: bool) -> dict[str, Any]:
    """The options of an inference: those of the article that kvae reproduces, or none."""
    if not plain:
        return {}
    check_plane(vae)
    return article_options(vae)


def first_of_each_class(data: Data, classes: int = 6) -> np.ndarray:
    """Indices of the first test image of each of the first classes; of the first images if there are no labels."""
    size = data.info.sizes["test"]
    if not data.has_labels("test"):
        return np.arange(min(classes, size))
    labels = data.labels_at("test", np.arange(min(1000, size)))  # the images themselves are not read for this
    return np.unique(labels, return_index=True)[1][:classes]
