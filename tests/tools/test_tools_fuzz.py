"""tools/fuzz.py: it notices each kind of fault, repeats its inputs, and finds no fault in kvae."""

import os
import random
import subprocess
import sys
from pathlib import Path

import faulty_readers
import fuzz
import pytest
from fuzzing import mutations
from fuzzing.worker import slug

ROOT = Path(__file__).parents[2]
FAULTS = {
    "another error": "KeyError: 'x'",
    "an assertion": "AssertionError: wrong result",
    "an exit": "SystemExit: 2",
    "two lines": "a message of one line",
    "no line": "a message of one line",
    "a long line": "at most 8000 characters, received 9000",
    "writes": "open outside of the folder",
    "removes": "os.remove outside of the folder",
    "starts a process": "subprocess.Popen",
    "prints": "printed b'a line",
    "prints an error": "printed b'a line",
    "leaves a file": "left 'left' in the folder current",
    "crashes": "the process ended with status -11",
    "exits": "the process ended with status 3",
    "hangs": "no result after",
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """The result of two inputs for each faulty reader, and the folder of the saved inputs."""
    out = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fuzz, "HANG", 1.0)
        found = fuzz.fuzz(faulty_readers.READERS, 2, out, table="faulty_readers")
    return {row.reader: row for row in found}, out


@pytest.mark.parametrize("name", FAULTS)
def test_each_kind_of_fault_is_noticed_and_its_input_saved(rows, name):
    found, out = rows
    assert [index for index, _ in found[name].faults] == [0, 1]
    assert FAULTS[name] in found[name].faults[0][1]
    for index in (0, 1):
        saved = (out / f"{slug(name)}-{index}" / "a").read_bytes()
        assert saved != faulty_readers.VALID


@pytest.mark.parametrize(("name", "accepted", "refused"), [("accepts", 2, 0), ("refuses", 0, 2)])
def test_a_result_and_a_refusal_are_no_faults(rows, name, accepted, refused):
    row = rows[0][name]
    assert (row.inputs, row.accepted, row.refused, row.faults) == (2, accepted, refused, [])


CONTENTS = {
    "empty": b"",
    "a byte": b"a",
    "text": b'a = 1\nb = "c"\n[d]\n',
    "JSON": b'{"a": [1, 2.5, {"b": null}], "c": "d"}',
    "binary": bytes(range(256)) * 3,
}
ALL = [*mutations.BYTES, mutations.text, mutations.tree, mutations.png_chunk, mutations.start_of(8)]
ALL += [mutations.inside_gzip(mutations.text), mutations.inside_zip({})]


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("mutation", ALL, ids=lambda mutation: mutation.__qualname__)
def test_a_mutation_depends_on_the_generator_alone_and_never_fails(mutation, content):
    for number in range(40):
        first, again = (mutations.mutate(random.Random(number), content, [mutation]) for _ in range(2))
        assert first == again
        assert len(first) <= mutations.LARGEST


@pytest.mark.parametrize(
    "inputs",
    [pytest.param("20", marks=pytest.mark.slow), pytest.param("2000", marks=pytest.mark.exhaustive)],  # three minutes
)
def test_the_readers_of_kvae_have_no_fault(tmp_path, inputs):
    result = subprocess.run(
        [sys.executable, ROOT / "tools" / "fuzz.py", "--inputs", inputs, "--out", tmp_path / "faults"],
        capture_output=True,
        text=True,
        env={**os.environ},
        check=False,
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
