"""`kvae list` and `kvae compare`: what they print, their exit status, and that they do not need TensorFlow."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kvae.internal import sealed
from kvae.training.runs import Run


@pytest.fixture
def runs(tiny_run, tmp_path) -> Path:
    """A folder with the runs `better` and `group/worse`, and a folder that is no run."""
    folder = tmp_path / "runs"
    for name, elbo in (("better", -8.0), ("group/worse", -12.0)):
        shutil.copytree(tiny_run, folder / name)
        evaluation = {**sealed.read(folder / name / "evaluation.json"), "elbo": elbo, "elbo_standard_error": 0.3}
        sealed.write(folder / name / "evaluation.json", evaluation)
    (folder / "notes").mkdir()
    return folder


def with_other_protocol(run: Path) -> None:
    evaluation = sealed.read(run / "evaluation.json")
    sealed.write(run / "evaluation.json", {**evaluation, "protocol": {**evaluation["protocol"], "dataset": "other"}})


def test_list_prints_one_line_per_run_and_what_to_do(call, runs):
    Run.open(runs / "better").discard_results()
    status, out, err = call("list", runs)
    assert (status, err) == (0, "")
    heading, better, worse, remark, others = out.splitlines()
    assert heading.split("  ")[0] == "run"
    assert "ELBO in nats" in heading
    assert better.split()[:2] == ["better", "interrupted"]
    assert worse.split()[:2] == ["group/worse", "finished"]
    assert "-12.00 ± 0.30" in worse
    assert remark.endswith(f"kvae train --resume --out {runs / 'better'}")
    assert others.endswith("not runs: notes")


def test_list_as_json_has_every_run(call, runs):
    status, out, _ = call("list", runs, "--json")
    listed = json.loads(out)
    assert status == 0
    assert [(run["name"], run["state"], run["elbo"]) for run in listed["runs"]] == [
        ("better", "finished", -8.0),
        ("group/worse", "finished", -12.0),
    ]
    assert listed["not_runs"] == ["notes"]


def test_list_in_a_terminal_is_a_table(call, runs, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "140")
    assert "│ group/worse │ finished │" in call("list", runs)[1]


def test_list_without_any_run_says_how_to_make_one(call, tmp_path):
    status, out, _ = call("list")
    assert status == 0
    assert "no runs in 'saved_models'. To train one: kvae demo" in out
    status, _, err = call("list", "nothing")
    assert status == 2
    assert err.count("\n") == 1


def test_compare_prints_the_best_first_and_writes_the_files(call, runs, tmp_path):
    status, out, err = call("compare", runs / "group" / "worse", runs / "better")
    assert (status, err) == (0, "")
    assert out.index("better *") < out.index("group/worse")
    assert "unpaired" in out
    assert out.splitlines()[-3:] == [
        str(Path("comparison") / name) for name in ("comparison.csv", "comparison.md", "elbo_curves.png")
    ]
    assert {path.name for path in (tmp_path / "comparison").iterdir()} == {
        "comparison.csv", "comparison.md", "elbo_curves.png",
    }  # fmt: skip


def test_compare_as_json_is_one_object(call, runs, tmp_path):
    status, out, _ = call("compare", runs, "--json", "--out", tmp_path / "c")
    result = json.loads(out)
    assert status == 0
    assert [(row["rank"], row["run"], row["difference"]) for row in result["runs"]] == [
        (1, "better", None),
        (2, "group/worse", -4.0),
    ]
    assert result["close_to_best"] == []
    assert len(result["files"]) == 3


def test_compare_refuses_to_rank_other_protocols_and_names_the_keys(call, runs, tmp_path):
    with_other_protocol(runs / "better")
    status, out, err = call("compare", runs)
    assert status == 2
    assert re.search(r"^ better +A ", out, re.MULTILINE)
    assert re.search(r"^ group/worse +B ", out, re.MULTILINE)
    assert err.count("\n") == 1
    assert "These differ: dataset ('other' for better;" in err
    assert "--any-protocol" in err
    assert not (tmp_path / "comparison").exists()
    status, out, _ = call("compare", runs, "--json")
    assert status == 2
    assert {(row["rank"], row["protocol"]) for row in json.loads(out)["runs"]} == {(None, "A"), (None, "B")}
    status, out, _ = call("compare", runs, "--any-protocol")
    assert status == 0
    assert "better *" in out
    assert "may mean nothing" in out


def test_compare_cuts_no_cell_in_a_narrow_terminal(call, runs, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "50")
    out = call("compare", runs)[1]
    table = out[: out.index("The ELBO")]
    assert "…" not in table
    assert "..." not in table
    assert all(word in table for word in ("difference", "training", "better *", "group/worse", "-4.00", "model"))
    assert max(len(re.sub("\x1b\\[[0-9;]*m", "", line)) for line in table.splitlines()) <= 50


def test_compare_names_the_command_for_a_run_without_an_evaluation(call, runs):
    (runs / "better" / "evaluation.json").unlink()
    status, out, _ = call("compare", runs)
    assert status == 0
    assert f"better is not compared. It has no evaluation. To make one: kvae evaluate {runs / 'better'}" in out


@pytest.mark.slow
def test_neither_command_imports_tensorflow(runs, tmp_path):
    code = f"""
import sys
from kvae import cli
sys.argv = ["kvae", sys.argv[1], {str(runs)!r}, *sys.argv[2:]]
try:
    cli.run()
finally:
    print([name for name in ("tensorflow", "keras") if name in sys.modules], file=sys.stderr)
"""
    for arguments in (["list"], ["compare", "--out", str(tmp_path / "c")]):
        result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        assert result.stderr == "[]\n"
