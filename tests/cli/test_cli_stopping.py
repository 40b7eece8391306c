"""A command that a signal stops says so in one line, and how to go on; its status is 128 plus the signal's number."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import SMALL

from kvae.cli import stopping
from kvae.internal import user_files

STATUS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


@pytest.fixture(autouse=True)
def imported(monkeypatch) -> None:
    """No files but those of the test, because a hint names them."""
    monkeypatch.setattr(user_files, "_MODULES", {})


@pytest.fixture
def handlers():
    """The handlers of kvae, and after the test those of pytest."""
    before, hook = {number: signal.getsignal(number) for number in stopping.SIGNALS}, sys.unraisablehook
    for number in stopping.SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    stopping.begin()
    stopping.install()
    yield
    stopping.heard()
    sys.unraisablehook = hook
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def ended(monkeypatch, tmp_path):
    """What a process that ends at once has printed, and its status."""
    path = tmp_path / "stderr"
    monkeypatch.setattr(stopping._process, "stderr", os.open(path, os.O_CREAT | os.O_RDWR))

    class Ended(BaseException):
        pass

    def leave(status: int) -> None:
        raise Ended(path.read_text(), status)

    monkeypatch.setattr(os, "_exit", leave)
    return Ended


# --- signals


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(("name", "status"), STATUS.items())
def test_a_signal_is_an_exception_and_a_second_one_ends_the_process(ended, name, status):
    with pytest.raises(stopping.Stopped):
        signal.raise_signal(getattr(signal, name))
    assert stopping.status() == status
    with pytest.raises(ended) as caught:
        signal.raise_signal(signal.SIGINT)
    assert caught.value.args == ("Interrupted.\n", status)


@pytest.mark.usefixtures("handlers")
def test_a_signal_during_imports_ends_the_process(ended):
    with stopping.importing(), pytest.raises(ended) as caught:
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.args == ("Interrupted.\n", 143)


def test_a_signal_that_is_ignored_stays_so(handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    stopping.install()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


@pytest.mark.parametrize("error", [stopping.Stopped, RuntimeError])
def test_an_error_that_a_signal_causes_is_no_other_error(call, monkeypatch, error):
    def fail(*_):
        stopping._process.signal = signal.SIGTERM
        raise error("inner")

    monkeypatch.setattr("kvae.runtime.load", fail)
    assert call("sample", "x") == (143, "", "Interrupted.\n")


# --- how to go on


def interrupting(monkeypatch, files: bool, function: str = "train") -> None:
    """Replaces a training by one that is interrupted, before or after it has written a config.json."""

    def interrupted(*arguments, **_):
        folder = Path(arguments[1] if function == "train" else arguments[0])
        if files:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "new").write_text("another run")
            os.replace(folder / "new", folder / "config.json")
        raise KeyboardInterrupt

    monkeypatch.setattr(f"kvae.training.{function}", interrupted)


@pytest.mark.parametrize(("files", "hint"), [(False, ""), (True, " To continue: kvae train --resume --out 'my run'")])
def test_a_new_training_says_how_to_go_on_if_there_is_a_run(call, monkeypatch, files, hint):
    interrupting(monkeypatch, files)
    assert call("train", "--out", "my run") == (130, "", f"Interrupted.{hint}\n")


@pytest.mark.parametrize(("files", "hint"), [(False, ""), (True, " To continue: kvae train --resume --out old")])
def test_a_run_that_is_to_be_replaced_is_not_continued(call, monkeypatch, tmp_path, files, hint):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text("{}")
    monkeypatch.setattr("kvae.training.runs.check_free", lambda *_: None)
    interrupting(monkeypatch, files)
    assert call("train", "--out", "old", "--overwrite") == (130, "", f"Interrupted.{hint}\n")


def test_a_resumed_training_says_how_to_go_on(call, monkeypatch, tiny_run):
    interrupting(monkeypatch, False, "resume")
    hint = f"To continue: kvae train --resume --out {shlex.quote(str(tiny_run))}"
    assert call("train", "--resume", "--out", tiny_run) == (130, "", f"Interrupted. {hint}\n")


def test_the_hint_has_the_options_that_the_run_needs(call, monkeypatch, tmp_path):
    (tmp_path / "parts_of_the_stopping_test.py").touch()
    interrupting(monkeypatch, True)
    status, _, err = call(
        "train", "--out", "r", "--distribute", "mirrored", "--import", "parts_of_the_stopping_test.py", "--epochs", 3
    )
    assert status == 130
    assert " --resume --out r --distribute mirrored " in err
    assert f"--import {tmp_path / 'parts_of_the_stopping_test.py'}" in err
    assert "--epochs" not in err


def test_a_training_whose_output_has_no_reader_says_how_to_go_on(call, monkeypatch):
    def without_reader(config, folder, **_):
        folder.mkdir()
        (folder / "config.json").touch()
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("kvae.training.train", without_reader)
    assert call("train", "--out", "r") == (141, "", "To continue: kvae train --resume --out r\n")


def test_the_hint_ends_with_the_training(call, monkeypatch, tmp_path):
    with stopping.training(tmp_path, resumed=True):
        pass
    assert stopping.message() == "Interrupted."


# --- processes


def started(*arguments: object, **options: object) -> subprocess.Popen:
    command = [sys.executable, "-P", "-m", "kvae", *map(str, arguments)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command, text=True, preexec_fn=_as_in_a_terminal, **streams)


def _as_in_a_terminal() -> None:
    """No signal is ignored, also if the tests run under `nohup`."""
    for number in stopping.SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def outcome_of(process: subprocess.Popen) -> tuple[str, str]:
    """What a process that was stopped printed until its end, which must come soon."""
    try:
        return process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def catches(process: subprocess.Popen, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    masks = dict(line.split(":\t") for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
    return bool(int(masks["SigCgt"], 16) >> (number - 1) & 1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell which signals are caught")
@pytest.mark.parametrize("name", STATUS)
def test_a_process_is_stopped_while_it_imports(name, tmp_path):
    process = started("train", "--out", tmp_path / "r")
    while not catches(process, signal.SIGHUP):  # the last for which `install` adds a handler
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(getattr(signal, name))
    assert (*outcome_of(process), process.returncode) == ("", "Interrupted.\n", STATUS[name])
    assert not (tmp_path / "r").exists()


SWALLOWED = """
import click, time
from kvae.cli import entry, stopping

stopping.REMINDER = 0.2

class Finalized:
    def __del__(self):
        print("ready", flush=True)
        while True:
            time.sleep(0.01)

@click.command()
def command():
    try:
        Finalized()
        while True:
            time.sleep(0.01)
    finally:
        time.sleep(0.5)  # longer than the time between two reminders
        print("removed", flush=True)

entry.run(command)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_that_a_finalizer_swallows_is_repeated_and_lets_the_command_end(name):
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", SWALLOWED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(getattr(signal, name))
    assert (*outcome_of(process), process.returncode) == ("removed\n", "Interrupted.\n", STATUS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_process_is_stopped_while_it_trains_and_says_how_to_go_on(name, tmp_path):
    folder = tmp_path / "r"
    arguments = (*SMALL[:3], "--epochs", 10_000, "--set=training.checkpoint_seconds=0", "--out", folder)
    process = started("train", *arguments, stdout=subprocess.DEVNULL)
    while not list(folder.glob("checkpoint/epoch-*")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(getattr(signal, name))
    _, err = outcome_of(process)
    assert (err, process.returncode) == (
        f"Interrupted. To continue: {sys.executable} -P -m kvae train --resume --out {folder}\n",
        STATUS[name],
    )
    assert not list(folder.rglob(".partial-*"))


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(closed, tmp_path):
    shell = f'"{sys.executable}" -P -m kvae recipes {closed}'
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (">&-" not in closed.replace("2>&-", ""))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("buffered", ["", "1"])
def test_a_full_output_is_one_line(buffered):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-P", "-m", "kvae", "recipes"]
        environment = {**os.environ, "PYTHONUNBUFFERED": buffered}
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (1, "kvae: Could not write the output: No space left on device.\n")


@pytest.mark.parametrize("buffered", ["", "1"])
def test_an_output_without_a_reader_ends_quietly(buffered):
    process = started("recipes", env={**os.environ, "PYTHONUNBUFFERED": buffered})
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == ("", 141)
