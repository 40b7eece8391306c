"""LiteRT (.tflite): decoders that use only builtin operations, with weights in float32, float16 or int8."""

import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kvae.export import endpoints, quantization
from kvae.internal import files, reading
from kvae.internal.errors import UserError, unknown
from kvae.internal.quiet_output import silenced, without_tensorflow_reports
from kvae.internal.tensorflow import tf
from kvae.model import priors, sampling
from kvae.model.vae import VAE
from kvae.noise import portable
from kvae.runtime.litert import VARIANTS, LiteRTDecoder

DEFAULT_VARIANTS = ("float32", "float16", "int8")
TOLERANCES = {
    "float32": {"means": 1e-4, "elbo": 0.01},
    "float16": {"means": 0.02, "elbo": 0.1},
    "int8": {"means": 0.1, "elbo": 1.0},
    "full_int8": {"means": 0.5, "elbo": 20.0, "z": 100.0},  # large for z, because z is quantized as well
}
# A dynamic batch size (None) does not work on every runtime: in browsers it may return too few values.
BATCH_SIZES = (None, 1, 64)
RANGES = 256  # latent points from which the ranges of full-integer quantization are determined
PURPOSES = {
    "float32": "the reference: as exact as the Keras model",
    "float16": "phones: weights in 16 bits",
    "int8": "phones and small computers: weights of large layers in 8 bits",
    "full_int8": "processors that compute with 8-bit numbers alone; its z and images differ from the others",
}
LITERT_FOLLOWS = (2, 17)  # the version of TensorFlow Lite whose files the first version of LiteRT, 1.0.1, runs
BYTES_PER_WEIGHT = {"float32": 4, "float16": 2, "int8": 1, "full_int8": 1}


def write(vae: VAE, folder: Path, variants: Iterable[str], conditions: Any = None) -> None:
    """Writes the .tflite files of a bundle, and sample.py, which draws images with them.

    Args:
        vae: a built model.
        folder: the folder of the bundle.
        variants: names of variants, as in `convert`.
        conditions: examples of the condition, as in `convert`.

    Raises:
        UserError: as in `convert`.
    """
    for variant, content in convert(vae, variants, conditions=conditions).items():
        (folder / VARIANTS[variant]).write_bytes(content)
    (folder / "sample.py").write_bytes(Path(__file__).with_name("sample_script.py").read_bytes())


def convert(vae: VAE, variants: Iterable[str] = DEFAULT_VARIANTS, *, conditions: Any = None) -> dict[str, bytes]:
    """Converts the decoder of a model to .tflite files.

    The signatures are `decode(z [n, D]) -> means, logits` and `sample(seed int32 [n]) -> images uint8, means, z` for
    any batch size, and both with `_1` and `_64` after their names for these batch sizes. A conditional model has the
    further input `condition`. A likelihood with several numbers per pixel has `parameters` in place of logits.

    Args:
        vae: a built model.
        variants: names of variants:

            - `float32`.
            - `float16`: the weights are stored in float16.
            - `int8`: the weights of large dense layers are stored in int8, rounded so that the outputs change as little
              as possible, and their inputs are quantized during the computation (dynamic range). Convolutions and
              small layers stay in float32, because they cause most of the error and little of the size.
            - `full_int8`: everything is quantized, with fixed ranges. Not for a prior with weights, because the
              other variants keep these in float32.
        conditions: for a conditional model, examples `[M, ...]`, with which the int8 variants are calibrated.

    Returns:
        The content of the file of each variant, by its name.

    Raises:
        UserError: if a variant is unknown or does not fit the prior, if the model is not built, or if LiteRT has no
            builtin operations for the decoder.
    """
    variants = tuple(variants)
    for variant in variants:
        if variant not in VARIANTS:
            raise unknown("variant", variant, VARIANTS)
    if not variants:
        raise UserError(f"Expected at least one variant of {', '.join(VARIANTS)}. Received none.")
    if "full_int8" in variants and not vae.prior.exact:
        raise UserError(
            "Expected a model whose prior is the standard normal for the variant full_int8, because a prior's weights "
            f"are never quantized. Received the prior {priors.name_of(vae.prior)}. Choose float32, float16 or int8."
        )
    if vae.image_shape is not None:
        conditions = endpoints.conditions_of(vae, conditions, None)
    with (
        files.temporary_folder() as folder,
        silenced(),
        without_tensorflow_reports(),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", UserWarning)  # from the converter's interpreter and about debugging options
        module, signatures = endpoints.traced(vae, endpoints.DECODER, BATCH_SIZES)
        tf.saved_model.save(module, folder, signatures=signatures)
        # The converter stores the variables that decoding needs, and equal ones only once.
        sizes = {
            variable.numpy().tobytes(): int(np.prod(variable.shape)) for variable in signatures["decode"].variables
        }
        weights = sum(sizes.values())
        names = list(signatures)
        contents = {variant: _convert(vae, folder, names, variant, conditions) for variant in variants}
        float32 = contents.get("float32", b"")
        if not float32 and ("int8" in variants or not vae.prior.exact):
            float32 = _convert(vae, folder, names, "float32", conditions)
        for variant in {"float16", "int8"} & set(variants) if not vae.prior.exact else ():
            contents[variant] = quantization.with_exact_prior(contents[variant], float32)
        if "int8" in variants:
            examples = quantization.examples(vae.image_shape)
            condition = endpoints.cycled(conditions, 0, examples)
            inputs = {"z": sampling.draw_z(vae, examples, 1, condition).numpy()}
            inputs |= {} if condition is None else {"condition": condition}
            contents["int8"] = quantization.refined(contents["int8"], float32, inputs)
    for variant, content in contents.items():
        _check(content, variant, weights)
    return contents


def operators(content: bytes) -> list[str]:
    """The names of all operations in a .tflite file. Those that are not builtin begin with `custom:`."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    result = set()
    for code in model.operatorCodes:
        number = quantization.code_of(code)
        custom = number == schema.BuiltinOperator.CUSTOM
        result.add(f"custom:{(code.customCode or b'').decode()}" if custom else names[number])
    return sorted(result)


def describe(variant: str, decoder: LiteRTDecoder) -> dict[str, Any]:
    """What a model card states of a .tflite file for those who use it; arguments as in `kvae.export.Format`."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(reading.read_bytes(decoder.path or "")))
    stated = {entry.name: model.buffers[entry.buffer].data for entry in model.metadata or []}
    version = bytes(stated.get(b"min_runtime_version", b"")).rstrip(b"\0").decode("ascii", "replace")
    known = re.fullmatch(r"(\d+)\.(\d+)\.\d+", version)
    is_old = known is not None and (int(known[1]), int(known[2])) <= LITERT_FOLLOWS
    return {
        "purpose": PURPOSES[variant],
        "least_runtime": {"TensorFlow Lite": version or None, "LiteRT": "1.0.1" if is_old else None},
        "least_runtime_is": "what the file states (min_runtime_version); LiteRT 1.0.1 runs files of version 2.17",
        "signatures": [entry.signatureKey.decode("utf-8", "replace") for entry in model.signatureDefs],
    }


def _convert(vae: VAE, folder: Path, signatures: list[str], variant: str, conditions: Any) -> bytes:
    # Issue 122598 of TensorFlow: a conversion keeps memory, 22 MB for a model of 121 layers. For decoders it is about
    # 0.2 MB (tests/export/test_conversion_memory.py). A process of its own would take 3 s and 700 MB at every export.
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=signatures)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if variant != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if variant == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if variant == "full_int8":
        converter.representative_dataset = lambda: _calibration(vae, conditions)
    try:
        return converter.convert()
    except Exception as error:  # ConverterError, but also other types
        raise UserError(
            "Expected a decoder that consists of builtin operations of LiteRT. Received one with others: "
            f"{_reason(error)}. Export it with --formats savedmodel."
        ) from error


def _calibration(vae: VAE, conditions: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Examples of the inputs of every signature, in the form that the converter expects."""
    seeds = portable.seeds(RANGES, 0)
    z = sampling.draw_z(vae, RANGES, 0, endpoints.cycled(conditions, 0, RANGES)).numpy()
    for size in BATCH_SIZES:
        suffix, step = ("", 64) if size is None else (f"_{size}", size)
        for start in range(0, RANGES, step):
            condition = endpoints.cycled(conditions, start, start + step)
            further = {} if condition is None else {"condition": condition}
            yield f"decode{suffix}", {"z": z[start : start + step], **further}
            yield f"sample{suffix}", {"seed": seeds[start : start + step], **further}


def _check(content: bytes, variant: str, weights: int) -> None:
    """Raises an error if a conversion that the converter reports as successful is not usable."""
    least = int(0.9 * weights * BYTES_PER_WEIGHT[variant])
    if len(content) < least:
        raise RuntimeError(
            f"The {variant} conversion has lost weights: it has {len(content):,} bytes for {weights:,} weights."
        )
    names = operators(content)
    custom = [name for name in names if name.startswith("custom:")]
    if custom:
        raise RuntimeError(f"The {variant} conversion has operations that are not builtin: {', '.join(custom)}.")
    random = [name for name in names if "RANDOM" in name or name == "MULTINOMIAL"]
    if random:
        raise UserError(
            "Expected a decoder that is a function of z. Received one that draws random numbers itself "
            f"({', '.join(random)}), whose seed would be fixed in the .tflite file. Let the likelihood draw the noise."
        )


def _reason(error: BaseException) -> str:
    """The message of the converter, which can be very long, as one short line."""
    text = str(error)
    missing = sorted(set(re.findall(r"'(tf\.\w+)' op is neither", text) or re.findall(r'fused\["(\w+):"', text)))
    if missing:
        return ", ".join(missing)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:300]
