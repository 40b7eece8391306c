"""A path that the system refuses, or that would break a line, ends every command in status 2 and one line."""

import os
from pathlib import Path

import pytest

PATHS = {
    "a long name": "x" * 300,
    "a long path": "/".join(["folder"] * 1000),
    "a null character": "a\0b",
    "nothing": "",
    "within a file": "file/run",
    "a link to itself": "loop",
    "markup": "[/x] [red]",
    "several lines": "a\nkvae: done",
    "codes of a terminal": "a\x1b[2J\x07\u202e",
    "an undecodable byte": os.fsdecode(b"\xff"),
    "a home": "~nobody/x",
}
COMMANDS = {
    "train --recipe": ("train", "--recipe", "{}.toml"),
    "train --resume": ("train", "--resume", "--out", "{}"),
    "train --import": ("train", "--import", "{}.py"),
    **{
        f"train {kind}": ("train", "--out", "new", "--dataset", f"{kind}:{{}}")
        for kind in ("idx", "csv", "npz", "images")
    },
    "evaluate": ("evaluate", "{}"),
    "evaluate --dataset": ("evaluate", "{run}", "--dataset", "npz:{}"),
    "list": ("list", "{}"),
    "compare": ("compare", "{}", "{run}"),
    "encode": ("encode", "{}", "-o", "z.npz"),
    "plot": ("plot", "{}"),
    "plot --observed": ("plot", "{run}", "completion", "--observed", "{}.png"),
    "complete": ("complete", "{}"),
    "complete --observed": ("complete", "{run}", "--observed", "{}.png"),
    "export": ("export", "{}"),
    "sample": ("sample", "{}"),
    "verify": ("verify", "{}"),
}
# Where these paths are written to, some of them are possible: what must not happen is another status or more lines.
WRITING = {
    "train --out": ("train", "--set=data.train=train[:100]", "--set=data.test=test[:10]", "--epochs=1", "--out", "{}"),
    "sample -o": ("sample", "{run}", "-o", "{}.png"),
    "encode -o": ("encode", "{run}", "-o", "{}.csv"),
    "complete --out": ("complete", "{run}", "-n", "1", "--samples", "3", "--out", "{}"),
    "export --out": (
        "export",
        "{run}",
        "--no-evaluation",
        "--variants",
        "float32",
        "--formats",
        "tflite",
        "--out",
        "{}",
    ),
}
# Every path with the quickest command, and with one of the others.
WRITTEN = [
    (command, path)
    for i, command in enumerate(WRITING)
    for j, path in enumerate(PATHS)
    if command == "sample -o" or (i + j) % 3 == 0
]


@pytest.fixture(autouse=True)
def places(tmp_path) -> None:
    """A file, and a link to itself."""
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")


def filled(arguments: tuple[str, ...], path: str, run: Path) -> list[str]:
    return [argument.replace("{run}", str(run)).replace("{}", path) for argument in arguments]


def assert_is_one_line(text: str, start: str) -> None:
    assert text.startswith(start), text
    assert text.endswith("\n")
    assert text[:-1].isprintable()


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_a_path_that_cannot_be_read_is_one_line(call, tiny_run, arguments, path):
    status, out, err = call(*filled(arguments, path, tiny_run))
    assert (status, out) == (2, "")
    assert_is_one_line(err, "kvae: ")


@pytest.mark.slow
@pytest.mark.parametrize(("command", "path"), WRITTEN)
@pytest.mark.usefixtures("without_xla", "quick_exports")
def test_a_path_that_is_written_breaks_no_line(call, tiny_run, tmp_path, command, path):
    status, out, err = call(*filled(WRITING[command], PATHS[path], tiny_run))
    assert status in (0, 2)
    if status == 2:
        assert_is_one_line(err, "kvae: ")
    assert all(line.isprintable() for line in (out + err).splitlines())
    assert not list(tmp_path.rglob(".partial-*"))


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_a_path_that_may_not_be_read_is_one_line(call, tiny_run, monkeypatch, tmp_path, arguments):
    """The tests may run as root, who may read everything: so the system is replaced."""
    (tmp_path / "secret").mkdir()
    stat, opened, listed = os.stat, os.open, os.scandir

    def refusing(function):
        def refused(path, *further, **options):
            if "secret" in os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else False:
                raise PermissionError(13, "Permission denied", os.fsdecode(path))
            return function(path, *further, **options)

        return refused

    for name, function in (("stat", stat), ("open", opened), ("scandir", listed)):
        monkeypatch.setattr(os, name, refusing(function))
    status, out, err = call(*filled(arguments, "secret/x", tiny_run))
    assert (status, out) == (2, "")
    assert_is_one_line(err, "kvae: ")
