"""Sampling without TensorFlow: a bundle or a .tflite decoder, NumPy and ai-edge-litert.

    decoder = kvae.runtime.load("saved_models/mnist_2d")
    images, means, z = decoder.sample(kvae.runtime.seeds(64, seed=1))

Importing this module loads neither TensorFlow nor Keras.
"""

import os
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from kvae.internal import files
from kvae.internal.errors import UserError, check_whole, unknown
from kvae.internal.pictures import save_picture, tile
from kvae.internal.quiet import silenced
from kvae.noise.portable import Sample, check_seeds, seeds
from kvae.runtime import latent

CARD = "model_card.json"
FORMAT = 1
FIELDS = {  # of a model card, that reading it relies on
    "format": int,
    "model": dict,
    "variants": dict,
    "tolerances": dict,
    "reference": dict,
    "files": dict,
    "run": dict,
}
MODEL = "model.keras"  # of a run
VARIANTS = {  # by name, the file in a bundle
    "float32": "decoder.tflite",
    "float16": "decoder_float16.tflite",
    "int8": "decoder_int8.tflite",
    "full_int8": "decoder_full_int8.tflite",
}
MAGIC = b"TFL3"  # bytes 4 to 8 of every .tflite
CHUNK = 256  # images at a time, so that memory does not grow with their number

__all__ = ["CARD", "VARIANTS", "Decoded", "Decoder", "Sample", "load", "save_picture", "seeds", "tile"]


class Decoded(NamedTuple):
    """What a decoder makes of latent points."""

    means: np.ndarray  # [n, *image]  E[x|z], float32
    logits: np.ndarray  # [n, *image]  float32; all parameters of p(x|z) where there are several numbers a pixel

    @property
    def parameters(self) -> np.ndarray:
        """The parameters of p(x|z): the logits, of a likelihood that has such."""
        return self.logits


class Decoder:
    """An exported decoder; `load` makes one.

    Attributes:
        latent_dim: D.
        image_shape: e.g. `(28, 28, 1)`.
        condition_shape: of the condition of one image, None for a model without one.
        path: of its file.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int | None = None) -> None:
        if threads is not None:
            check_whole("threads", threads)
        self.path = Path(path)
        interpreter = _interpreter(self.path, threads)
        found = {
            name: ({*s["inputs"]} - {"condition"}, {*s["outputs"]})
            for name, s in interpreter.get_signature_list().items()
        }
        decode, sample = found.get("decode"), found.get("sample")
        emitted = "parameters" if decode is not None and "parameters" in decode[1] else "logits"
        if decode != ({"z"}, {"means", emitted}) or sample != ({"seed"}, {"images", "means", "z"}):
            raise UserError(
                f"{path} is a .tflite, but not one that kvae exported: expected the signatures decode(z) and "
                f"sample(seed). Received {', '.join(sorted(found)) or 'none'}."
            )
        self._decode, self._sample = (interpreter.get_signature_runner(name) for name in ("decode", "sample"))
        self._emitted = emitted
        self._lock = threading.Lock()  # an interpreter has one set of tensors: from call to results it is one caller's
        inputs = self._decode.get_input_details()
        self.latent_dim = int(inputs["z"]["shape"][1])
        self.condition_shape = tuple(map(int, inputs["condition"]["shape"][1:])) if "condition" in inputs else None
        condition = (
            {} if self.condition_shape is None else {"condition": np.zeros((1, *self.condition_shape), np.float32)}
        )
        try:
            drawn = self._sample(seed=np.zeros(1, np.int32), **condition)  # a dynamic batch has no shape before it ran
        except (ValueError, RuntimeError) as error:
            raise _damaged(self.path, error) from error
        self.image_shape = tuple(drawn["images"].shape[1:])

    def decode(self, z: ArrayLike, condition: ArrayLike | None = None) -> Decoded:
        """E[x|z] and the logits of p(x|z).

        Args:
            z: `[n, D]`.
            condition: `[n, ...]`, of a model that has one.

        Raises:
            UserError: another shape or type, or NaN.
        """
        parts = self._called(self._decode, "z", check_z(z, self.latent_dim), condition)
        return Decoded(*[np.concatenate([part[name] for part in parts]) for name in ("means", self._emitted)])

    def _called(self, runner: Any, name: str, values: np.ndarray, condition: Any) -> list[dict[str, np.ndarray]]:
        inputs = {name: values, **check_condition(condition, self.condition_shape, len(values))}
        starts = range(0, len(values), CHUNK)
        with self._lock:
            return [runner(**{key: value[start : start + CHUNK] for key, value in inputs.items()}) for start in starts]

    def sample(self, seeds: ArrayLike, condition: ArrayLike | None = None) -> Sample:
        """One image a seed: x ~ p(x|z), z ~ p(z).

        Image i is a function of seeds[i] alone (and of its condition). With a standard normal prior z is the same bit
        for bit on every runtime, `VAE.sample` included.

        Args:
            seeds: `[n]` whole numbers in int32; `kvae.runtime.seeds(n, seed)` makes those of `VAE.generate(n, seed)`.
            condition: `[n, ...]`, of a model that has one.

        Returns:
            images `[n, *image]` uint8, means `[n, *image]` float32 in [0, 1], z `[n, D]` float32.

        Raises:
            UserError: no list of int32, or none at all.
        """
        parts = self._called(self._sample, "seed", check_seeds(seeds), condition)
        return Sample(*[np.concatenate([part[name] for part in parts]) for name in Sample._fields])

    def lattice(self, n: int = 20, extent: float | None = 2.0) -> np.ndarray:
        """Decoded means over [-extent, extent]^2 as one seamless picture; None: at the quantiles of a standard normal.

        Returns:
            `[n * H, n * W, C]` float32 in [0, 1].

        Raises:
            UserError: a latent space that is no plane, n below 1, or an extent that is not positive.
        """
        if self.latent_dim != 2:
            raise UserError(f"Expected 2 latent dimensions for a lattice. This decoder has {self.latent_dim}.")
        return tile(self.decode(latent.lattice(n, extent)).means, check_whole("n", n))


def load(path: str | os.PathLike[str], variant: str | None = None, threads: int | None = None) -> Decoder:
    """A decoder from a bundle, a run that has one, or a .tflite file.

    Args:
        path: e.g. `saved_models/mnist_2d`, `bundle` or `decoder_int8.tflite`.
        variant: which file of a bundle: `float32`, `float16`, `int8` or `full_int8`; by default the first that it has.
        threads: of the runtime; its own choice by default.

    Raises:
        UserError: there is none, it is damaged, it is not one that kvae exported, or the run has trained on since.
    """
    path = Path(path)
    if variant is not None and variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    if path.is_file():
        return Decoder(path, threads)
    if not path.exists():
        raise UserError(f"Expected a bundle, a run that has one, or a .tflite file. {str(path)!r} does not exist.")
    folder = find_bundle(path)
    if folder is None:
        raise UserError(
            f"Expected a bundle, with a {CARD}. {str(path)!r} has none; make one: kvae export RUN --out DIR"
        )
    card = read_card(folder)
    if folder != path and not is_fresh(path, card):
        raise UserError(f"{folder} is of another model than {path / MODEL}. Make it again: kvae export RUN --overwrite")
    present = [known for known, file in VARIANTS.items() if file in card["files"]]
    wanted = next(iter(present), "float32") if variant is None else variant
    if wanted not in present:
        raise UserError(f"{str(folder)!r} has no {wanted} decoder. It has: {', '.join(present) or 'no .tflite'}.")
    check_file(folder, VARIANTS[wanted], card["files"][VARIANTS[wanted]])
    return Decoder(folder / VARIANTS[wanted], threads)


def is_fresh(run: Path, card: dict[str, Any]) -> bool:
    """Whether a card is of the model that stands in a run now."""
    model = run / MODEL
    return not model.is_file() or files.digest(model) == card["run"].get(MODEL, {}).get("sha256")


def find_bundle(path: Path) -> Path | None:
    """The bundle that a folder is, or has as `bundle/`."""
    return next((folder for folder in (path, path / "bundle") if (folder / CARD).is_file()), None)


def read_card(folder: Path) -> dict[str, Any]:
    """A bundle's model card.

    Raises:
        UserError: it is no card of kvae.
    """
    card = files.read_json(folder / CARD)
    missing = [
        name for name, kind in FIELDS.items() if not isinstance(card, dict) or not isinstance(card.get(name), kind)
    ]
    if missing:
        raise UserError(f"{folder / CARD} is not the model card of a bundle: {', '.join(missing)} missing or changed.")
    if card["format"] != FORMAT:
        raise UserError(f"{folder / CARD} is of format {card['format']}. This version of kvae reads format {FORMAT}.")
    for name in ("files", "run", "variants", "tolerances"):
        wrong = [key for key, facts in card[name].items() if not isinstance(facts, dict) or not _is_within(key)]
        if wrong:
            raise UserError(f"{folder / CARD} is not the model card of a bundle: {name} has {wrong[0]!r}.")
    return card


def _is_within(name: str) -> bool:
    """Whether a name is of something within a bundle."""
    return "\0" not in name and not os.path.isabs(name) and ".." not in Path(name).parts


def check_file(folder: Path, name: str, stated: dict[str, Any]) -> None:
    """Raises `UserError` where a file of a bundle is not the one that its card states."""
    try:
        digest = files.digest(folder / name)
    except OSError as error:
        raise UserError(f"Could not read {folder / name}: {error.strerror or error}.") from error
    if digest != stated.get("sha256"):
        raise UserError(
            f"{folder / name} is not the file that {CARD} states: it was changed or damaged. Export it again."
        )


def check_z(z: ArrayLike, latent_dim: int) -> np.ndarray:
    """Latent points as `[n, D]` float32.

    Raises:
        UserError: another shape or type, none, or NaN or infinity.
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
        UserError: another shape, none where the model needs one, or one where it takes none.
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


def _interpreter(path: Path, threads: int | None) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise UserError("Expected the package ai-edge-litert. Install it: pip install ai-edge-litert") from error
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"Could not read {path}: {error.strerror or error}.") from error
    if content[4:8] != MAGIC:
        raise UserError(f"{path} is not a .tflite file.")
    with silenced():  # the runtime tells which delegate it takes
        try:
            interpreter = Interpreter(model_content=content, num_threads=threads)
            interpreter.allocate_tensors()
            return interpreter
        except (ValueError, RuntimeError) as error:
            reason = error
    raise _damaged(path, reason) from reason


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} is damaged, or needs operations that LiteRT lacks: {str(error).strip()}")
