"""LiteRT (.tflite): decoders of builtin operations alone, with weights in float32, float16 or int8."""

import re
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kvae.export import endpoints, quantization
from kvae.internal.errors import UserError, unknown
from kvae.internal.quiet_output import silenced
from kvae.internal.tensorflow import tf
from kvae.model.vae import VAE
from kvae.noise import portable
from kvae.runtime.litert import VARIANTS

DEFAULT_VARIANTS = ("float32", "float16", "int8")
TOLERANCES = {
    "float32": {"means": 1e-4, "elbo": 0.01},
    "float16": {"means": 0.02, "elbo": 0.1},
    "int8": {"means": 0.1, "elbo": 1.0},
    "full_int8": {"means": 0.5, "elbo": 20.0, "z": 100.0},  # z is quantized as well
}
# A dynamic batch does not run everywhere (in browsers it may return too few values), so these stand beside it.
BATCH_SIZES = (None, 1, 64)
CALIBRATION = 4096  # latent points that show what the layers see; of seed 1, where parity is measured at seed 0
RANGES = 256  # latent points that fix the ranges of full-integer quantization
BYTES_PER_WEIGHT = {"float32": 4, "float16": 2, "int8": 1, "full_int8": 1}


def write(vae: VAE, folder: Path, variants: Iterable[str], conditions: Any = None) -> None:
    """Writes the .tflite files of a bundle, and sample.py, which draws images with them.

    Args:
        vae: a built model.
        folder: folder of the bundle.
        variants: as `convert` takes them.
        conditions: as `convert` takes them.
    """
    for variant, content in convert(vae, variants, conditions=conditions).items():
        (folder / VARIANTS[variant]).write_bytes(content)
    (folder / "sample.py").write_bytes(Path(__file__).with_name("sample_script.py").read_bytes())


def convert(vae: VAE, variants: Iterable[str] = DEFAULT_VARIANTS, *, conditions: Any = None) -> dict[str, bytes]:
    """The decoder as .tflite files.

    Signatures: `decode(z [n, D]) -> means, logits` and `sample(seed int32 [n]) -> images uint8, means, z` of any batch,
    and both with `_1` and `_64` after their names for these batches alone. A model with a condition has it as a further
    input, `condition`; a likelihood with several numbers a pixel has `parameters` in place of logits.

    Args:
        vae: a built model.
        variants: `float32`; `float16`, weights stored so; `int8`, the weights of large dense layers stored so, and
            rounded so that outputs change least, with inputs quantized on the fly (dynamic range), while convolutions
            and small layers stay float32, for that is where the error comes from and not the size; `full_int8`,
            everything quantized, with fixed ranges.
        conditions: examples `[M, ...]` for a model with a condition, which calibrate the int8 variants.

    Returns:
        The content of the file of each.

    Raises:
        UserError: an unknown variant, or a network that LiteRT's builtin operations cannot express.
    """
    variants = tuple(variants)
    for variant in variants:
        if variant not in VARIANTS:
            raise unknown("variant", variant, VARIANTS)
    if not variants:
        raise UserError(f"Expected at least one variant of {', '.join(VARIANTS)}. Received none.")
    if vae.image_shape is not None:
        conditions = endpoints.conditions_of(vae, conditions, None)
    with tempfile.TemporaryDirectory() as folder, silenced(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the converter's own interpreter, and of debugging options
        module, signatures = endpoints.traced(vae, endpoints.DECODER, BATCH_SIZES)
        tf.saved_model.save(module, folder, signatures=signatures)
        # Those that decoding needs, and equal ones once, as the converter stores them.
        needed = {
            variable.numpy().tobytes(): int(np.prod(variable.shape)) for variable in signatures["decode"].variables
        }
        weights = sum(needed.values())
        names = list(signatures)
        contents = {variant: _convert(vae, folder, names, variant, conditions) for variant in variants}
        if "int8" in variants:
            whole = contents.get("float32") or _convert(vae, folder, names, "float32", conditions)
            shown = endpoints.cycled(conditions, 0, CALIBRATION)
            inputs = {"z": vae.sample_prior(CALIBRATION, 1, shown).numpy()}
            inputs |= {} if shown is None else {"condition": shown}
            contents["int8"] = quantization.refined(contents["int8"], whole, inputs)
    for variant, content in contents.items():
        _check(content, variant, weights)
    return contents


def operators(content: bytes) -> list[str]:
    """The names of all operations in a .tflite file, those that are not builtin with `custom:` before them."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    found = set()
    for code in model.operatorCodes:
        number = quantization.code_of(code)
        custom = number == schema.BuiltinOperator.CUSTOM
        found.add(f"custom:{(code.customCode or b'').decode()}" if custom else names[number])
    return sorted(found)


def _convert(vae: VAE, folder: str, signatures: list[str], variant: str, conditions: Any) -> bytes:
    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=signatures)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if variant != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if variant == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if variant == "full_int8":
        converter.representative_dataset = lambda: _calibration(vae, conditions)
    try:
        return converter.convert()
    except Exception as error:  # the converter raises a type of its own, and others
        raise UserError(
            "The decoder has operations that LiteRT has not built in, so it cannot be exported to .tflite; "
            f"--formats savedmodel can. It lacks: {_reason(error)}"
        ) from error


def _calibration(vae: VAE, conditions: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Inputs of every signature, as the converter asks for them."""
    seeds = portable.seeds(RANGES, 0)
    z = vae.sample_prior(RANGES, 0, endpoints.cycled(conditions, 0, RANGES)).numpy()
    for size in BATCH_SIZES:
        tag, step = ("", 64) if size is None else (f"_{size}", size)
        for start in range(0, RANGES, step):
            own = endpoints.cycled(conditions, start, start + step)
            further = {} if own is None else {"condition": own}
            yield f"decode{tag}", {"z": z[start : start + step], **further}
            yield f"sample{tag}", {"seed": seeds[start : start + step], **further}


def _check(content: bytes, variant: str, weights: int) -> None:
    """Raises where a conversion went wrong without saying so."""
    least = int(0.9 * weights * BYTES_PER_WEIGHT[variant])
    if len(content) < least:
        raise RuntimeError(
            f"The {variant} conversion has {len(content):,} bytes, too few for {weights:,} weights: it lost them."
        )
    found = operators(content)
    custom = [name for name in found if name.startswith("custom:")]
    if custom:
        raise RuntimeError(f"The {variant} conversion has operations that are not builtin: {', '.join(custom)}.")
    drawing = [name for name in found if "RANDOM" in name or name == "MULTINOMIAL"]
    if drawing:
        raise UserError(
            f"The decoder draws random numbers of its own ({', '.join(drawing)}), whose seed a .tflite would freeze. "
            "Leave the noise to the likelihood: a decoder is a function of z."
        )


def _reason(error: BaseException) -> str:
    """What the converter says, which may be pages, in a line."""
    text = str(error)
    lacking = sorted(set(re.findall(r"'(tf\.\w+)' op is neither", text) or re.findall(r'fused\["(\w+):"', text)))
    if lacking:
        return ", ".join(lacking)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:300]
