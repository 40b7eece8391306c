"""`kvae.internal.files`: what a replaced file keeps, entries that are put into a folder, and other systems."""

import errno
import os
import shutil
import stat
import sys
from pathlib import Path

import pytest

from kvae.internal import files
from kvae.internal.errors import UserError
from kvae.internal.files import (
    WriteError,
    atomic_entries,
    atomic_file,
    atomic_folder,
    has_pattern,
    temporary_folder,
    write_json,
    write_text,
)
from kvae.internal.partials import PREFIX

links = pytest.mark.skipif(sys.platform == "win32", reason="Windows needs a privilege for symbolic links")
permissions = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no permissions of this kind")


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every name below a folder, with the bytes of each file."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


# --- errors


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_an_error_is_of_the_user_and_of_the_system(tmp_path, monkeypatch, number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(WriteError, match=os.strerror(number)) as raised:
        write_text(tmp_path / "a.txt", "new")
    assert isinstance(raised.value, UserError)
    assert isinstance(raised.value, OSError)
    assert raised.value.errno == number


def test_the_error_of_an_inner_write_is_not_repeated_by_the_outer_one(tmp_path):
    with pytest.raises(WriteError) as raised, atomic_folder(tmp_path / "run") as partial:
        write_text(partial, "new")
    assert str(raised.value).count("Could not write") == 1
    assert tree(tmp_path) == {}


# --- what a replaced file keeps


@links
@pytest.mark.parametrize("write", [lambda path: write_text(path, "[]"), lambda path: write_json(path, [])])
def test_a_file_behind_a_link_is_replaced_and_the_link_stays(tmp_path, write):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a.json").write_bytes(b"old")
    (tmp_path / "link.json").symlink_to(Path("disk") / "a.json")
    write(tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "disk" / "a.json").read_bytes().startswith(b"[]")
    assert os.listdir(tmp_path / "disk") == ["a.json"]


@links
def test_a_link_to_nothing_gets_its_file(tmp_path):
    (tmp_path / "link.txt").symlink_to("a.txt")
    write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "a.txt").read_bytes() == b"new"


@permissions
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_a_replaced_file_keeps_its_permissions(tmp_path, mode):
    (tmp_path / "a.txt").write_bytes(b"old")
    (tmp_path / "a.txt").chmod(mode)
    write_text(tmp_path / "a.txt", "new")
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == mode


def test_a_write_protected_file_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_bytes(b"old")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root, who may run this, may write everything
    with pytest.raises(WriteError, match=r"a\.txt: The file is write-protected"):
        write_text(tmp_path / "a.txt", "new")
    assert tree(tmp_path) == {"a.txt": b"old"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_device_or_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(WriteError, match="a device or a pipe"):
        write_text(tmp_path / "pipe.txt", "new")
    assert stat.S_ISFIFO((tmp_path / "pipe.txt").stat().st_mode)


@pytest.mark.parametrize("name", ["m.weights.h5", ".weights.h5", "b.tar.gz", "ä" * 60 + ".keras", "no suffix"])
def test_the_temporary_name_ends_as_the_final_one(tmp_path, name):
    with atomic_file(tmp_path / name) as partial:
        assert partial.name.startswith(PREFIX)
        assert partial.name.endswith(name[-40:])
        partial.write_bytes(b"new")
    assert tree(tmp_path) == {name: b"new"}


@pytest.mark.parametrize("text", ["a\nb\n", "a\r\nb", "β\n"])
def test_a_text_has_the_same_bytes_on_every_system(tmp_path, monkeypatch, text):
    monkeypatch.setattr(os, "linesep", "\r\n")
    write_text(tmp_path / "a.txt", text)
    assert (tmp_path / "a.txt").read_bytes() == text.encode()


# --- entries in a folder


OLD = {"config": b"old", "sub": None, "sub/old": b"old", "mine": b"mine"}
NEW = {"config": b"new", "sub": None, "sub/new": b"new", "mine": b"mine"}


@pytest.fixture
def folder(tmp_path):
    """A folder with the content of OLD."""
    (tmp_path / "run" / "sub").mkdir(parents=True)
    for name, content in OLD.items():
        if content is not None:
            (tmp_path / "run" / name).write_bytes(content)
    return tmp_path / "run"


def put_entries(folder: Path, fault: BaseException | None = None) -> None:
    with atomic_entries(folder) as partial:
        (partial / "sub").mkdir()
        (partial / "sub" / "new").write_bytes(b"new")
        (partial / "config").write_bytes(b"new")
        if fault is not None:
            raise fault


def test_entries_replace_those_of_the_same_names_and_keep_the_others(folder):
    put_entries(folder)
    assert tree(folder) == NEW


def test_entries_make_a_folder_that_does_not_exist(tmp_path):
    put_entries(tmp_path / "deep" / "run")
    assert tree(tmp_path / "deep" / "run") == {name: content for name, content in NEW.items() if name != "mine"}


@pytest.mark.parametrize("fault", [RuntimeError(), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")], ids=repr)
def test_entries_of_a_block_that_fails_change_nothing(folder, fault):
    with pytest.raises((RuntimeError, KeyboardInterrupt, WriteError)):
        put_entries(folder, fault)
    assert tree(folder) == OLD


@pytest.mark.parametrize("failing", [1, 2, 3, 4])
@pytest.mark.parametrize("fault", [OSError(errno.EACCES, "no"), KeyboardInterrupt()], ids=["os", "ctrl-c"])
def test_a_failure_of_any_renaming_restores_all_entries(folder, monkeypatch, failing, fault):
    rename, calls = os.rename, []

    def fail_once(*paths):
        calls.append(paths)
        if len(calls) == failing:
            raise fault
        rename(*paths)

    monkeypatch.setattr(os, "rename", fail_once)
    with pytest.raises((WriteError, KeyboardInterrupt)):
        put_entries(folder)
    assert tree(folder) == OLD


@pytest.mark.parametrize("name", ["config", "sub"])
def test_an_entry_of_another_kind_is_not_replaced(folder, name):
    with pytest.raises(WriteError, match=f"{name} is a .* there"), atomic_entries(folder) as partial:
        (partial / name).mkdir() if name == "config" else (partial / name).write_bytes(b"new")
    assert tree(folder) == OLD


# --- Windows, whose rules are simulated


@pytest.fixture
def on_windows(monkeypatch):
    """The rules of Windows: a folder cannot be opened, and `fsync` needs a handle that may write.

    The documentation of `os.fsync` says that it is `_commit` there, which fails with EBADF for a handle that may only
    read; `os.open` of a folder fails with EACCES.
    """
    opened, synced, original_open, original_sync = {}, [], os.open, os.fsync

    def open_file(path, flags, *rest, **options):
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied")
        handle = original_open(path, flags, *rest, **options)
        opened[handle] = (flags, str(path))
        return handle

    def sync(handle):
        flags, path = opened[handle]
        if not flags & (os.O_RDWR | os.O_WRONLY):
            raise OSError(errno.EBADF, "Bad file descriptor")
        synced.append(path)
        original_sync(handle)

    monkeypatch.setattr(os, "open", open_file)
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(files, "WINDOWS", True)
    monkeypatch.setattr(shutil, "_use_fd_functions", False, raising=False)  # Windows has no such functions
    return synced


def test_a_file_is_written_by_the_rules_of_windows(tmp_path, on_windows):
    write_text(tmp_path / "a.txt", "new")
    write_text(tmp_path / "a.txt", "newer")
    assert tree(tmp_path) == {"a.txt": b"newer"}
    assert len(on_windows) == 2


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_is_written_by_the_rules_of_windows(tmp_path, on_windows, overwrite):
    if overwrite:
        (tmp_path / "run" / "old").mkdir(parents=True)
    with atomic_folder(tmp_path / "run", overwrite=overwrite) as partial:
        (partial / "sub").mkdir()
        (partial / "sub" / "a").write_bytes(b"new")
    assert tree(tmp_path / "run") == {"sub": None, "sub/a": b"new"}
    assert len(on_windows) == 1


def test_entries_are_written_by_the_rules_of_windows(folder, on_windows):
    put_entries(folder)
    assert tree(folder) == NEW
    assert len(on_windows) == 2


def test_a_file_that_another_program_has_open_stays(tmp_path, on_windows, monkeypatch):
    def refuse(*_):  # os.replace fails so there, if a program has opened the target
        raise PermissionError(errno.EACCES, "The process cannot access the file")

    (tmp_path / "a.txt").write_bytes(b"old")
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(WriteError, match=r"a\.txt: The process cannot access the file"):
        write_text(tmp_path / "a.txt", "new")
    assert tree(tmp_path) == {"a.txt": b"old"}


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_sync_folders_is_no_error(tmp_path, monkeypatch, number):
    sync = os.fsync

    def refuse_folders(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, "not supported")
        sync(handle)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    write_text(tmp_path / "run" / "a.txt", "new")
    with atomic_folder(tmp_path / "other") as partial:
        (partial / "sub").mkdir()
    assert tree(tmp_path) == {"run": None, "run/a.txt": b"new", "other": None, "other/sub": None}


# --- paths that TensorFlow takes for patterns


@pytest.mark.parametrize(
    ("path", "expected"),
    [("run[1]", True), ("a/what?/b", True), ("s*", True), ("a\\b", os.name != "nt"), ("run 1", False), ("ä/b", False)],
)
def test_a_pattern_is_told_from_a_path(path, expected):
    assert has_pattern(path) == has_pattern(Path(path)) == expected


def test_a_temporary_folder_that_tensorflow_cannot_read_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temp[1]"))
    with pytest.raises(UserError, match=r"without \[, \], \* and \? in its path.*Set TMPDIR"), temporary_folder():
        pass
