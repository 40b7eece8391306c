"""What a command says at its end: the next commands, which can be typed as they are printed; --quiet hides them."""

import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest

from kvae.cli.commands import main
from kvae.internal import files
from kvae.training.runs import Run

WITHOUT_JSON = {}
WITHOUT_QUIET = {
    "recipes": "it prints nothing but its result",
    "keys": "it prints nothing but its result",
    "list": "it prints nothing but its result",
    "compare": "it prints nothing but its result",
    "encode": "it prints nothing but its result",
    "sample": "it prints nothing but its result",
    "pretrained": "it prints nothing but its result",
}


def next_commands(out: str) -> list[list[str]]:
    """The words of the commands after a line that begins with `Next`."""
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("Next"))
    return [shlex.split(line) for line in lines[start + 1 :] if line.startswith("  ")]


def options_of(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}


@pytest.mark.parametrize("name", main.commands)
@pytest.mark.parametrize(("option", "without"), [("--json", WITHOUT_JSON), ("--quiet", WITHOUT_QUIET)])
def test_every_command_has_the_options_for_its_output(name, option, without):
    assert (option in options_of(main.commands[name])) != (name in without)


@pytest.fixture
def trained(tiny_run, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "saved_models" / "a run"))


@pytest.fixture
def quick(monkeypatch, trained) -> None:
    """Trainings, evaluations and exports that take no time."""
    run = Run.open(trained)
    monkeypatch.setattr("kvae.training.train", lambda *_, **__: run)
    monkeypatch.setattr("kvae.training.results.evaluate", lambda *_, **__: run.evaluation())
    monkeypatch.setattr("kvae.training.results.draw", lambda *_, **__: iter([Path("a.png"), "map: left out. Why."]))
    monkeypatch.setattr("kvae.export.test_images", lambda *_: None)
    monkeypatch.setattr("kvae.export.bundle_of_run", lambda *_, **__: {})
    for module in ("exports", "training"):
        monkeypatch.setattr(f"kvae.cli.{module}.print_variants", lambda card: print("the report"))
    monkeypatch.setattr("kvae.cli.training.write_samples", lambda *_, **__: None)


ARGUMENTS: dict[str, list[Any]] = {
    "demo": ["demo", "--out", "my demo"],
    "train": ["train", "--out", "my run"],
}


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
@pytest.mark.usefixtures("quick")
def test_a_command_names_next_commands_unless_it_is_quiet(call, arguments):
    status, out, err = call(*arguments)
    assert status == 0, err
    for words in next_commands(out):
        assert words[0] == "kvae"
        command = main.commands[words[1]]
        parent = click.Context(main, info_name="kvae", **main.context_settings)
        with command.make_context(words[1], words[2:], parent=parent) as context:
            assert not context.args
    status, out, err = call(*arguments, "--quiet")
    assert status == 0, err
    assert "Next" not in out


@pytest.mark.usefixtures("quick")
def test_the_next_commands_after_the_demo_are_on_its_run_and_replace_only_their_own(call, tmp_path):
    first = next_commands(call("demo", "--out", "my demo")[1])
    assert [words[1] for words in first] == ["sample", "complete", "train", "compare"]
    assert all("my demo" in words for words in first if words[1] != "train")
    assert not any("--overwrite" in words for words in first)
    assert first[2][first[2].index("--out") + 1] == first[3][-1] == "my demo_10d"
    (tmp_path / "my demo_10d").mkdir()
    assert "--overwrite" in next_commands(call("demo", "--out", "my demo")[1])[2]


@pytest.mark.exhaustive  # tests/test_readme.py runs those after the demo in CI
def test_the_next_commands_after_a_training_run(call, without_xla):
    status, out, err = call(
        "train", "--epochs=1", "--set=data.train=train[:100]", "--set=data.test=test[:20]",
        "--set=model.hidden_units=[4]", "--out", "my run",
    )  # fmt: skip
    assert status == 0, err
    for words in next_commands(out):
        status, _, err = call(*words[1:])
        assert status == 0, err
    assert Path("my run/samples.png").exists()


def test_resuming_a_finished_run_says_that_nothing_was_trained(call, trained):
    status, out, err = call("train", "--resume", "--out", trained)
    assert status == 0, err
    assert f"{trained}: the training was complete already, so nothing was trained" in out
    assert "trained and evaluated" not in out


def test_images_of_another_size_than_the_model_s_are_named(call, trained):
    np.savez("large.npz", x=np.zeros((30, 7, 5), np.uint8))
    status, _, err = call("evaluate", trained, "--dataset", "npz:large.npz")
    assert status == 2
    assert f"Expected images of 6 x 5 x 1, like those that the run {trained} was trained on" in err
    assert "Received images of 7 x 5 x 1 in npz:" in err


@pytest.mark.usefixtures("quick")
def test_a_quiet_plot_prints_only_its_files(call):
    assert call("plot", "saved_models/a run")[1] == "a.png\nmap: left out. Why.\n"
    assert call("plot", "saved_models/a run", "--quiet")[1] == "a.png\n"


@pytest.mark.usefixtures("quick")
def test_a_quiet_export_prints_only_the_folder(call):
    arguments = ["export", "saved_models/a run", "--no-evaluation", "--out", "bundle"]
    *report, folder = call(*arguments)[1].splitlines()
    assert report[0] == "the report"
    assert report[1].startswith("README.md in the bundle")
    assert folder == "bundle"
    assert call(*arguments, "--quiet")[1] == "bundle\n"


def test_a_quiet_completion_prints_no_steps(call, trained, monkeypatch):
    score = {"mean": -1.0, "standard_error": 0.1, "monte_carlo_standard_error": 0.1, "effective_samples": 9.0}
    result = {
        "kvae": {**score, "unreliable": 0},
        "converged": 1,
        "protocol": {"observed": "top", "latent_samples": 500},
    }
    completed = SimpleNamespace(inferred=SimpleNamespace(losses=np.ones((1, 20))))
    done = SimpleNamespace(result=result, completion=completed, seconds=1.0, files=["complete.json"])
    monkeypatch.setattr("kvae.training.results.complete", lambda *_, **__: done)
    loud, quiet = (call("complete", trained, "--plain", *further)[1] for further in ([], ["--quiet"]))
    assert loud == f"step  10: loss 1.00\nstep  20: loss 1.00\n{quiet}"
    assert "observed" in quiet
    assert quiet.endswith("\ncomplete.json\n")


@pytest.mark.parametrize(("passed", "printed"), [(True, ""), (None, ""), (False, "FAIL parity: 1 != 2\n")])
def test_a_quiet_verification_prints_what_does_not_hold(call, trained, monkeypatch, passed, printed):
    from kvae import export

    monkeypatch.setattr(export, "verify", lambda *_, **__: [export.Check("parity", passed, "1 != 2")])
    _, out, _ = call("verify", trained, "--quiet")
    assert out.startswith(printed)
    assert out.count("\n") == 1


@pytest.mark.parametrize(("option", "lines"), [([], 1), (["--quiet"], 0), (["--json"], 0)])
def test_an_evaluation_tells_how_far_it_is_unless_it_is_quiet(call, trained, monkeypatch, option, lines):
    monkeypatch.setattr("kvae.internal.progress_bars.SECONDS", 0.0)
    status, out, err = call("evaluate", trained, "--only", "log_likelihood", "--samples", 2, *option)
    assert status == 0, err
    assert out.count("bound of log p(x), K = 2: ") == 2 * lines  # 2 batches of 10 images


# --- output that cannot be written


BAD: dict[str, list[str]] = {
    "evaluate": ["evaluate", "{run}"],
    "plot": ["plot", "{run}"],
    "plot --out": ["plot", "{run}", "--out", "file/within"],
    "complete": ["complete", "{run}"],
    "complete --out": ["complete", "{run}", "--out", "file"],
    "export": ["export", "{run}"],
    "export --out": ["export", "{run}", "--out", "file/within"],
    "encode -o": ["encode", "{run}", "-o", "file/z.npz"],
    "sample -o": ["sample", "{run}", "-o", "file/x.png"],
    "sample -o folder": ["sample", "{run}", "-o", "folder.png"],
    "sample -o suffix": ["sample", "{run}", "-o", "x.xyz"],
    "compare --out": ["compare", "{run}", "--out", "file"],
    "train --out": ["train", "--out", "file/within"],
    "sweep --out": ["sweep", "--set=model.beta=1,2", "--out", "file/within"],
    "demo --out": ["demo", "--out", "file/within"],
}


@pytest.mark.parametrize("arguments", BAD.values(), ids=BAD)
def test_output_that_cannot_be_written_is_found_before_anything_is_computed(call, trained, monkeypatch, arguments):
    def compute(*_, **__):
        raise AssertionError("something was computed")

    for function in ("train_resume.load_data", "runs.Run.load_model"):
        monkeypatch.setattr(f"kvae.training.{function}", compute)
    monkeypatch.setattr("kvae.training.comparison.compare", compute)
    monkeypatch.setattr("kvae.runtime.load", compute)
    Path("file").touch()
    Path("folder.png").mkdir()
    if arguments[-1] == "{run}":  # its folder may not be written, also not by root
        monkeypatch.setattr(files.os, "access", lambda path, mode: False)
    status, out, err = call(*[str(trained) if word == "{run}" else word for word in arguments])
    assert (status, out) == (2, "")
    assert "Could not write" in err
