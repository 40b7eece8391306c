"""LiteRT (.tflite): decoders of builtin operations alone, with weights in float32, float16 or int8."""

import re
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from kvae import portable
from kvae.errors import UserError, unknown
from kvae.export import endpoints, rounding
from kvae.quiet import silenced
from kvae.runtime import MAGIC, VARIANTS
from kvae.tensorflow import tf
from kvae.vae import VAE

DEFAULT_VARIANTS = ("float32", "float16", "int8")
# A dynamic batch does not run everywhere (in browsers it may return too few values), so these stand beside it.
BATCH_SIZES = (None, 1, 64)
CALIBRATION = 4096  # latent points that show what the layers see; of seed 1, where parity is measured at seed 0
RANGES = 256  # latent points that fix the ranges of full-integer quantization
CHUNK = 256  # latent points at a time
BYTES_PER_WEIGHT = {"float32": 4, "float16": 2, "int8": 1, "full_int8": 1}
LEAST_QUANTIZED = 10_000  # weights of a layer: below that, int8 costs accuracy and saves nothing to speak of


def convert(vae: VAE, variants: Iterable[str] = DEFAULT_VARIANTS) -> dict[str, bytes]:
    """The decoder as .tflite files.

    Signatures: `decode(z [n, D]) -> means, logits` and `sample(seed int32 [n]) -> images uint8, means, z` of any batch,
    and both with `_1` and `_64` after their names for these batches alone.

    Args:
        vae: a built model.
        variants: `float32`; `float16`, weights stored so; `int8`, the weights of large dense layers stored so, and
            rounded so that outputs change least, with inputs quantized on the fly (dynamic range), while convolutions
            and small layers stay float32, for that is where the error comes from and not the size; `full_int8`,
            everything quantized, with fixed ranges.

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
    with tempfile.TemporaryDirectory() as folder, silenced(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the converter's own interpreter, and of debugging options
        module, signatures = endpoints.traced(vae, endpoints.DECODER, BATCH_SIZES)
        tf.saved_model.save(module, folder, signatures=signatures)
        contents = {variant: _convert(vae, folder, list(signatures), variant) for variant in variants}
        if "int8" in variants:
            whole = contents.get("float32") or _convert(vae, folder, list(signatures), "float32")
            contents["int8"] = _sparing(contents["int8"], whole, vae.sample_prior(CALIBRATION, 1).numpy())
    weights = sum(int(np.prod(variable.shape)) for variable in vae.decoder.variables)
    for variant, content in contents.items():
        _check(content, variant, weights)
    return contents


def operators(content: bytes) -> list[str]:
    """The names of all operations in a .tflite file, those that are not builtin with `custom:` before them."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    found = set()
    for code in model.operatorCodes:
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        custom = number == schema.BuiltinOperator.CUSTOM
        found.add(f"custom:{(code.customCode or b'').decode()}" if custom else names[number])
    return sorted(found)


def _convert(vae: VAE, folder: str, signatures: list[str], variant: str) -> bytes:
    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=signatures)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if variant != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if variant == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if variant == "full_int8":
        converter.representative_dataset = lambda: _calibration(vae)
    try:
        return converter.convert()
    except Exception as error:  # the converter raises a type of its own, and others
        raise UserError(
            "The decoder has operations that LiteRT has not built in, so it cannot be exported to .tflite; "
            f"--formats savedmodel can. It lacks: {_reason(error)}"
        ) from error


def _sparing(quantized: bytes, whole: bytes, latents: np.ndarray) -> bytes:
    """The int8 conversion, better: what is small or a convolution in float32, and the rest rounded with care.

    Args:
        quantized: the conversion to int8.
        whole: that to float32, of the same operations.
        latents: `[N, D]`, examples of what the decoder sees.
    """
    model, original = (schema.ModelT.InitFromObj(schema.Model.GetRootAs(content)) for content in (quantized, whole))
    decode = next(entry.subgraphIndex for entry in original.signatureDefs if entry.signatureKey == b"decode")
    places = [operator.inputs[0] for operator in original.subgraphs[decode].operators if _is_dense(original, operator)]
    seen = iter(_activations(whole, decode, places, latents))
    biases: dict[int, int] = {}  # buffers of the biases that go with rounded weights, by the buffer of these
    # The signatures share their weights: those of decode come first, and tell what the layers see.
    order = sorted(range(len(model.subgraphs)), key=lambda number: number != decode)
    for number in order:
        graph, before = model.subgraphs[number], original.subgraphs[number]
        for operator, operator_before in zip(graph.operators, before.operators, strict=True):
            dense = _is_dense(original, operator_before)
            inputs = next(seen) if dense and number == decode else None
            for slot, (place, place_before) in enumerate(zip(operator.inputs, operator_before.inputs, strict=True)):
                tensor, tensor_before = graph.tensors[place], before.tensors[place_before]
                if tensor.type != schema.TensorType.INT8 or tensor_before.type != schema.TensorType.FLOAT32:
                    continue
                if not (dense and slot == 1) or np.prod(tensor.shape) < LEAST_QUANTIZED:
                    tensor.type, tensor.quantization = schema.TensorType.FLOAT32, None
                    model.buffers[tensor.buffer].data = original.buffers[tensor_before.buffer].data
                    continue
                bias = (
                    graph.tensors[operator.inputs[2]] if len(operator.inputs) > 2 and operator.inputs[2] >= 0 else None
                )
                if tensor.buffer not in biases and inputs is not None:
                    biases[tensor.buffer] = _round(model, tensor, bias, _floats(original, tensor_before), inputs)
                if bias is not None and tensor.buffer in biases:
                    bias.buffer = biases[tensor.buffer]
    builder = flatbuffers.Builder(len(whole))
    builder.Finish(model.Pack(builder), MAGIC)
    return bytes(builder.Output())


def _round(model: Any, tensor: Any, bias: Any, weights: np.ndarray, inputs: np.ndarray) -> int:
    """Puts better int8 weights into a tensor's buffer; returns the buffer of the bias to go with them."""
    scales = np.broadcast_to(np.asarray(tensor.quantization.scale, np.float64), len(weights))
    integers, shifted = rounding.rounded(weights, None if bias is None else _floats(model, bias), scales, inputs)
    model.buffers[tensor.buffer].data = integers.view(np.uint8).ravel()
    if shifted is None:
        return 0
    buffer = schema.BufferT()
    buffer.data = shifted.view(np.uint8)
    model.buffers.append(buffer)  # its own: equal biases of several layers share theirs
    return len(model.buffers) - 1


def _floats(model: Any, tensor: Any) -> np.ndarray:
    data = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
    return data.view(np.float32).reshape(tensor.shape)


def _activations(content: bytes, graph: int, places: list[int], latents: np.ndarray) -> list[np.ndarray]:
    """What stands in some tensors of the decoder when it decodes `latents`: `[N, I]` each."""
    interpreter = Interpreter(model_content=content, experimental_preserve_all_tensors=True)
    if graph != 0:
        raise RuntimeError("The conversion does not begin with decode, so its layers cannot be looked into.")
    place = interpreter.get_input_details()[0]["index"]
    parts = []
    for start in range(0, len(latents), CHUNK):
        z = latents[start : start + CHUNK]
        interpreter.resize_tensor_input(place, z.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(place, z)
        interpreter.invoke()
        parts.append([interpreter.get_tensor(int(found)).reshape(len(z), -1) for found in places])
    return [np.concatenate(of_place) for of_place in zip(*parts, strict=True)]


def _is_dense(model: Any, operator: Any) -> bool:
    return _code(model, operator) == schema.BuiltinOperator.FULLY_CONNECTED


def _code(model: Any, operator: Any) -> int:
    code = model.operatorCodes[operator.opcodeIndex]
    return max(code.builtinCode, code.deprecatedBuiltinCode)  # the second is where old files have it


def _calibration(vae: VAE) -> Iterator[tuple[str, dict[str, Any]]]:
    """Inputs of every signature, as the converter asks for them."""
    seeds = portable.seeds(RANGES, 0)
    z = vae.sample_prior(RANGES, 0).numpy()
    for size in BATCH_SIZES:
        tag, step = ("", 64) if size is None else (f"_{size}", size)
        for start in range(0, RANGES, step):
            yield f"decode{tag}", {"z": z[start : start + step]}
            yield f"sample{tag}", {"seed": seeds[start : start + step]}


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
    lacking = sorted(set(re.findall(r"'(tf\.\w+)' op is neither", str(error))))
    if lacking:
        return ", ".join(lacking)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:300]
