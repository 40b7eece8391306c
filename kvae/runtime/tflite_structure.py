"""Checks the structure of a .tflite file before LiteRT reads it, whose native code relies on it.

The schema is `tensorflow/compiler/mlir/lite/schema/schema.fbs`, in which the number of a field never changes. Only what
decoders of kvae can contain is accepted: dense tensors of numbers, in one file. The values of the weights are not
checked, because any values are possible.
"""

import numpy as np

from kvae.runtime import tflite_operations
from kvae.runtime.flatbuffer import Flatbuffer, Ragged, Tables, require

# For each type of a tensor, the number of bits of one value. Texts, resources and variants are not accepted.
BITS = {0: 32, 1: 16, 2: 32, 3: 8, 4: 64, 6: 8, 7: 16, 8: 64, 9: 8, 10: 64, 11: 128, 12: 64, 15: 32, 16: 16, 17: 4}
LARGEST = 2.0**53  # entries of a tensor; below it, products of sides are exact in float64
# Fields of Model.
KINDS, GRAPHS, DESCRIPTION, BUFFERS, METADATA_BUFFERS, METADATA, SIGNATURES, *EXTERNAL = range(1, 10)
TENSORS, INPUTS, OUTPUTS, OPERATORS, GRAPH_NAME = range(5)  # of SubGraph
SHAPE, TYPE, BUFFER, NAME, QUANTIZATION, VARIABLE, SPARSITY, SIGNATURE, HAS_RANK, VARIANTS, ELSEWHERE = range(11)
LEAST, GREATEST, SCALE, ZERO, _, DETAILS, AXIS = range(7)  # of QuantizationParameters


def check(content: bytes) -> None:
    """Checks that every offset and every index of a .tflite file leads to something of the expected kind.

    All tables, vectors and texts are within the file. Tensors have a known type and a buffer, and a buffer with weights
    has the size of the shape. Operations have the inputs and options that they need; they read only tensors that are
    given, constant or computed before, and compute only others. The inputs and outputs of a signature are those of its
    graph.

    Args:
        content: the bytes of the file.

    Raises:
        StructureError: if it is not so.
    """
    model = Flatbuffer(content).root
    sizes = _check_buffers(model)
    graphs, _ = model.children(GRAPHS)
    require(len(graphs) > 0, "it has no graph")
    graphs.check_texts(GRAPH_NAME)
    tensors, graph_of = graphs.children(TENSORS)
    numbers = _Numbers(graph_of, len(graphs))
    constant = _check_tensors(tensors, sizes)
    inputs, outputs = (_mask(numbers.of(graphs.vectors(slot, "<i4")), len(tensors)) for slot in (INPUTS, OUTPUTS))
    given = constant | inputs | (tensors.numbers(VARIABLE, "u1") != 0)  # variables are of recurrent layers
    operators, graph_of = graphs.children(OPERATORS)
    tflite_operations.check(operators, model.children(KINDS)[0])
    computed = _check_order(operators, given, numbers, graph_of)
    require(~outputs | given | computed, "an output is not computed")
    _check_signatures(model, inputs, outputs, numbers)


class _Numbers:
    """The numbers of tensors in the whole file, from those in their graphs.

    Args:
        graph_of: for each tensor, its graph.
        count: the number of graphs.
    """

    def __init__(self, graph_of: np.ndarray, count: int) -> None:
        self._counts = np.bincount(graph_of, minlength=count)
        self._firsts = np.cumsum(self._counts) - self._counts

    def of(self, local: Ragged, graphs: np.ndarray | None = None) -> np.ndarray:
        """The numbers of the tensors that `local` names. By default its owners are graphs; else `graphs` are theirs."""
        owners = local.owners if graphs is None else graphs[local.owners]
        require((local.values >= 0) & (local.values < self._counts[owners]), "it refers to a tensor that is not there")
        return local.values + self._firsts[owners]


def _mask(numbers: np.ndarray, count: int) -> np.ndarray:
    result = np.zeros(count, bool)
    result[numbers] = True
    return result


def _check_buffers(model: Tables) -> np.ndarray:
    """Checks the buffers and the metadata, and returns the size of each buffer in bytes."""
    require(not model.has(*EXTERNAL), "its weights are in other files")
    model.check_texts(DESCRIPTION)
    buffers, _ = model.children(BUFFERS)
    require(
        (buffers.numbers(1, "<u8") <= 1) & (buffers.numbers(2, "<u8") <= 1), "its weights are outside of its tables"
    )
    metadata, _ = model.children(METADATA)
    metadata.check_texts(0)
    for numbers in (metadata.numbers(1, "<u4"), model.vectors(METADATA_BUFFERS, "<i4").values):
        require((numbers >= 0) & (numbers < len(buffers)), "its metadata are not there")
    return buffers.lengths(0)


def _check_tensors(tensors: Tables, sizes: np.ndarray) -> np.ndarray:
    """Checks the tensors.

    Args:
        tensors: the tensors of all graphs.
        sizes: the sizes of the buffers, in bytes.

    Returns:
        For each tensor, whether its values are in the file, `[n]` bool.
    """
    tensors.check_texts(NAME)
    tensors.numbers(HAS_RANK, "u1")
    require(not tensors.has(SPARSITY, VARIANTS, ELSEWHERE), "a tensor is sparse, or its values are elsewhere")
    types, buffers = tensors.numbers(TYPE, "i1"), tensors.numbers(BUFFER, "<u4")
    require(np.isin(types, list(BITS)), "a tensor has no known type")
    require(buffers < len(sizes), "a tensor has no buffer")
    shapes, signatures = tensors.vectors(SHAPE, "<i4"), tensors.vectors(SIGNATURE, "<i4")
    require(shapes.values >= 0, "a tensor has no valid shape")
    _check_signature_of_shapes(shapes, signatures, len(tensors))
    entries = np.ones(len(tensors))
    np.multiply.at(entries, shapes.owners, shapes.values)
    require(entries < LARGEST, "a tensor is too large")
    bits = np.zeros(max(BITS) + 1, np.int64)
    bits[list(BITS)] = list(BITS.values())
    stored = sizes[buffers]
    expected = -(-entries.astype(np.int64) * bits[types] // 8)
    require((stored == 0) | (stored == expected), "a tensor and its values differ in size")
    _check_quantization(tensors, shapes)
    return (stored > 0) | (entries == 0)


def _check_signature_of_shapes(shapes: Ragged, signatures: Ragged, count: int) -> None:
    """Checks that a shape with sides of any length, -1, is otherwise the shape of its tensor, which has 1 there."""
    ranks, known = (np.bincount(each.owners, minlength=count) for each in (shapes, signatures))
    require((known == 0) | (known == ranks), "a tensor has two different shapes")
    sides = shapes.values[known[shapes.owners] > 0]
    free = signatures.values == -1
    require(np.where(free, sides == 1, sides == signatures.values), "a tensor has two different shapes")


def _check_quantization(tensors: Tables, shapes: Ragged) -> None:
    quantization, owners = tensors.child(QUANTIZATION)
    require(not quantization.has(DETAILS), "a tensor has a quantization of its own")
    quantization.lengths(LEAST, "<f4"), quantization.lengths(GREATEST, "<f4")
    scales, zeros = quantization.vectors(SCALE, "<f4"), quantization.vectors(ZERO, "<i8")
    require(np.isfinite(scales.values) & (scales.values >= 0), "the scale of a tensor is not a positive number")
    counts, counts_of_zeros = (np.bincount(each.owners, minlength=len(quantization)) for each in (scales, zeros))
    require((counts_of_zeros == counts) | (counts_of_zeros == 0), "a tensor does not have one zero point per scale")
    ranks = np.bincount(shapes.owners, minlength=len(tensors))
    several, axis = counts > 1, quantization.numbers(AXIS, "<i4")
    require(~several | ((axis >= 0) & (axis < ranks[owners])), "the scales of a tensor have no axis")
    sides = shapes.values[((np.cumsum(ranks) - ranks)[owners] + axis)[several]]
    require(counts[several] == sides, "a tensor does not have one scale per channel")


def _check_order(operators: Tables, given: np.ndarray, numbers: _Numbers, graph_of: np.ndarray) -> np.ndarray:
    """Checks that operations read only what is given or computed before, and that each result is computed once.

    Args:
        operators: the operations of all graphs, in their order.
        given: for each tensor, whether it has a value before any operation, `[n]` bool.
        numbers: the numbers of tensors.
        graph_of: for each operation, its graph.

    Returns:
        For each tensor, whether an operation computes it, `[n]` bool.
    """
    results = operators.vectors(tflite_operations.OUTPUTS, "<i4")
    made = numbers.of(results, graph_of)
    require(~given[made], "an operation would replace an input or a constant")
    made_by = np.full(len(given), len(operators))
    made_by[made] = results.owners
    require(len(made) == np.count_nonzero(made_by < len(operators)), "two operations have the same result")
    made_by[given] = -1
    for slot in (tflite_operations.INPUTS, tflite_operations.INTERMEDIATES):
        used = operators.vectors(slot, "<i4")
        present = used.values != -1
        used = Ragged(used.values[present], used.owners[present])
        read = numbers.of(used, graph_of)
        require(
            (slot != tflite_operations.INPUTS) | (made_by[read] < used.owners),
            "an operation reads what is not computed before",
        )
    return made_by < len(operators)


def _check_signatures(model: Tables, inputs: np.ndarray, outputs: np.ndarray, numbers: _Numbers) -> None:
    """Checks the signatures; `inputs` and `outputs` say of each tensor whether it is one of its graph, `[n]` bool."""
    signatures, _ = model.children(SIGNATURES)
    signatures.check_texts(2)
    graphs = signatures.numbers(4, "<u4")
    require(graphs < len(model.children(GRAPHS)[0]), "a signature has no graph")
    for slot, allowed in ((0, inputs), (1, outputs)):
        entries, owners = signatures.children(slot)
        entries.check_texts(0)
        named = numbers.of(Ragged(entries.numbers(1, "<u4"), owners), graphs)
        require(allowed[named], "a signature names a tensor that is no input or output of its graph")
