"""The formats that a bundle can have, by name. A new one is a file and a line in `FORMATS`."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kvae import runtime
from kvae.export import litert, savedmodel
from kvae.internal import user_files
from kvae.internal.errors import UserError, unknown

Tolerance = Mapping[str, float]


class Format(NamedTuple):
    """A format from both sides: how a model is written, and how its decoder is opened again."""

    reading: runtime.Format
    write: Callable[..., None]  # (vae, folder, variants, conditions): writes the file of each variant into the folder
    # By variant, the greatest error of any mean, and change of the test ELBO in nats, at which an export fails; `z` for
    # a variant whose z are not those of the Keras model bit for bit.
    tolerances: Mapping[str, Tolerance]
    default: tuple[str, ...]  # the variants that are written if none is asked for


FORMATS: dict[str, Format] = {
    "savedmodel": Format(
        runtime.FORMATS["savedmodel"], savedmodel.write, savedmodel.TOLERANCES, default=("saved_model",)
    ),
    "savedmodel_decoder": Format(
        runtime.FORMATS["savedmodel"], savedmodel.write, savedmodel.TOLERANCES, default=("saved_model_decoder",)
    ),
    "tflite": Format(runtime.FORMATS["tflite"], litert.write, litert.TOLERANCES, default=litert.DEFAULT_VARIANTS),
}
DEFAULT_FORMATS = ("savedmodel", "tflite")


def find(name: str) -> Format:
    """A format by its name in `FORMATS`, or one of the user's as `module:name`.

    Raises:
        UserError: if there is none of this name.
    """
    if ":" in name:
        found = user_files.find(name)
        if not isinstance(found, Format):
            raise UserError(f"Expected {name!r} to be a kvae.export.Format.")
        return found
    if name not in FORMATS:
        raise unknown("format", name, FORMATS)
    return FORMATS[name]


class Plan(NamedTuple):
    """What an export is going to write."""

    format: str
    variant: str
    file: str
    tolerance: Tolerance


def plan(formats: Any, variants: Any, tolerances: Mapping[str, float] | None) -> list[Plan]:
    """The variants that an export writes, each with its file and its tolerance.

    Args:
        formats: names of formats.
        variants: names of variants; a format that none of them belongs to writes its default.
        tolerances: greatest error of the means by variant, in place of that of the format.

    Raises:
        UserError: if a name is unknown, or a tolerance is not in (0, 1].
    """
    chosen = {name: find(name) for name in _names("format", formats, FORMATS)}
    known = {name: each for each in [*FORMATS.values(), *chosen.values()] for name in each.tolerances}
    asked = _names("variant", variants, known)
    for variant in asked:
        if variant not in known:
            raise unknown("variant", variant, known)
    _check_tolerances(tolerances, known)
    found = []
    for name, each in chosen.items():
        own = [variant for variant in asked if variant in each.tolerances and len(each.default) > 1]
        for variant in own or each.default:
            tolerance = dict(each.tolerances[variant])
            if variant in (tolerances or {}):
                tolerance["means"] = float((tolerances or {})[variant])
            found.append(Plan(name, variant, each.reading.variants[variant], tolerance))
    return found


def tolerance_of(variant: str) -> Tolerance | None:
    """The usual tolerance of a variant of kvae's formats."""
    return next((each.tolerances[variant] for each in FORMATS.values() if variant in each.tolerances), None)


def _names(kind: str, names: Any, known: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Iterable) or not tuple(names):
        raise UserError(f"Expected a list of at least one {kind} of {', '.join(known)}. Received {names!r}.")
    return tuple(dict.fromkeys(names))


def _check_tolerances(given: Any, known: Mapping[str, Any]) -> None:
    if given is not None and not isinstance(given, Mapping):
        raise UserError(f"Expected tolerances by variant, such as {{'int8': 0.2}}. Received {given!r}.")
    for variant, value in (given or {}).items():
        if variant not in known:
            raise unknown("variant", variant, known)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1:
            raise UserError(f"Expected a tolerance in (0, 1] for the means of {variant}. Received {value!r}.")


def write(vae: Any, folder: Path, plans: Iterable[Plan], conditions: Any) -> None:
    """Writes the variants of a plan into a folder, each format once."""
    by_format: dict[str, list[str]] = {}
    for each in plans:
        by_format.setdefault(each.format, []).append(each.variant)
    for name, variants in by_format.items():
        find(name).write(vae, folder, variants, conditions)
