"""ONNX: one file with both functions of a decoder, for ONNX Runtime on computers, phones and in browsers.

An ONNX graph has no signatures. So `decode` and `sample` are two parts of one graph, which share their weights. Each is
the branch of an `If` that is taken if its input has rows. All inputs must be given, because runtimes outside of Python
refuse inputs that may be left out: an input without rows skips its function.
"""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kvae.export import endpoints
from kvae.internal.errors import UserError, first_line
from kvae.internal.missing_packages import check_onnx
from kvae.internal.quiet_output import silenced, without_tensorflow_reports
from kvae.model.vae import VAE
from kvae.runtime.onnx import NAMES, VARIANTS, OnnxDecoder

OPSET = 18  # the first with BitwiseXor, which the portable random numbers need
IR_VERSION = 8  # the format of the file that belongs to this opset, which older runtimes read as well
LEAST_VERSION = "1.21"  # of ONNX Runtime: 1.20 cannot multiply uint32 numbers, which the random numbers need
TOLERANCES = {"onnx": {"means": 1e-4, "elbo": 0.01}}


def write(vae: VAE, folder: Path, variants: Iterable[str], conditions: Any = None) -> None:
    """Writes decoder.onnx of a bundle.

    Args:
        vae: a built model.
        folder: the folder of the bundle.
        variants: `onnx` alone.
        conditions: not used.

    Raises:
        UserError: if tf2onnx or onnxruntime is not installed, or if ONNX has no operations for the decoder.
    """
    for variant in variants:
        (folder / VARIANTS[variant]).write_bytes(convert(vae))


def convert(vae: VAE) -> bytes:
    """Converts the decoder of a model to ONNX.

    The inputs are `decode_z [n, D]` and `sample_seed [n]` int32, the outputs `decode_means` and `decode_logits` (or
    `decode_parameters`), `sample_images` uint8, `sample_means` and `sample_z`. A conditional model has the further
    inputs `decode_condition` and `sample_condition`. All must be given; if the inputs of a function have no rows
    (`[0, D]`, `[0]`), it is not computed, and its outputs have no rows.

    Args:
        vae: a built model.

    Returns:
        The content of the file.

    Raises:
        UserError: as for `write`.
    """
    onnx, _ = _packages()
    graph = onnx.GraphProto(name="kvae")
    known: dict[bytes, str] = {}
    with silenced(), without_tensorflow_reports():
        module, _ = endpoints.traced(vae, endpoints.DECODER)
        for name in endpoints.DECODER:
            _add(graph, name, _converted(getattr(module, name)), known)
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="kvae"
    )
    return model.SerializeToString()


def describe(variant: str, decoder: OnnxDecoder) -> dict[str, Any]:
    """What a model card states of an .onnx file for those who use it; arguments as in `kvae.export.Format`.

    The signatures are parts of one graph, so that each input and output has another name in the file: `names`.
    """
    return {
        "purpose": "ONNX Runtime on computers, on phones and in browsers",
        "least_runtime": {"ONNX Runtime": LEAST_VERSION},
        "least_runtime_is": f"the oldest that ran such a file when it was tried; its opset is {OPSET}",
        "signatures": list(NAMES),
        "names": decoder.names,
    }


def _packages() -> tuple[Any, Any]:
    check_onnx()
    import onnx.compose
    import onnxruntime  # noqa: F401  with which the file is compared
    import tf2onnx

    return onnx, tf2onnx


def _converted(function: Any) -> Any:
    """A `tf.function` as an ONNX model of operations that every runtime has."""
    onnx, tf2onnx = _packages()
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    try:
        model, _ = tf2onnx.convert.from_function(function, input_signature=function.input_signature, opset=OPSET)
    except Exception as error:  # of several types
        raise _with_others(first_line(error)) from error
    nodes = list(_all_nodes(model.graph))
    random = sorted({node.op_type for node in nodes if "Random" in node.op_type or node.op_type == "Multinomial"})
    if random:
        raise UserError(
            "Expected a decoder that is a function of z. Received one that draws random numbers itself "
            f"({', '.join(random)}). Let the likelihood draw the noise."
        )
    others = sorted({node.op_type for node in nodes if node.domain or not onnx.defs.has(node.op_type, OPSET)})
    if others:
        raise _with_others(", ".join(others))
    return model


def _with_others(what: str) -> UserError:
    return UserError(
        f"Expected a decoder that consists of operations of ONNX. Received one with others: {what}. Export it with "
        "--formats savedmodel."
    )


def _all_nodes(graph: Any) -> Iterator[Any]:
    """The nodes of a graph, and those of the graphs in its nodes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _all_nodes(inner)


def _add(graph: Any, name: str, model: Any, known: dict[bytes, str]) -> None:
    """Adds a function to a graph, as a branch that is taken if its input has rows.

    Args:
        graph: the graph.
        name: the name of the function, with which all of its names begin.
        model: the function.
        known: for the content of each constant in the graph, its name. A constant of equal content is not added again.
    """
    from onnx import TensorProto, compose, helper

    part = compose.add_prefix(model, f"{name}_").graph
    renamed = {output.name: f"{output.name}_if_given" for output in part.output}
    for constant in part.initializer:
        content = TensorProto()
        content.CopyFrom(constant)
        content.ClearField("name")
        own = content.SerializeToString(deterministic=True)
        if own not in known:
            known[own] = constant.name
            graph.initializer.append(constant)
        renamed[constant.name] = known[own]
    for node in _all_nodes(part):
        for values in (node.input, node.output):
            values[:] = [renamed.get(value, value) for value in values]
    for value in (*part.input, *part.output):
        value.type.tensor_type.shape.dim[0].dim_param = f"{name}_n"
    given = helper.make_graph(
        part.node, f"{name}_given", [], [_named(each, renamed[each.name]) for each in part.output]
    )
    nothing = [_named(each, f"{each.name}_if_not_given") for each in part.output]
    no_rows = [helper.make_node("Constant", [], [each.name], value=_without_rows(each)) for each in nothing]
    size, is_given = f"{name}_size", f"{name}_is_given"
    graph.node.extend(
        [
            helper.make_node("Size", [f"{name}_{NAMES[name][0]}"], [size]),
            helper.make_node("Cast", [size], [is_given], to=TensorProto.BOOL),
            helper.make_node(
                "If",
                [is_given],
                [each.name for each in part.output],
                then_branch=given,
                else_branch=helper.make_graph(no_rows, f"{name}_not_given", [], nothing),
            ),
        ]
    )
    graph.input.extend(part.input)
    graph.output.extend(part.output)


def _named(value: Any, name: str) -> Any:
    """The description of a value with another name."""
    copy = type(value)()
    copy.CopyFrom(value)
    copy.name = name
    return copy


def _without_rows(value: Any) -> Any:
    """A tensor of the type and shape of a value, but without rows."""
    from onnx import helper, numpy_helper

    described = value.type.tensor_type
    shape = [0, *(each.dim_value for each in described.shape.dim[1:])]
    return numpy_helper.from_array(np.zeros(shape, helper.tensor_dtype_to_np_dtype(described.elem_type)), value.name)
