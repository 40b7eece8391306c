"""The check of the structure of a .tflite file: what it accepts, and damage at which LiteRT crashed, hung or lied."""

import inspect
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from kvae import runtime
from kvae.internal.errors import UserError
from kvae.runtime import children, flatbuffer, litert, tflite_operations, tflite_structure
from kvae.runtime.flatbuffer import StructureError

SHIPPED = Path(__file__).parents[2] / "saved_models"
FILES = sorted(SHIPPED.glob("*/bundle/*.tflite"))
DECODER = SHIPPED / "mnist_2d" / "bundle" / "decoder.tflite"


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_what_kvae_exports_is_accepted(path):
    tflite_structure.check(path.read_bytes())


# Numbers of the schema


def slots(table: type) -> dict[str, int]:
    """The fields of a table of the schema with their numbers, as the generated code reads them."""
    found = {}
    for name, method in inspect.getmembers(table, inspect.isfunction):
        offsets = re.findall(r"_tab\.Offset\((\d+)\)", inspect.getsource(method))
        if offsets:
            found[name] = (int(offsets[0]) - 4) // 2
    return found


S, O = tflite_structure, tflite_operations  # noqa: E741


@pytest.mark.parametrize(
    ("table", "fields"),
    [
        ("Model", {"OperatorCodes": S.KINDS, "Subgraphs": S.GRAPHS, "Buffers": S.BUFFERS, "Metadata": S.METADATA,
                   "MetadataBuffer": S.METADATA_BUFFERS, "SignatureDefs": S.SIGNATURES,
                   "Description": S.DESCRIPTION}),
        ("SubGraph", {"Tensors": S.TENSORS, "Inputs": S.INPUTS, "Outputs": S.OUTPUTS, "Operators": S.OPERATORS,
                      "Name": S.GRAPH_NAME}),
        ("Tensor", {"Shape": S.SHAPE, "Type": S.TYPE, "Buffer": S.BUFFER, "Name": S.NAME, "IsVariable": S.VARIABLE,
                    "Quantization": S.QUANTIZATION, "Sparsity": S.SPARSITY, "ShapeSignature": S.SIGNATURE,
                    "HasRank": S.HAS_RANK, "VariantTensors": S.VARIANTS}),
        ("QuantizationParameters", {"Scale": S.SCALE, "ZeroPoint": S.ZERO, "Details": S.DETAILS,
                                    "QuantizedDimension": S.AXIS, "Min": S.LEAST, "Max": S.GREATEST}),
        ("Operator", {"OpcodeIndex": O.CODE, "Inputs": O.INPUTS, "Outputs": O.OUTPUTS, "BuiltinOptions": O.OPTIONS,
                      "BuiltinOptionsType": O.OPTIONS_TYPE, "CustomOptions": O.CUSTOM_OPTIONS,
                      "CustomOptionsFormat": O.CUSTOM_FORMAT, "MutatingVariableInputs": O.FLAGS,
                      "Intermediates": O.INTERMEDIATES, "BuiltinOptions2": O.ELSEWHERE[-1]}),
        ("OperatorCode", {"DeprecatedBuiltinCode": 0, "CustomCode": 1, "Version": 2, "BuiltinCode": 3}),
        ("Buffer", {"Data": 0, "Offset": 1, "Size": 2}),
        ("Metadata", {"Name": 0, "Buffer": 1}),
        ("SignatureDef", {"Inputs": 0, "Outputs": 1, "SignatureKey": 2, "SubgraphIndex": 4}),
        ("TensorMap", {"Name": 0, "TensorIndex": 1}),
    ],
)  # fmt: skip
def test_the_numbers_of_the_fields_are_those_of_the_schema(table, fields):
    known = slots(getattr(schema, table))
    assert {name: known[name] for name in fields} == fields


def test_the_numbers_of_the_operations_and_of_their_options_are_those_of_the_schema():
    kinds = {number: name for name, number in vars(schema.BuiltinOptions).items() if not name.startswith("_")}
    for name, (number, options, _) in tflite_operations.OPERATIONS.items():
        assert getattr(schema.BuiltinOperator, name) == number
        plain = name.replace("_", "").lower()
        expected = kinds[options].removesuffix("Options").lower()
        several = {"pool2d", "reducer", "maximumminimum", "conv3d", "l2norm", "none"}  # options of several operations
        assert plain == expected or expected in several, name


def test_every_type_of_options_with_a_vector_is_known():
    for number, name in ((n, name) for name, n in vars(schema.BuiltinOptions).items() if isinstance(n, int)):
        known = slots(getattr(schema, name, object))
        vectors = {slot for field, slot in known.items() if field.endswith("AsNumpy")}
        assert vectors == set(tflite_operations.VECTORS.get(number, {})), name


def test_the_types_of_tensors_have_their_sizes():
    names = {number: name for name, number in vars(schema.TensorType).items() if not name.startswith("_")}
    for number, bits in tflite_structure.BITS.items():
        assert int(re.findall(r"\d+", names[number])[0] if names[number] != "BOOL" else 8) == bits


# Damage


def test_the_damage_that_ended_in_a_segmentation_fault_is_refused(tmp_path):
    content = bytearray(DECODER.read_bytes())
    inputs = content.index(np.array([2, 0x53, 0x6C], "<i4").tobytes())  # the two inputs of an operation
    content[inputs + 8 : inputs + 12] = b"\xff\xff\xff\xff"
    (tmp_path / "decoder.tflite").write_bytes(content)
    with pytest.raises(UserError, match=r"decoder\.tflite is damaged: an operation lacks an input\."):
        runtime.load(tmp_path / "decoder.tflite")


@pytest.fixture(scope="module")
def parsed(bundled):
    """Reads the model of a small decoder, and writes a changed one."""
    content = (bundled / "decoder.tflite").read_bytes()

    def parse() -> schema.ModelT:
        return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))

    return parse


def packed(model) -> bytes:
    builder = flatbuffers.Builder(100_000)
    builder.Finish(model.Pack(builder), litert.MAGIC)
    return bytes(builder.Output())


def operator(model, name):
    """The first operation of a kind in the first graph."""
    number = getattr(schema.BuiltinOperator, name)
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    return next(each for each in model.subgraphs[0].operators if codes[each.opcodeIndex] == number)


def weights(model):
    graph = model.subgraphs[0]
    return graph.tensors[operator(model, "FULLY_CONNECTED").inputs[1]]


def setting(find, **fields):
    def change(model):
        for name, value in fields.items():
            setattr(find(model), name, value)

    return change


def dense(model):
    return operator(model, "FULLY_CONNECTED")


def graph(model):
    return model.subgraphs[0]


def first_input(value):
    def change(model):
        dense(model).inputs = np.array([value, *dense(model).inputs[1:]], np.int32)

    return change


def same_result(model):
    graph(model).operators[1].outputs = graph(model).operators[0].outputs


def reversed_order(model):
    graph(model).operators.reverse()


def fixed_shape(model):
    tensor = graph(model).tensors[dense(model).outputs[0]]
    tensor.shape = np.array([2**26, *tensor.shape[1:]], np.int32)  # LiteRT filled the memory with it


def shorter(model):
    buffer = model.buffers[weights(model).buffer]
    buffer.data = buffer.data[:-4]


def scales(model):
    quantization = schema.QuantizationParametersT()
    quantization.scale, quantization.quantizedDimension = np.ones(3, np.float32), 0
    weights(model).quantization = quantization


def axis(model):
    scales(model)
    weights(model).quantization.quantizedDimension = 9


def signature(model):
    return model.signatureDefs[0]


def other_input(model):
    signature(model).inputs[0].tensorIndex = dense(model).outputs[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (first_input(-1), "lacks an input"),
        (setting(lambda model: operator(model, "LOGISTIC"), inputs=np.array([-1], np.int32)), "lacks an input"),
        (first_input(9999), "a tensor that is not there"),
        (setting(dense, inputs=np.array([0], np.int32)), "too few inputs"),
        (setting(dense, outputs=np.array([], np.int32)), "no output"),
        (setting(dense, opcodeIndex=99), "an unknown kind"),
        (setting(dense, builtinOptionsType=32, builtinOptions=schema.StridedSliceOptionsT()), "options of another"),
        (setting(lambda model: model.operatorCodes[0], builtinCode=-3, deprecatedBuiltinCode=-3), "unknown operation"),
        (same_result, "same result"),
        (reversed_order, "not computed before"),
        (setting(graph, outputs=np.array([9999], np.int32)), "a tensor that is not there"),
        (setting(graph, inputs=np.array([], np.int32)), "not computed before"),
        (setting(weights, buffer=9999), "no buffer"),
        (setting(weights, type=5), "no known type"),
        (setting(weights, shape=np.array([-1, 8], np.int32)), "no valid shape"),
        (setting(weights, shape=np.array([2**30, 2**30, 8], np.int32)), "too large"),
        (setting(weights, sparsity=schema.SparsityParametersT()), "sparse"),
        (shorter, "differ in size"),
        (fixed_shape, "two different shapes"),
        (scales, "one scale per channel"),
        (axis, "no axis"),
        (setting(signature, subgraphIndex=9999), "no graph"),
        (other_input, "no input or output of its graph"),
        (setting(lambda model: model.metadata[0], buffer=9999), "its metadata are not there"),
        (setting(lambda model: model.buffers[1], offset=100, size=100), "outside of its tables"),
        (setting(lambda model: model, subgraphs=[]), "no graph"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_whose_parts_do_not_fit_is_refused(parsed, change, words):
    model = parsed()
    tflite_structure.check(packed(model))
    change(model)
    with pytest.raises(StructureError, match=words):
        tflite_structure.check(packed(model))


WORDS = [0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFF, 10**6]


@pytest.mark.parametrize("word", WORDS)
def test_no_word_in_place_of_another_leads_out_of_the_file(bundled, word):
    content = (bundled / "decoder.tflite").read_bytes()
    refused = 0
    places = np.random.default_rng(word).choice(len(content) // 4, 100, replace=False)
    for place in [0, *(4 * places)]:
        damaged = bytearray(content)
        damaged[place : place + 4] = word.to_bytes(4, "little")
        try:
            tflite_structure.check(bytes(damaged))
        except StructureError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize("size", [0, 1, 3, 4, 7, 8, 20])
def test_a_file_that_is_shorter_than_its_first_table_is_refused(size):
    with pytest.raises(StructureError):
        tflite_structure.check(DECODER.read_bytes()[:size])


def test_a_small_file_does_not_name_one_table_a_million_times(bundled, monkeypatch):
    monkeypatch.setattr(flatbuffer, "MOST", 100)
    with pytest.raises(StructureError, match="more than 100 entries"):
        tflite_structure.check((bundled / "decoder.tflite").read_bytes())


# The trial in another process


@pytest.fixture
def alone(bundled, tmp_path, monkeypatch):
    """A decoder without a card, which was not tried yet."""
    monkeypatch.setattr(children, "_tried", set())
    path = tmp_path / "alone.tflite"
    path.write_bytes((bundled / "decoder.tflite").read_bytes())
    return path


def test_a_file_without_a_card_is_tried_once(alone, monkeypatch):
    tried = []
    monkeypatch.setattr(children, "run_module", lambda *arguments: tried.append(arguments))
    runtime.load(alone)
    runtime.load(alone)
    assert tried == [("kvae.runtime.trial", [str(alone)], children.TRIAL)]


def test_a_trial_of_an_intact_file_passes(alone):
    litert.try_file(alone)
    assert len(children._tried) == 1


@pytest.mark.parametrize("frozen", [True, False])
def test_an_application_in_one_file_leaves_the_trial_out(alone, monkeypatch, frozen):
    monkeypatch.setattr(children, "run_module", lambda *_: pytest.fail("it was started"))
    if frozen:
        monkeypatch.setattr("sys.frozen", True, raising=False)
    else:
        monkeypatch.setattr("sys.executable", "")
    assert runtime.load(alone).latent_dim == 2


@pytest.mark.parametrize("place", ["bundle", "alone"])
def test_a_file_that_its_card_states_is_not_tried(bundle, monkeypatch, place):
    monkeypatch.setattr(children, "run_module", lambda *_: pytest.fail("it was started"))
    runtime.load(bundle if place == "bundle" else bundle / "decoder.tflite")


def test_a_file_of_a_bundle_must_be_that_of_its_card_also_if_it_is_named_itself(bundle):
    content = bytearray((bundle / "decoder.tflite").read_bytes())
    content[-1] ^= 1
    (bundle / "decoder.tflite").write_bytes(content)
    with pytest.raises(UserError, match=r"decoder\.tflite is not the file that model_card\.json states"):
        runtime.load(bundle / "decoder.tflite")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "it crashed with SIGSEGV"),
        ("raise ValueError('no such operation')", "ValueError: no such operation"),
        ("import sys; sys.exit(3)", "it ended with status 3"),
        ("import time; time.sleep(60)", "it did not end within 1 seconds"),
    ],
)
def test_a_file_that_crashes_its_trial_is_refused(alone, monkeypatch, tmp_path, code, words):
    (tmp_path / "crashing.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    run = children.run_module
    monkeypatch.setattr(children, "run_module", lambda module, arguments, seconds: run("crashing", arguments, 1))
    with pytest.raises(UserError, match=rf"alone\.tflite is damaged or cannot be used\. It was tried .*: {words}\."):
        runtime.load(alone)


def test_a_process_that_cannot_be_started_is_an_error_of_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.executable", str(tmp_path / "no_python"))
    with pytest.raises(UserError, match="could not be started"):
        children.run_module("kvae.runtime.trial", [])


@pytest.mark.slow
def test_a_process_ends_with_the_one_that_started_it(tmp_path):
    (tmp_path / "waiting.py").write_text(
        "import os, sys, time\nfrom kvae.runtime import children\nchildren.end_with_parent()\n"
        "open(sys.argv[1], 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    )
    (tmp_path / "starting.py").write_text(
        "import sys\nfrom kvae.runtime import children\nchildren.run_module('waiting', sys.argv[1:])\n"
    )
    note = tmp_path / "pid"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    process = subprocess.Popen([sys.executable, "-P", tmp_path / "starting.py", note], env=environment)
    wait_for(lambda: note.exists() and note.read_text())
    process.send_signal(signal.SIGKILL)
    process.wait()
    child = int(note.read_text())
    wait_for(lambda: not Path(f"/proc/{child}").exists())


def wait_for(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
