"""int8 decoders with a small error: the choice of the layers that are quantized, and the rounding of their weights.

The converter of LiteRT quantizes every layer and rounds each weight to the nearest integer. Here convolutions and small
layers get their float32 weights back, because they cause most of the error and little of the size. The weights of the
other layers are rounded so that the outputs change as little as possible for typical inputs.
"""

import math
from collections.abc import Iterable
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from kvae.export import parity
from kvae.runtime.litert import MAGIC

LEAST_QUANTIZED = 10_000  # weights of a layer; with fewer of them, int8 saves little size for its loss of accuracy
# Inputs of a layer: each output has a scale and a zero point in each signature, which need as much space as about 24
# weights, so that int8 saves nothing for a layer with fewer inputs.
LEAST_INPUTS = 32
DAMPING = 0.01  # fraction of the mean square of the inputs that is added to each, so that the inverse is bounded
CHUNK = 256  # latent points per call of the interpreter
LEAST_EXAMPLES = 1024  # latent points for examples of the layers' inputs, at least


def examples(image_shape: Iterable[int]) -> int:
    """The number of latent points for examples of the layers' inputs, fewer if a decode takes long.

    They have seed 1, and those of the parity report seed 0.
    """
    return max(LEAST_EXAMPLES, parity.counts(image_shape).latents)


def refined(quantized: bytes, float32: bytes, examples: dict[str, np.ndarray]) -> bytes:
    """An int8 decoder with a smaller error than that of the converter.

    Args:
        quantized: the .tflite file of the converter with int8 weights.
        float32: the .tflite file of the converter with float32 weights: the same operations in the same order.
        examples: examples of the decoder's inputs by name: z `[N, D]`, and the condition of a conditional model.

    Returns:
        The content of the improved .tflite file.
    """
    model, original = (schema.ModelT.InitFromObj(schema.Model.GetRootAs(content)) for content in (quantized, float32))
    decode = next(entry.subgraphIndex for entry in original.signatureDefs if entry.signatureKey == b"decode")
    inputs = _inputs_of_dense_layers(float32, original, decode, examples)
    biases: dict[int, int | None] = {}  # the buffer of the adjusted bias, by the buffer of the rounded weights
    # The signatures share their weights. That of decode comes first, because the inputs of its layers are known.
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
    return _packed(model, len(float32))


def with_exact_prior(quantized: bytes, float32: bytes) -> bytes:
    """A decoder in which the numbers that only `sample` needs, those of the prior, have their float32 values again.

    A rounded weight would change z, and a rounded factor of a random number would choose other components.

    Args:
        quantized: the .tflite file of the converter with float16 or int8 weights.
        float32: the .tflite file of the converter with float32 weights.

    Returns:
        The content of the changed .tflite file.
    """
    model, original = (schema.ModelT.InitFromObj(schema.Model.GetRootAs(content)) for content in (quantized, float32))
    decodes = {entry.subgraphIndex for entry in original.signatureDefs if entry.signatureKey.startswith(b"decode")}
    of_decoder = {
        tensor.buffer
        for number in decodes
        for tensor in original.subgraphs[number].tensors
        if math.prod(np.asarray(tensor.shape)) > 1
    }
    copies: dict[int, int] = {}
    for number, (graph, before) in enumerate(zip(model.subgraphs, original.subgraphs, strict=True)):
        if number not in decodes:
            _restore(model, graph, original, before, of_decoder, copies)
    used = {tensor.buffer for graph in model.subgraphs for each in graph.operators for tensor in _tensors(graph, each)}
    used |= {entry.buffer for entry in model.metadata or ()}
    for number, buffer in enumerate(model.buffers):
        if number not in used:
            buffer.data = None
    return _packed(model, len(float32))


def _restore(model: Any, graph: Any, original: Any, before: Any, of_decoder: set[int], copies: dict[int, int]) -> None:
    """Gives the constants of a graph that are not among the buffers `of_decoder` the values that they had before.

    The converter puts DEQUANTIZE operations behind rounded constants, or behind the operations that select from them.
    Those that are not needed any more are removed. `copies` has the new buffer of each buffer of the original.
    """
    converts = {
        id(operator)
        for operator in graph.operators
        if code_of(model.operatorCodes[operator.opcodeIndex]) == schema.BuiltinOperator.DEQUANTIZE
    }
    sources = {operator.outputs[0]: operator.inputs[0] for operator in graph.operators if id(operator) in converts}
    others = [operator for operator in graph.operators if id(operator) not in converts]
    restored = set()  # tensors that are float32 again

    def restore(place: int, tensor_before: Any) -> None:
        tensor = graph.tensors[place]
        tensor.type, tensor.quantization = tensor_before.type, None
        restored.add(place)

    for operator, operator_before in zip(others, before.operators, strict=True):
        inputs = list(operator.inputs)
        for slot, (place, place_before) in enumerate(zip(inputs, operator_before.inputs, strict=True)):
            source, tensor_before = sources.get(place, place), before.tensors[place_before]
            tensor = graph.tensors[source]
            is_constant = place >= 0 and model.buffers[tensor.buffer].data is not None
            if is_constant and tensor.type != tensor_before.type and tensor_before.buffer not in of_decoder:
                if tensor_before.buffer not in copies:
                    copies[tensor_before.buffer] = len(model.buffers)
                    model.buffers.append(original.buffers[tensor_before.buffer])
                tensor.buffer = copies[tensor_before.buffer]
                restore(source, tensor_before)
            if source in restored:
                inputs[slot] = source
        operator.inputs = inputs
        for place, place_before in zip(operator.outputs, operator_before.outputs, strict=True):
            if graph.tensors[place].type != before.tensors[place_before].type and restored.intersection(inputs):
                restore(place, before.tensors[place_before])
    needed = {place for operator in others for place in operator.inputs} | set(graph.outputs)
    graph.operators = [each for each in graph.operators if id(each) not in converts or each.outputs[0] in needed]


def rounded(
    weights: np.ndarray, bias: np.ndarray | None, scales: np.ndarray, inputs: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Rounds the weights of a dense layer so that its outputs, and not its weights, change as little as possible.

    Frantar, Ashkboos, Hoefler and Alistarh, "GPTQ" (2023), algorithm 1, a form of the optimal brain surgeon: the
    weights of one input after another are rounded, and the weights of the following inputs, and finally the bias,
    compensate for the error as far as the inputs are correlated. The inputs of a decoder's layers are correlated,
    because all of them are functions of a few latent dimensions.

    Args:
        weights: the weights, `[O, I]` float.
        bias: the bias, `[O]` float, or None.
        scales: the scale of each output, `[O]`. A weight is the scale times its integer.
        inputs: examples of the layer's inputs, `[N, I]`.

    Returns:
        The integers, `[O, I]` int8 within +-127, and the adjusted bias, `[O]` float32, or None if there is no bias.
    """
    x, remaining = inputs.astype(np.float64), weights.astype(np.float64)
    if bias is not None:  # as the weights of a further input that is always 1
        x, remaining = np.insert(x, x.shape[1], 1, axis=1), np.insert(remaining, remaining.shape[1], bias, axis=1)
    moments = x.T @ x / len(x)
    moments[np.diag_indices_from(moments)] += DAMPING * np.diag(moments).mean()
    factor = np.linalg.cholesky(np.linalg.inv(moments)).T  # upper triangular; row j distributes the error of input j
    steps = np.where(scales > 0, scales, 1.0)
    remaining = np.ascontiguousarray(remaining.T)  # the weights of one input beside one another in memory: it is faster
    integers = np.empty(weights.shape[::-1], np.int8)
    for j in range(len(integers)):
        integers[j] = np.clip(np.rint(remaining[j] / steps), -127, 127)
        error = (remaining[j] - integers[j] * steps) / factor[j, j]
        remaining[j + 1 :] -= factor[j, j + 1 :, None] * error
    return np.ascontiguousarray(integers.T), None if bias is None else remaining[-1].astype(np.float32)


def code_of(code: Any) -> int:
    """The number of a builtin operation. Files of old versions have it in the second field."""
    return max(code.builtinCode, code.deprecatedBuiltinCode)


def _packed(model: Any, size: int) -> bytes:
    """The content of the .tflite file of a model, of about this size."""
    builder = flatbuffers.Builder(size)
    builder.Finish(model.Pack(builder), MAGIC)
    return bytes(builder.Output())


def _tensors(graph: Any, operator: Any) -> list[Any]:
    """The inputs and outputs of an operation."""
    return [graph.tensors[place] for place in (*operator.inputs, *operator.outputs) if place >= 0]


def _quantized_slots(graph: Any, operator: Any, before: Any, operator_before: Any) -> list[int]:
    """The positions of an operation's inputs that are int8 after the conversion and were float32 before it."""
    pairs = zip(operator.inputs, operator_before.inputs, strict=True)
    return [
        slot
        for slot, (place, place_before) in enumerate(pairs)
        if graph.tensors[place].type == schema.TensorType.INT8
        and before.tensors[place_before].type == schema.TensorType.FLOAT32
    ]


def _round(model: Any, tensor: Any, bias: Any, weights: np.ndarray, inputs: np.ndarray) -> int | None:
    """Replaces the integers in the buffer of a weight tensor.

    Returns:
        The index of the new buffer with the adjusted bias, or None if the layer has no bias.
    """
    scales = np.broadcast_to(np.asarray(tensor.quantization.scale, np.float64), len(weights))
    examples = inputs.reshape(-1, weights.shape[1])
    integers, adjusted = rounded(weights, None if bias is None else _floats(model, bias), scales, examples)
    model.buffers[tensor.buffer].data = integers.view(np.uint8).ravel()
    if adjusted is None:
        return None
    buffer = schema.BufferT()
    buffer.data = adjusted.view(np.uint8)
    model.buffers.append(buffer)  # a new buffer, because layers with equal biases share the old one
    return len(model.buffers) - 1


def _floats(model: Any, tensor: Any) -> np.ndarray:
    """The values of a float32 tensor."""
    data = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
    return data.view(np.float32).reshape(tensor.shape)


def _inputs_of_dense_layers(
    content: bytes, model: Any, decode: int, examples: dict[str, np.ndarray]
) -> dict[int, np.ndarray]:
    """The inputs of the dense layers in the signature `decode` for examples of its inputs.

    Returns:
        For each dense layer, by the index of its operation, an array `[N, ...]`.
    """
    if decode != 0:
        raise RuntimeError("Expected decode to be the first signature of the conversion, to inspect its layers.")
    operators = enumerate(model.subgraphs[decode].operators)
    tensors = {index: int(operator.inputs[0]) for index, operator in operators if _is_dense(model, operator)}
    interpreter = Interpreter(model_content=content, experimental_preserve_all_tensors=True)
    signature = next(entry for entry in model.signatureDefs if entry.signatureKey == b"decode")
    entries = {entry.name.decode(): entry.tensorIndex for entry in signature.inputs}
    parts = []
    for start in range(0, len(examples["z"]), CHUNK):
        chunk = {entries[name]: values[start : start + CHUNK] for name, values in examples.items()}
        for entry, values in chunk.items():
            interpreter.resize_tensor_input(entry, values.shape)
        interpreter.allocate_tensors()
        for entry, values in chunk.items():
            interpreter.set_tensor(entry, values)
        interpreter.invoke()
        parts.append([interpreter.get_tensor(tensor) for tensor in tensors.values()])
    return {index: np.concatenate(column) for index, column in zip(tensors, zip(*parts, strict=True), strict=True)}


def _is_dense(model: Any, operator: Any) -> bool:
    return code_of(model.operatorCodes[operator.opcodeIndex]) == schema.BuiltinOperator.FULLY_CONNECTED
