"""tools/export_saved_model.py and tools/export_tflite.py at work: one file or folder each, and clear refusals."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kvae import runtime, training
from kvae.noise import portable
from kvae.training.config import RunConfig
from kvae.training.runs import Run

pytestmark = pytest.mark.slow  # a TensorFlow process each

ROOT = Path(__file__).parents[2]


def tool(name: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "tools" / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ},
        check=False,
    )


@pytest.fixture
def run(tiny_run) -> Path:
    return tiny_run


def test_export_tflite_writes_a_decoder_of_the_run(run, tmp_path):
    result = tool("export_tflite.py", run, "new/decoder.tflite", cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["decoder.tflite"]
    path = tmp_path / "new" / "decoder.tflite"
    assert result.stdout.startswith(f"new/decoder.tflite: {path.stat().st_size:,} bytes; operations: ADD, ")
    seeds = portable.seeds(7, 0)
    found, expected = runtime.load(path).sample(seeds), Run.open(run).load_model().sample(seeds)
    np.testing.assert_array_equal(found.z, expected.z)
    np.testing.assert_allclose(found.means, expected.means, rtol=0, atol=1e-6)  # 4 float32 terms under a sigmoid


@pytest.mark.exhaustive  # tests/cli/test_cli_conditional.py exports such a run in CI
def test_export_tflite_takes_conditional_runs(tmp_path):
    values = {
        "data": {
            "source": "mnist5k",
            "train": "train[:40]",
            "test": "test[:20]",
            "condition": "label",
            "batch_size": 20,
        },
        "model": {"hidden_units": [4]},
        "training": {"epochs": 1, "jit_compile": False},
    }
    run = training.train(RunConfig.from_dict(values), tmp_path / "run", verbose=0)
    result = tool("export_tflite.py", run.folder, "decoder.tflite", "--variant", "int8", cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    assert runtime.load(tmp_path / "decoder.tflite").condition_shape == (10,)


def test_export_saved_model_writes_what_is_asked_for_and_replaces_it_on_request(run, tmp_path):
    result = tool("export_saved_model.py", run, "model", "--decoder", cwd=tmp_path)
    assert (result.returncode, result.stdout.strip()) == (0, "model"), result.stderr[-2000:]
    assert sorted(tf.saved_model.load(str(tmp_path / "model")).signatures) == ["decode", "sample"]
    result = tool("export_saved_model.py", run, "model", cwd=tmp_path)
    assert result.returncode == 2
    assert "'model' exists" in " ".join(result.stderr.split())
    result = tool("export_saved_model.py", run, "model", "--overwrite", cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "elbo" in tf.saved_model.load(str(tmp_path / "model")).signatures


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("export_tflite.py", ["nowhere", "decoder.tflite"], "'nowhere' is not a run folder"),
        pytest.param(
            "export_tflite.py", ["unfinished", "decoder.tflite"], "has no model.keras", marks=pytest.mark.slow
        ),
        pytest.param("export_tflite.py", ["{run}"], "Missing argument 'FILE.tflite'", marks=pytest.mark.slow),
        pytest.param(
            "export_tflite.py",
            ["{run}", "decoder.tflite", "--variant", "int4"],
            "Unknown variant 'int4'",
            marks=pytest.mark.slow,
        ),
        ("export_saved_model.py", ["nowhere", "model"], "'nowhere' is not a run folder"),
        (
            "export_saved_model.py",
            ["{run}", "unfinished", "--overwrite"],
            "so it is not replaced. It has no saved_model.pb",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_ends_in_status_2_and_words(run, tmp_path, name, arguments, expected):
    (tmp_path / "unfinished").mkdir()
    shutil.copy(run / "config.json", tmp_path / "unfinished")
    result = tool(name, *[argument.replace("{run}", str(run)) for argument in arguments], cwd=tmp_path)
    assert result.returncode == 2
    assert expected in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["unfinished"]
