"""The table of the formats of a bundle. A new format is a file and a line in `FORMATS`."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kvae import runtime
from kvae.export import litert, onnx, savedmodel, web
from kvae.export.steps import Begin, silent
from kvae.internal import user_files
from kvae.internal.errors import UserError, unknown
from kvae.runtime.formats import unknown_variant

Tolerance = Mapping[str, float]


class Format(NamedTuple):
    """A format: how it is written, and how a decoder in this format is opened."""

    reading: runtime.Format
    write: Callable[..., None]  # (vae, folder, variants, conditions): writes the file of each variant into the folder
    # For each variant, the largest permitted error: `means` of the means, `elbo` of the test ELBO in nats, and `z` for
    # a variant whose z are not bit for bit those of the Keras model.
    tolerances: Mapping[str, Tolerance]
    default: tuple[str, ...]  # the variants that are written if none is named
    check: Callable[[Any], None] | None = None  # (vae): raises `UserError` if the format cannot hold this model
    tells: bool = False  # whether `write` takes `about`, a `kvae.export.web.About`
    # (variant, decoder): what the model card states for those who use the file: `purpose`; `least_runtime`, the least
    # version of each runtime, None if it is not known; `least_runtime_is`, which says how it is known; `signatures`.
    describe: Callable[[str, Any], Mapping[str, Any]] | None = None


FORMATS: dict[str, Format] = {
    "savedmodel": Format(
        runtime.FORMATS["savedmodel"],
        savedmodel.write,
        {"saved_model": savedmodel.TOLERANCE},
        ("saved_model",),
        describe=savedmodel.describe,
    ),
    "savedmodel_decoder": Format(
        runtime.FORMATS["savedmodel"],
        savedmodel.write,
        {"saved_model_decoder": savedmodel.TOLERANCE},
        ("saved_model_decoder",),
        describe=savedmodel.describe,
    ),
    "tflite": Format(
        runtime.FORMATS["tflite"], litert.write, litert.TOLERANCES, litert.DEFAULT_VARIANTS, describe=litert.describe
    ),
    "onnx": Format(runtime.FORMATS["onnx"], onnx.write, onnx.TOLERANCES, ("onnx",), describe=onnx.describe),
    "web": Format(
        runtime.FORMATS["web"], web.write, web.TOLERANCES, ("web_int8",), web.check, tells=True, describe=web.describe
    ),
}
DEFAULT_FORMATS = ("savedmodel", "tflite", "web")  # without those that cannot hold the model


def find(name: str) -> Format:
    """Finds a format.

    Args:
        name: a name in `FORMATS`, or `module:name` for a `Format` in an imported file.

    Raises:
        UserError: if there is no format with this name.
    """
    if ":" in name:
        value = user_files.find(name)
        if not isinstance(value, Format):
            raise UserError(f"Expected {name!r} to be a kvae.export.Format. Received {type(value).__name__}.")
        return value
    if name not in FORMATS:
        raise unknown("format", name, FORMATS)
    return FORMATS[name]


class Plan(NamedTuple):
    """One variant that an export writes."""

    format: str  # its name
    variant: str
    file: str  # the file or folder in the bundle
    tolerance: Tolerance


def plan(formats: Any, variants: Any, tolerances: Mapping[str, float] | None) -> list[Plan]:
    """The variants that an export writes, each with its file and its tolerance.

    Args:
        formats: names of formats, or None for `DEFAULT_FORMATS`.
        variants: names of variants. A format that has none of them writes its default variants.
        tolerances: for each variant, the largest permitted error of the means, in place of that of the format.

    Raises:
        UserError: if a name is unknown, or a tolerance is not in (0, 1].
    """
    chosen = {name: find(name) for name in _names("format", DEFAULT_FORMATS if formats is None else formats, FORMATS)}
    valid = list(dict.fromkeys(name for each in (*FORMATS.values(), *chosen.values()) for name in each.tolerances))
    names = _names("variant", variants, valid)
    for variant in names:
        if variant not in valid:
            raise unknown_variant(variant, valid)
    _check_tolerances(tolerances, valid)
    if names != litert.DEFAULT_VARIANTS:
        _check_used(names, chosen)
    plans = []
    for name, format_ in chosen.items():
        selected = [variant for variant in names if variant in format_.tolerances]
        for variant in selected or format_.default:
            tolerance = dict(format_.tolerances[variant])
            if variant in (tolerances or {}):
                tolerance["means"] = float((tolerances or {})[variant])
            plans.append(Plan(name, variant, format_.reading.variants[variant], tolerance))
    return plans


def _check_used(variants: Iterable[str], chosen: Mapping[str, Format]) -> None:
    """Raises `UserError` if a variant belongs to none of the chosen formats."""
    for variant in variants:
        if not any(variant in each.tolerances for each in chosen.values()):
            owner = next(name for name, each in FORMATS.items() if variant in each.tolerances)
            raise UserError(
                f"Expected variants of the formats {', '.join(chosen)}. Received {variant}, which is one of the format "
                f"{owner}. Add {owner} to the formats, or leave this variant out."
            )


def tolerance_of(variant: str) -> Tolerance | None:
    """The default tolerance of a variant, or None if it is not a variant of kvae's formats."""
    return next((format_.tolerances[variant] for format_ in FORMATS.values() if variant in format_.tolerances), None)


def describe(variant: str, decoder: Any, format_: Format | None = None) -> dict[str, Any]:
    """What a model card states of the file of a variant for those who use it.

    Args:
        variant: its name.
        decoder: its decoder.
        format_: its format. By default that of kvae's formats which has the variant, if there is one.
    """
    if format_ is None:
        format_ = next((each for each in FORMATS.values() if variant in each.tolerances), None)
    return {} if format_ is None or format_.describe is None else dict(format_.describe(variant, decoder))


def _names(kind: str, names: Any, valid: Iterable[str]) -> tuple[str, ...]:
    """The names without repetitions; raises `UserError` if there are none."""
    if isinstance(names, str) or not isinstance(names, Iterable) or not tuple(names):
        raise UserError(f"Expected a list of at least one {kind} of {', '.join(valid)}. Received {names!r}.")
    return tuple(dict.fromkeys(names))


def _check_tolerances(tolerances: Any, valid: Iterable[str]) -> None:
    """Raises `UserError` if the tolerances are not a mapping from valid variants to numbers in (0, 1]."""
    if tolerances is not None and not isinstance(tolerances, Mapping):
        raise UserError(f"Expected tolerances by variant, such as {{'int8': 0.2}}. Received {tolerances!r}.")
    for variant, value in (tolerances or {}).items():
        if variant not in valid:
            raise unknown_variant(variant, valid)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1:
            raise UserError(f"Expected a tolerance in (0, 1] for the means of {variant}. Received {value!r}.")


def possible(vae: Any, plans: Iterable[Plan], *, by_default: bool, say: Begin = silent) -> list[Plan]:
    """The variants that can hold a model.

    Args:
        vae: a built model.
        plans: variants, as `plan` returned them.
        by_default: whether nobody asked for their formats, so that those that cannot hold the model are left out.
        say: is called with a line for each format that is left out, which says why.

    Raises:
        UserError: if a format cannot hold the model, and somebody asked for it.
    """
    plans = list(plans)
    for name in dict.fromkeys(entry.format for entry in plans):
        check = find(name).check
        try:
            if check is not None:
                check(vae)
        except UserError as error:
            if not by_default:
                raise UserError(f"{error} Nothing was written. Leave {name} out of --formats.") from error
            say(f"without the format {name}: {error}")
            plans = [entry for entry in plans if entry.format != name]
    return plans


def write(
    vae: Any,
    folder: Path,
    plans: Iterable[Plan],
    conditions: Any,
    about: web.About | None = None,
    begin: Begin = silent,
) -> None:
    """Writes the variants into a folder.

    Args:
        vae: a built model.
        folder: the folder of the bundle.
        plans: the variants, as `plan` returned them.
        conditions: examples of the condition `[M, ...]` for a conditional model; else None.
        about: what a format for people says of the model.
        begin: is called with the words of each step.
    """
    by_format: dict[str, list[str]] = {}
    for entry in plans:
        by_format.setdefault(entry.format, []).append(entry.variant)
    for name, variants in by_format.items():
        format_ = find(name)
        begin(f"writing {', '.join(variants)}")
        format_.write(vae, folder, variants, conditions, **({"about": about} if format_.tells else {}))
