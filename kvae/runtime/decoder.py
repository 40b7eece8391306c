"""The interface of every decoder: what `kvae.load` returns, whichever format it opened."""

import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from kvae.internal.errors import UserError, check_whole
from kvae.internal.pictures import as_bytes, enlarge, tile
from kvae.noise.portable import check_seeds
from kvae.runtime import latent_points

CHUNK = 256  # images at a time, so that memory does not grow with their number


class Decoded(NamedTuple):
    """What a decoder makes of latent points."""

    means: np.ndarray  # [n, *image]  E[x|z], float32
    logits: np.ndarray  # [n, *image]  float32; all parameters of p(x|z) if there are several numbers per pixel

    @property
    def parameters(self) -> np.ndarray:
        """The parameters of p(x|z): the logits, if the likelihood has one number per pixel."""
        return self.logits


class Sample(NamedTuple):
    """Images drawn from a decoder, one per seed."""

    images: np.ndarray  # [n, *image]  draws of p(x|z), uint8
    means: np.ndarray  # [n, *image]  E[x|z], float32 in [0, 1]
    z: np.ndarray  # [n, D]  float32

    def sheet(self, means_only: bool = False) -> np.ndarray:
        """All images in one picture, `[H, W, C]` uint8: the means, and the draws at the same z beneath them."""
        columns = 10 if len(self.z) <= 10 else None
        sheets = [tile(as_bytes(self.means), columns, gap=1)]
        if not means_only:
            draws = tile(self.images, columns, gap=1)
            sheets += [np.full((3, *draws.shape[1:]), 255, np.uint8), draws]
        return enlarge(np.concatenate(sheets))


class Decoder:
    """A trained decoder. A format makes a subclass, which sets the attributes and has one method, `run`.

    Attributes:
        latent_dim: size of the latent space, D.
        image_shape: shape of one image, e.g. `(28, 28, 1)`.
        condition_shape: shape of the condition of one image, None for a model without one.
        path: the file or folder, None for a model in memory.
    """

    latent_dim: int
    image_shape: tuple[int, ...]
    condition_shape: tuple[int, ...] | None = None
    path: Path | None = None
    chunk: int = CHUNK  # images per call

    def __init__(self) -> None:
        self._lock = threading.Lock()  # a LiteRT interpreter serves one caller from its inputs to its outputs

    def run(self, name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs one function of the model on a batch.

        Args:
            name: `"decode"` with the input z `[n, D]`, or `"sample"` with the input seed `[n]` int32.
            inputs: arrays by name; `condition` `[n, ...]` beside them for a model that has one.

        Returns:
            For `"decode"` means and `logits` (or `parameters`), float32; for `"sample"` images uint8, means and z.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method run(name, inputs).")

    def decode(self, z: ArrayLike, condition: ArrayLike | None = None) -> Decoded:
        """E[x|z] and the logits of p(x|z).

        Args:
            z: latent points, `[n, D]`.
            condition: conditions, `[n, ...]`, for a model that has one.

        Raises:
            UserError: if an argument has another shape or type, or contains NaN.
        """
        found = self._in_chunks("decode", "z", check_z(z, self.latent_dim), condition)
        return Decoded(found["means"], found["logits"] if "logits" in found else found["parameters"])

    def sample(self, seeds: ArrayLike, condition: ArrayLike | None = None) -> Sample:
        """One image per seed: x ~ p(x|z), z ~ p(z).

        Image i is a function of seeds[i] alone (and of its condition). With a standard normal prior z is the same bit
        for bit on every runtime, `VAE.sample` included.

        Args:
            seeds: whole numbers in int32, `[n]`; `kvae.runtime.seeds(n, seed)` makes those of `VAE.generate(n, seed)`.
            condition: conditions, `[n, ...]`, for a model that has one.

        Returns:
            images `[n, *image]` uint8, means `[n, *image]` float32 in [0, 1], z `[n, D]` float32.

        Raises:
            UserError: if the seeds are not a list of at least one int32.
        """
        found = self._in_chunks("sample", "seed", check_seeds(seeds), condition)
        return Sample(*(found[name] for name in Sample._fields))

    def _in_chunks(self, name: str, argument: str, values: np.ndarray, condition: Any) -> dict[str, np.ndarray]:
        inputs = {argument: values, **check_condition(condition, self.condition_shape, len(values))}
        starts = range(0, len(values), self.chunk)
        with self._lock:
            parts = [
                self.run(name, {key: value[start : start + self.chunk] for key, value in inputs.items()})
                for start in starts
            ]
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def lattice(self, n: int = 20, extent: float | None = 2.0) -> np.ndarray:
        """Decoded means of a lattice of the latent plane as one seamless picture.

        Args:
            n: points per side, at least 1.
            extent: the lattice spans [-extent, extent]^2; None takes the quantiles of a standard normal.

        Returns:
            The picture, `[n * H, n * W, C]` float32 in [0, 1].

        Raises:
            UserError: if the latent space is not a plane, n is below 1, or the extent is not positive.
        """
        if self.latent_dim != 2:
            raise UserError(f"Expected 2 latent dimensions for a lattice. This decoder has {self.latent_dim}.")
        return tile(self.decode(latent_points.lattice(n, extent)).means, check_whole("n", n))


def check_z(z: ArrayLike, latent_dim: int) -> np.ndarray:
    """Latent points as `[n, D]` float32.

    Raises:
        UserError: if they have another shape or type, there are none, or one is NaN or infinite.
    """
    try:
        points = np.asarray(z)
    except ValueError:
        raise UserError(f"Expected z, numbers of shape [n, {latent_dim}]. Received {z!r}.") from None
    if points.ndim != 2 or points.shape[1] != latent_dim or points.dtype.kind not in "fiu" or len(points) == 0:
        shown = f"{points.dtype} of shape {list(points.shape)}"
        raise UserError(f"Expected z, numbers of shape [n, {latent_dim}] with n of at least 1. Received {shown}.")
    wrong = ~(np.abs(points) <= np.finfo(np.float32).max)
    if wrong.any():
        raise UserError(f"Expected finite z. Received {points[wrong][0]}.")
    return points.astype(np.float32)


def check_condition(condition: Any, shape: tuple[int, ...] | None, count: int) -> dict[str, np.ndarray]:
    """The input `condition` of `count` images, `[n, *shape]` float32; nothing for a model without one.

    Raises:
        UserError: if it has another shape, is missing, or the model takes none.
    """
    if shape is None:
        if condition is not None:
            raise UserError("Expected no condition: this decoder takes none. Received one.")
        return {}
    wanted = [count, *shape]
    if condition is None:
        raise UserError(f"Expected a condition of shape {wanted} for this decoder. Received none.")
    values = np.asarray(condition)
    if list(values.shape) != wanted or values.dtype.kind not in "fiub":
        raise UserError(
            f"Expected a condition of shape {wanted}. Received {values.dtype} of shape {list(values.shape)}."
        )
    return {"condition": values.astype(np.float32)}
