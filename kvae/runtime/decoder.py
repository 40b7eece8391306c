"""The interface of all decoders, which `kvae.load` returns for every format."""

import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from kvae.internal.errors import UserError, check_whole, unknown
from kvae.internal.pictures import tile
from kvae.noise.portable import check_seeds
from kvae.runtime import latent_points

CHUNK = 256  # images per call, so that the memory does not depend on their number


class Decoded(NamedTuple):
    """The result of decoding latent points."""

    means: np.ndarray  # [n, *image]  E[x|z], float32
    logits: np.ndarray  # [n, *image]  float32; the parameters of p(x|z) if there are several numbers per pixel

    @property
    def parameters(self) -> np.ndarray:
        """The parameters of p(x|z), which are the logits if the likelihood has one number per pixel."""
        return self.logits


class Sample(NamedTuple):
    """Images drawn from a decoder, one per seed."""

    images: np.ndarray  # [n, *image]  draws of p(x|z), uint8
    means: np.ndarray  # [n, *image]  E[x|z], float32 in [0, 1]
    z: np.ndarray  # [n, D]  float32


class Decoder:
    """A trained decoder. Each format has a subclass, which sets the attributes and implements the method `run`.

    Attributes:
        latent_dim: the size of the latent space, D.
        image_shape: the shape of one image, e.g. `(28, 28, 1)`.
        condition_shape: the shape of the condition of one image, or None if the model takes no condition.
        class_names: for a conditional model of C classes, their names, if these are known; else None.
        path: the file or folder, or None for a model in memory.
        chunk: the largest number of images per call of `run`.
    """

    latent_dim: int
    image_shape: tuple[int, ...]
    condition_shape: tuple[int, ...] | None = None
    class_names: tuple[str, ...] | None = None
    path: Path | None = None
    chunk: int = CHUNK

    def __init__(self) -> None:
        self._lock = threading.Lock()  # a LiteRT interpreter can be used by only one thread at a time

    def run(self, name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs one function of the model on a batch.

        Args:
            name: `"decode"` with the input z `[n, D]`, or `"sample"` with the input seed `[n]` int32.
            inputs: the inputs by name, with `condition` `[n, ...]` for a conditional model.

        Returns:
            For `"decode"`, `means` and either `logits` or `parameters`, float32; for `"sample"`, `images` uint8,
            `means` and `z`.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method run(name, inputs).")

    def decode(self, z: ArrayLike, condition: ArrayLike | None = None) -> Decoded:
        """E[x|z] and the logits of p(x|z).

        Args:
            z: latent points, `[n, D]`.
            condition: conditions, `[n, ...]`, for a conditional model; for one of classes also labels, numbers or
                names as in `label`, `[n]` or a single one for all; else None.

        Returns:
            means `[n, *image]` and logits `[n, *image]`, float32.

        Raises:
            UserError: if an argument has a wrong shape or type, if z is not finite, or if the model has no such class.
        """
        outputs = self._in_chunks("decode", "z", check_z(z, self.latent_dim), condition)
        return Decoded(outputs["means"], outputs["logits"] if "logits" in outputs else outputs["parameters"])

    def sample(self, seeds: ArrayLike, condition: ArrayLike | None = None) -> Sample:
        """Draws one image x ~ p(x|z), z ~ p(z) per seed.

        Image i depends only on seeds[i] and on its condition. With a standard normal prior, z is the same bit for bit
        on every runtime and in `VAE.sample`.

        Args:
            seeds: whole numbers in the range of int32, `[n]`. `kvae.runtime.seeds(n, seed)` returns those of
                `VAE.generate(n, seed)`.
            condition: as in `decode`.

        Returns:
            images `[n, *image]` uint8, means `[n, *image]` float32 in [0, 1], z `[n, D]` float32.

        Raises:
            UserError: if the seeds are not a list of at least one int32, if the condition has a wrong shape or type, or
                if the model has no such class.
        """
        outputs = self._in_chunks("sample", "seed", check_seeds(seeds), condition)
        return Sample(*(outputs[name] for name in Sample._fields))

    def label(self, name: str) -> int:
        """The number of a class, for the argument `condition`.

        Args:
            name: the name of the class, in upper or lower case, or its number. Names are tried first.

        Raises:
            UserError: if the model was not trained on classes, or if it has no such class.
        """
        if self.condition_shape is None or len(self.condition_shape) != 1:
            raise UserError(
                "Expected a conditional model, which was trained on classes, for a label. Received "
                f"{'one without a condition' if self.condition_shape is None else 'one with another condition'}. To "
                "train one: kvae train --conditional"
            )
        numbers = {str(number): number for number in range(self.condition_shape[0])}
        named = {known.lower(): number for number, known in enumerate(self.class_names or ())}
        found = named.get(name.lower(), numbers.get(name))
        if found is None:
            raise unknown("class", name, self.class_names or numbers)
        return found

    def with_class_names(self, names: Any) -> "Decoder":
        """This decoder, with the names of its classes from a file, if these are such names."""
        texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if texts and self.condition_shape == (len(names),):
            self.class_names = tuple(names)
        return self

    def _in_chunks(self, name: str, argument: str, values: np.ndarray, condition: Any) -> dict[str, np.ndarray]:
        """The outputs of one function for all values, computed in chunks."""
        names = np.asarray(condition)
        if names.dtype.kind == "U":
            condition = np.reshape([self.label(each) for each in names.ravel().tolist()], names.shape)
        inputs = {argument: values, **check_condition(condition, self.condition_shape, len(values))}
        parts = []
        with self._lock:
            for start in range(0, len(values), self.chunk):
                some = {key: value[start : start + self.chunk] for key, value in inputs.items()}
                parts.append(self.run(name, some))
                self.check_outputs(parts[-1], len(some[argument]))
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def check_outputs(self, outputs: dict[str, np.ndarray], count: int) -> None:
        """Checks what `run` returned, because a damaged or diverged model would otherwise give pictures of nothing.

        Args:
            outputs: the result of `run`.
            count: the number of images.

        Raises:
            UserError: if an output has another shape than expected, or if a mean is NaN or infinite.
        """
        image, z = (count, *self.image_shape), (count, self.latent_dim)
        for name, values in outputs.items():
            expected = z if name == "z" else image
            if name in Sample._fields and values.shape != expected:
                raise UserError(
                    f"{self.path or 'The model'} is damaged: expected {name} of shape {list(expected)}, received "
                    f"{list(values.shape)}."
                )
        if not np.isfinite(outputs["means"]).all():
            raise UserError(
                f"{self.path or 'The model'} gives means that are not finite numbers. It is damaged, its training "
                "diverged, or z is too far from 0."
            )

    def lattice(self, n: int = 20, extent: float | None = 2.0) -> np.ndarray:
        """The means at the points of a lattice in the latent plane, as one picture without gaps.

        Args:
            n: the number of points per side, at least 1. 20 by default.
            extent: half the side of the lattice, which covers [-extent, extent]^2; or None for quantiles of the
                standard normal distribution. 2 by default.

        Returns:
            The picture, `[n * H, n * W, C]` float32 in [0, 1].

        Raises:
            UserError: if the latent space has not 2 dimensions, if n is below 1, or if the extent is not positive.
        """
        if self.latent_dim != 2:
            raise UserError(f"Expected 2 latent dimensions for a lattice. This decoder has {self.latent_dim}.")
        return tile(self.decode(latent_points.lattice(n, extent)).means, check_whole("n", n))


def check_z(z: ArrayLike, latent_dim: int) -> np.ndarray:
    """Latent points as `[n, D]` float32.

    Raises:
        UserError: if they have a wrong shape or type, if there are none, or if one is NaN or infinite.
    """
    try:
        points = np.asarray(z)
    except ValueError:
        raise UserError(f"Expected z, numbers of shape [n, {latent_dim}]. Received {z!r}.") from None
    if points.ndim != 2 or points.shape[1] != latent_dim or points.dtype.kind not in "fiu" or len(points) == 0:
        received = f"{points.dtype} of shape {list(points.shape)}"
        raise UserError(f"Expected z, numbers of shape [n, {latent_dim}] with n of at least 1. Received {received}.")
    infinite = ~(np.abs(points) <= np.finfo(np.float32).max)  # also true for NaN
    if infinite.any():
        raise UserError(f"Expected finite z. Received {points[infinite][0]}.")
    return points.astype(np.float32)


def check_condition(condition: Any, shape: tuple[int, ...] | None, count: int) -> dict[str, np.ndarray]:
    """The input `condition` of a decoder, checked.

    Args:
        condition: conditions, `[n, *shape]`; for a model whose condition is a vector, also labels, whole numbers `[n]`
            or a single one for all images; or None.
        shape: the shape of the condition of one image, or None if the decoder takes no condition.
        count: the number of images, n.

    Returns:
        A dictionary with `condition`, `[n, *shape]` float32, which is empty if the decoder takes no condition.

    Raises:
        UserError: if the condition is missing, has a wrong shape or type, if a label is no class of the model, or if
            the decoder takes no condition.
    """
    if shape is None:
        if condition is not None:
            raise UserError("Expected no condition: this decoder takes none. Received one.")
        return {}
    expected = [count, *shape]
    wanted = f"{expected}" + (f", or {count} labels, whole numbers in 0..{shape[0] - 1}," if len(shape) == 1 else "")
    if condition is None:
        raise UserError(f"Expected a condition of shape {wanted} for this decoder. Received none.")
    values = np.asarray(condition)
    if values.ndim == 0 and len(shape) < 2:
        values = np.full(count, values)
    if len(shape) == 1 and values.shape == (count,) and values.dtype.kind in "iu":
        values = _one_hot(values, shape[0])
    if list(values.shape) != expected or values.dtype.kind not in "fiub":
        raise UserError(
            f"Expected a condition of shape {wanted.rstrip(',')}. Received {values.dtype} of shape "
            f"{list(values.shape)}."
        )
    return {"condition": values.astype(np.float32)}


def _one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """Labels `[n]` as vectors `[n, classes]` with a 1 for the class."""
    for label in (labels.min(), labels.max()):
        if not 0 <= label < classes:
            raise UserError(
                f"Expected labels in 0..{classes - 1}, because the model has {classes} classes. Received {label}."
            )
    return np.eye(classes, dtype=np.float32)[labels]
