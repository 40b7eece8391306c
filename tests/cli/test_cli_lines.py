"""What the command line prints stays in its line, is taken literally, and is printed on any stream."""

import io
import sys
import warnings
from pathlib import Path

import pytest

from kvae import cli
from kvae.cli import output, shared
from kvae.internal.errors import KvaeWarning, UserError
from kvae.training.runs import Run

NASTY = [
    "[/x]",
    "[red]",
    "[link=http://x]a",
    ":smile:",
    "a\nkvae: done",
    "\x1b[2J\x07",
    "\u202e",
    "\udcff",
    "<b>",
    "{x}",
    "%s",
]


def assert_is_one_line(text: str) -> None:
    assert text.endswith("\n")
    assert text[:-1].isprintable(), ascii(text)


# --- mistakes in the arguments


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["trian"], "Unknown command 'trian'. Did you mean 'train'? Expected one of: compare, complete, demo, "),
        (["--hlep"], "Unknown option '--hlep'. Did you mean '--help'? Expected one of: "),
        (["train", "--recip", "x"], "Unknown option '--recip'. Did you mean '--recipe'"),
        (["sample", "x", "-q"], "Unknown option '-q'. Expected one of: "),
        (["train", "--epochs", "x"], "Invalid value for '--epochs': 'x' is not a valid integer. See kvae train "),
        (["train", "--epochs"], "Option '--epochs' requires an argument. See kvae train --help."),
        (["evaluate"], "Missing argument 'RUN'. See kvae evaluate --help."),
        (["evaluate", "a", "b"], "Got unexpected extra argument (b). See kvae evaluate --help."),
        (["plot", "x", "--format", "gif"], "Unknown value of --format: 'gif'. Expected one of: pdf, png, svg."),
        (["evaluate", ""], "Invalid value for 'RUN': expected a path, received ''. See kvae evaluate --help."),
        (["train", "--seed", "1", "--seed", "2"], "Expected --seed once. Received it 2 times."),
        (["train", "--out", "a", "--out", "a"], "Expected --out once. Received it 2 times."),
        (["sample", "x", "-n", "1", "-n", "2", "-n", "3"], "Expected -n once. Received it 3 times."),
        (["plot", "x", "--seed", "1", "--seed", "2"], "Expected --seed once."),
        (["train", "--beta", "2", "--set", "model.objective.beta=3"], "Expected one value for model.objective.beta."),
        (["train", "--set", "seed=1", "--set", "seed=2"], "Expected one value for seed. Received two: --set "),
        (["train", "--dataset", "mnist5k", "--set", "data.source=x"], "Expected one value for data.source."),
        (["train", "--set", "name=../x"], "Expected a name such as 'mnist_2d'"),
        (["train", "--set", "name=5"], "Expected a name such as 'mnist_2d'"),
        (["train", "--set", "seed=" + "9" * 5000], "Could not read the value of 'seed': a number has "),
        (["train", "--seed", "9" * 5000], "Invalid value for '--seed'"),
        (["train", "--set", f"data.train=train[:{'9' * 5000}]"], "Expected a slice with the indices of images."),
        (["export", "x", "--tolerance", "int8=1", "--tolerance", "int8=2"], "Expected one --tolerance for int8."),
        (["train", "--latent-dim", 10**9, "--set=data.train=train[:100]"], "Expected a model of at least "),
        (["train", "--batch-size", 10**10], "data.batch_size: input should be less than or equal to 2147483647"),
        (["train", "--set", "model.activation=rellu"], "model.network: Unknown activation 'rellu'. Did you mean"),
        (["evaluate", "{run}", "--samples", 10**12], "Expected --samples to be a whole number of at most 2,1"),
        (["complete", "{run}", "--samples", 10**12], "Expected --samples to be a whole number of at most 2,1"),
        (["plot", "{run}", "samples", "-n", 10**9], "Expected a figure of at most 65,535 dots"),
        (["sample", "{run}", "-n", 10**25], "Expected -n to be a whole number of at most 2,147,483,647."),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(call, tiny_run, arguments, expected):
    status, out, err = call(*[tiny_run if argument == "{run}" else argument for argument in arguments])
    assert (status, out) == (2, "")
    assert err.startswith(f"kvae: {expected}")
    assert_is_one_line(err)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["train", "-h"], ["--version"]])
def test_help_is_no_mistake(call, arguments):
    status, out, err = call(*arguments)
    assert (status, err) == (0, "")
    assert "kvae" in out


def test_options_that_may_be_repeated_are(call, tmp_path):
    status, _, err = call("train", "--recipe", "nowhere", "--set", "seed=1", "--set", "name=x", "--resume", "--resume")
    assert status == 2
    assert "Unknown recipe" in err


def test_a_run_is_in_the_folder_of_its_name(call, monkeypatch, tmp_path):
    folders = []
    monkeypatch.setattr("kvae.training.train", lambda config, folder, **_: folders.append(folder) or 1 / 0)
    call("train", "--set", "name=my run")
    (tmp_path / "mine.toml").write_text('name = "other"')
    call("train", "--recipe", "mine.toml")
    call("train", "--dataset", "csv:" + "x" * 300)
    assert folders[:2] == [Path("saved_models/my run"), Path("saved_models/other")]
    assert len(folders[2].name) < 100


# --- what others have named


@pytest.mark.parametrize("name", NASTY, ids=ascii)
def test_text_is_printed_literally(capsys, name):
    from rich.table import Table

    table = Table(title=None)
    table.add_column(name)
    table.add_row(name)
    shared.print_table(table)
    shared.print_protocol({"dataset": name})
    output.say(name)
    output.complain(name)
    with warnings.catch_warnings():
        warnings.showwarning = output.one_line
        warnings.warn(f"{name} {id(name)}", KvaeWarning, stacklevel=1)
    out, err = capsys.readouterr()
    escaped = name if name.isprintable() else name.encode("unicode_escape").decode()
    assert out.count(escaped) == 4
    assert err.count(escaped) == 2
    assert all(line.isprintable() for line in (out + err).splitlines())
    assert len(out.splitlines()) == 5 + 2 + 1


@pytest.mark.parametrize("error", [UserError, RuntimeError, lambda text: FileNotFoundError(2, "Not there", text)])
@pytest.mark.parametrize("name", NASTY, ids=ascii)
def test_an_error_is_one_line(call, monkeypatch, error, name):
    def fail(*_):
        raise error(name)

    monkeypatch.setattr(cli.exports, "write_samples", fail)
    status, out, err = call("sample", "x")
    assert status == (1 if error is RuntimeError else 2)
    assert out == ""
    assert_is_one_line(err)


def test_a_finished_training_in_a_folder_of_any_name_is_reported(call, tiny_run, monkeypatch, tmp_path):
    """`[/x]` in a path ended a finished training with a MarkupError."""
    run = tmp_path / "[" / "x] [red]\n"
    run.mkdir(parents=True)
    result = Run.open(tiny_run).evaluation()
    result["protocol"]["dataset"] = "csv:[/x]\x1b[2J"
    trained = Run(run, Run.open(tiny_run).config)
    trained.write_evaluation(result)
    monkeypatch.setattr("kvae.training.train", lambda *_, **__: trained)
    status, out, err = call("train", "--out", "new")
    assert (status, err) == (0, "")
    assert r"x] [red]\n: trained and evaluated" in out
    assert r"csv:[/x]\x1b[2J" in out


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
@pytest.mark.parametrize("name", ["ж猫", "é", "\udcff", "\x1b"], ids=ascii)
def test_text_that_a_stream_cannot_encode_is_escaped(monkeypatch, encoding, name):
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    output.prepare()
    output.say(name)
    output.complain(name)
    shared.print_protocol({"dataset": name})
    for stream in streams:
        stream.flush()
        assert stream.buffer.getvalue().decode(encoding).strip()


# --- streams


class Broken(io.StringIO):
    """A stream that fails when it is written."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def write(self, _: str) -> int:
        raise self.error


EXPECTED = {
    "full": (OSError(28, "No space left on device"), 1, "kvae: Could not write the output: No space left on device.\n"),
    "without a reader": (BrokenPipeError(32, "Broken pipe"), 141, ""),
}


@pytest.mark.parametrize(("error", "expected", "message"), EXPECTED.values(), ids=EXPECTED)
@pytest.mark.parametrize("arguments", [["recipes"], ["--help"], ["evaluate", "{run}"], ["sample", "{run}", "-n", "1"]])
def test_an_output_that_cannot_be_written_is_one_line(call, monkeypatch, tiny_run, arguments, error, expected, message):
    monkeypatch.setattr(sys, "stdout", Broken(error))
    status, _, err = call(*[tiny_run if argument == "{run}" else argument for argument in arguments])
    assert (status, err) == (expected, message)


@pytest.mark.parametrize("arguments", [["trian"], ["recipes"]])
def test_a_full_standard_error_changes_no_status(call, monkeypatch, arguments):
    monkeypatch.setattr(sys, "stderr", Broken(OSError(28, "No space left on device")))
    assert call(*arguments)[0] == (2 if arguments == ["trian"] else 0)


def test_a_number_of_mistakes_of_a_command_is_its_status(call, monkeypatch, tiny_run):
    from kvae import export

    monkeypatch.setattr(export, "verify", lambda *_, **__: [export.Check("a\nb", False, "[/x]")])
    status, out, err = call("verify", tiny_run)
    assert (status, out) == (1, "FAIL a\\nb: [/x]\n")
    assert_is_one_line(err)
