"""`kvae.internal.partials`: what a killed process left is removed or finished, and what is not its own stays."""

import os
import socket
import sys
import time
from pathlib import Path

import kills
import psutil
import pytest

from kvae.internal import files, partials
from kvae.internal.partials import recover

MACHINE = partials._machine()
TOKEN = "0123456789abcdef"
LONG_AGO = time.time() - 10 * partials.DAY


def left(folder: Path, name: str, written: float | None = None) -> Path:
    """A file that is left in a folder, with its time of writing."""
    path = folder / name
    path.write_bytes(b"half")
    if written is not None:
        os.utime(path, (written, written))
    return path


ABANDONED = {
    "a process that has ended": (f".partial-{kills.DEAD}-{MACHINE}-{TOKEN}-", None),
    "with a suffix": (f".partial-{kills.DEAD}-{MACHINE}-{TOKEN}-config.keras", None),
    "a process whose number another one has got": (f".partial-{os.getpid()}-{MACHINE}-{TOKEN}-", LONG_AGO),
    "a number that no process can have": (f".partial-{10**30}-{MACHINE}-{TOKEN}-", None),
    "another machine, long ago": (f".partial-7-00000000-{TOKEN}-", LONG_AGO),
    "kvae 0.3, long ago": (f".partial-{TOKEN}samples.png", LONG_AGO),
}
KEPT = {
    "this process": (f".partial-{os.getpid()}-{MACHINE}-{TOKEN}-", None),
    "the parent of this process": (f".partial-{os.getppid()}-{MACHINE}-{TOKEN}-", None),
    "another machine, just now": (f".partial-7-00000000-{TOKEN}-", None),
    "kvae 0.3, just now": (f".partial-{TOKEN}samples.png", None),
    "a name of a user's": (".partial-thesis.tex", LONG_AGO),
    "almost a name of kvae's": (f".partial-{kills.DEAD}-{MACHINE}-{TOKEN[:-1]}-", LONG_AGO),
    "a token without an end": (f".partial-{kills.DEAD}-{MACHINE}-{TOKEN}0-", LONG_AGO),
    "no partial file": ("model.keras", LONG_AGO),
}


@pytest.mark.parametrize(("name", "written"), ABANDONED.values(), ids=ABANDONED)
def test_what_a_process_left_that_has_ended_is_removed(tmp_path, name, written):
    left(tmp_path, name, written)
    recover(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "written"), KEPT.values(), ids=KEPT)
def test_all_else_stays(tmp_path, name, written):
    left(tmp_path, name, written)
    recover(tmp_path, nested=True)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_without_psutil_what_was_left_is_removed_after_a_day(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    left(tmp_path, f".partial-{kills.DEAD}-{MACHINE}-{TOKEN}-old", LONG_AGO)
    recent = left(tmp_path, f".partial-{kills.DEAD}-{MACHINE}-{TOKEN}-new")
    recover(tmp_path)
    assert list(tmp_path.iterdir()) == [recent]


def test_folders_within_are_searched_on_request(tmp_path):
    inner = tmp_path / "plots" / "deep"
    inner.mkdir(parents=True)
    left(inner, f".partial-{kills.DEAD}-{MACHINE}-{TOKEN}-.png")
    recover(tmp_path)
    assert len(list(inner.iterdir())) == 1
    recover(tmp_path, nested=True)
    assert not list(inner.iterdir())


def test_links_are_not_followed(tmp_path):
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    left(outside, f".partial-{kills.DEAD}-{MACHINE}-{TOKEN}-.png")
    (inside / "link").symlink_to(outside)
    (inside / f".partial-{kills.DEAD}-{MACHINE}-{TOKEN}-").symlink_to(outside)
    recover(inside, nested=True)
    assert [path.name for path in inside.iterdir()] == ["link"]
    assert len(list(outside.iterdir())) == 1


def test_a_missing_folder_is_nothing_to_recover(tmp_path):
    recover(tmp_path / "missing", nested=True)
    assert not list(tmp_path.iterdir())


def test_names_of_machines_are_part_of_the_names_of_partial_files(monkeypatch, tmp_path):
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    partials._machine.cache_clear()
    try:
        other = partials.new_path(tmp_path).name
    finally:
        partials._machine.cache_clear()
    assert partials.NAME.fullmatch(other)["machine"] != MACHINE


def test_a_process_that_the_system_hides_is_alive(tmp_path, monkeypatch):
    def not_shown(process):
        raise psutil.NoSuchProcess(process)

    def not_permitted(process, signal):
        raise PermissionError

    monkeypatch.setattr(psutil, "Process", not_shown)
    monkeypatch.setattr(os, "kill", not_permitted)
    kept = left(tmp_path, f".partial-{os.getppid()}-{MACHINE}-{TOKEN}-")
    recover(tmp_path)
    assert kept.exists()


@pytest.mark.skipif(not os.path.exists("/proc/self/ns/pid"), reason="only Linux has spaces of process numbers")
def test_a_container_with_process_numbers_of_its_own_is_another_machine(monkeypatch):
    class Namespace:
        st_ino = 1

    monkeypatch.setattr(os, "stat", lambda path: Namespace)
    assert partials._machine.__wrapped__() != MACHINE


# --- exchanges that a kill interrupts: afterwards all entries are the old ones, or all the new ones


def state(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def replace_folder(folder: Path) -> None:
    with files.atomic_folder(folder / "run", overwrite=True) as partial:
        (partial / "a").write_text("new")
        (partial / "c").write_text("new")


def replace_entries(folder: Path) -> None:
    with files.atomic_entries(folder / "run") as partial:
        (partial / "a").write_text("new")
        (partial / "sub").mkdir()
        (partial / "sub" / "b").write_text("new")
        (partial / "c").write_text("new")


REPLACED = {
    replace_folder: {"run/a": "new", "run/c": "new"},
    replace_entries: {"run/a": "new", "run/sub/b": "new", "run/c": "new", "run/kept": "old"},
}


@pytest.mark.parametrize("replace", REPLACED)
def test_an_exchange_killed_at_any_operation_leaves_all_of_the_old_or_all_of_the_new(tmp_path, replace):
    work = tmp_path / "work"
    (work / "run" / "sub").mkdir(parents=True)
    for name in ("a", "sub/b", "kept"):
        (work / "run" / name).write_text("old")
    old = state(work)
    with kills.copies_before_each_operation(work, tmp_path / "copies") as copies:
        replace(work)
    assert state(work) == REPLACED[replace]
    assert len(copies) >= 6
    for copy in copies:
        recover(copy, nested=True)
        assert state(copy) in (old, REPLACED[replace]), copy.name
        assert not kills.unfinished(copy)


@pytest.mark.parametrize("replace", REPLACED)
def test_the_next_writing_finishes_the_exchange(tmp_path, replace):
    work = tmp_path / "work"
    (work / "run").mkdir(parents=True)
    (work / "run" / "a").write_text("old")
    with kills.copies_before_each_operation(work, tmp_path / "copies") as copies:
        replace(work)
    for copy in copies:
        replace(copy)
        assert not kills.unfinished(copy)
