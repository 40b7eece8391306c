"""int8 decoders that keep their accuracy: which layers are quantized, and how their weights are rounded.

The converter to LiteRT quantizes every layer, each weight to the nearest integer. Here convolutions and small layers
get their float32 weights back, since the error comes from them and not the size, and the weights of the others are
rounded with an eye on what the layers see.
"""

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from kvae.runtime.litert import MAGIC

LEAST_QUANTIZED = 10_000  # weights of a layer: below that, int8 costs accuracy and saves nothing to speak of
LEAST_INPUTS = 32  # of a layer: every output has a scale and a zero point in each signature, some 24 weights' worth
DAMPING = 0.01  # of the mean square of a layer's inputs, added to each: keeps the inverse in bounds
CHUNK = 256  # latent points at a time


def refined(quantized: bytes, whole: bytes, seen: dict[str, np.ndarray]) -> bytes:
    """The better int8 conversion.

    Args:
        quantized: the converter's, to int8.
        whole: the converter's, to float32: the same operations in the same order.
        seen: examples of what the decoder sees, by input: z `[N, D]`, and its condition where it has one.

    Returns:
        The content of a .tflite file.
    """
    model, original = (schema.ModelT.InitFromObj(schema.Model.GetRootAs(content)) for content in (quantized, whole))
    decode = next(entry.subgraphIndex for entry in original.signatureDefs if entry.signatureKey == b"decode")
    inputs = _inputs_of_dense_layers(whole, original, decode, seen)
    biases: dict[int, int | None] = {}  # by the buffer of rounded weights, that of the bias to go with them
    # The signatures share their weights. That of decode comes first: what its layers see is known.
    for number in sorted(range(len(model.subgraphs)), key=lambda number: number != decode):
        graph, before = model.subgraphs[number], original.subgraphs[number]
        for place, (operator, operator_before) in enumerate(zip(graph.operators, before.operators, strict=True)):
            for slot in _quantized_slots(graph, operator, before, operator_before):
                tensor = graph.tensors[operator.inputs[slot]]
                weights = _floats(original, before.tensors[operator_before.inputs[slot]])
                large = _is_dense(original, operator_before) and slot == 1 and weights.size >= LEAST_QUANTIZED
                large = large and weights.shape[1] >= LEAST_INPUTS
                if not large:
                    tensor.type, tensor.quantization = schema.TensorType.FLOAT32, None
                    model.buffers[tensor.buffer].data = weights.view(np.uint8).ravel()
                    continue
                has_bias = len(operator.inputs) > 2 and operator.inputs[2] >= 0
                bias = graph.tensors[operator.inputs[2]] if has_bias else None
                if tensor.buffer not in biases and number == decode:
                    biases[tensor.buffer] = _round(model, tensor, bias, weights, inputs[place])
                if bias is not None and biases.get(tensor.buffer) is not None:
                    bias.buffer = biases[tensor.buffer]
    builder = flatbuffers.Builder(len(whole))
    builder.Finish(model.Pack(builder), MAGIC)
    return bytes(builder.Output())


def rounded(
    weights: np.ndarray, bias: np.ndarray | None, scales: np.ndarray, inputs: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """int8 weights and the bias to go with them, such that the layer's outputs change least, not its weights.

    Frantar, Ashkboos, Hoefler and Alistarh, "GPTQ" (2023), algorithm 1, after the optimal brain surgeon: one input
    after another is rounded, and the weights of those that follow, at last the bias, make up for the error as far as
    the inputs are correlated. A decoder's are, for they all are functions of a few latent dimensions.

    Args:
        weights: `[O, I]` float.
        bias: `[O]` float, if there is one.
        scales: `[O]`, of every output: a weight is scale times its integer.
        inputs: `[N, I]`, examples of what the layer sees.

    Returns:
        `[O, I]` int8 within +-127 and `[O]` float32, or None without a bias.
    """
    seen, left = inputs.astype(np.float64), weights.astype(np.float64)
    if bias is not None:
        seen, left = np.insert(seen, seen.shape[1], 1, axis=1), np.insert(left, left.shape[1], bias, axis=1)
    moments = seen.T @ seen / len(seen)
    moments[np.diag_indices_from(moments)] += DAMPING * np.diag(moments).mean()
    factor = np.linalg.cholesky(np.linalg.inv(moments)).T  # upper; row j tells how errors of input j spread
    steps = np.where(scales > 0, scales, 1.0)
    integers = np.empty(weights.shape, np.int8)
    for j in range(weights.shape[1]):
        integers[:, j] = np.clip(np.rint(left[:, j] / steps), -127, 127)
        error = (left[:, j] - integers[:, j] * steps) / factor[j, j]
        left[:, j + 1 :] -= error[:, None] * factor[j, j + 1 :]
    return integers, None if bias is None else left[:, -1].astype(np.float32)


def code_of(code: Any) -> int:
    """The builtin code of an operator code; files of long ago have it in the second field."""
    return max(code.builtinCode, code.deprecatedBuiltinCode)


def _quantized_slots(graph: Any, operator: Any, before: Any, operator_before: Any) -> list[int]:
    """The inputs of an operation that are int8 where they were float32."""
    pairs = zip(operator.inputs, operator_before.inputs, strict=True)
    return [
        slot
        for slot, (place, place_before) in enumerate(pairs)
        if graph.tensors[place].type == schema.TensorType.INT8
        and before.tensors[place_before].type == schema.TensorType.FLOAT32
    ]


def _round(model: Any, tensor: Any, bias: Any, weights: np.ndarray, inputs: np.ndarray) -> int | None:
    """Puts better integers into a tensor's buffer; returns the new buffer of the bias to go with them."""
    scales = np.broadcast_to(np.asarray(tensor.quantization.scale, np.float64), len(weights))
    seen = inputs.reshape(-1, weights.shape[1])
    integers, shifted = rounded(weights, None if bias is None else _floats(model, bias), scales, seen)
    model.buffers[tensor.buffer].data = integers.view(np.uint8).ravel()
    if shifted is None:
        return None
    buffer = schema.BufferT()
    buffer.data = shifted.view(np.uint8)
    model.buffers.append(buffer)  # a new one: layers whose biases were equal shared theirs
    return len(model.buffers) - 1


def _floats(model: Any, tensor: Any) -> np.ndarray:
    data = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
    return data.view(np.float32).reshape(tensor.shape)


def _inputs_of_dense_layers(
    content: bytes, model: Any, decode: int, seen: dict[str, np.ndarray]
) -> dict[int, np.ndarray]:
    """What the dense layers of the signature decode see of its inputs `seen`: `[N, ...]` by place of operation."""
    if decode != 0:
        raise RuntimeError("The conversion does not begin with decode, so its layers cannot be looked into.")
    operators = enumerate(model.subgraphs[decode].operators)
    tensors = {place: int(operator.inputs[0]) for place, operator in operators if _is_dense(model, operator)}
    interpreter = Interpreter(model_content=content, experimental_preserve_all_tensors=True)
    signature = next(entry for entry in model.signatureDefs if entry.signatureKey == b"decode")
    entries = {entry.name.decode(): entry.tensorIndex for entry in signature.inputs}
    parts = []
    for start in range(0, len(seen["z"]), CHUNK):
        piece = {entries[name]: values[start : start + CHUNK] for name, values in seen.items()}
        for entry, values in piece.items():
            interpreter.resize_tensor_input(entry, values.shape)
        interpreter.allocate_tensors()
        for entry, values in piece.items():
            interpreter.set_tensor(entry, values)
        interpreter.invoke()
        parts.append([interpreter.get_tensor(tensor) for tensor in tensors.values()])
    return {place: np.concatenate(of_place) for place, of_place in zip(tensors, zip(*parts, strict=True), strict=True)}


def _is_dense(model: Any, operator: Any) -> bool:
    return code_of(model.operatorCodes[operator.opcodeIndex]) == schema.BuiltinOperator.FULLY_CONNECTED
