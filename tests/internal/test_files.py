"""`kvae.internal.files`: a reader finds the old file or the new one, at whatever moment the writer stops."""

import contextlib
import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvae.internal import files, partials
from kvae.internal.errors import UserError
from kvae.internal.files import (
    WriteError,
    atomic_file,
    atomic_folder,
    check_file,
    check_folder,
    digest,
    read_json,
    write_json,
    write_text,
)
from kvae.internal.partials import PREFIX

ROOT = Path(__file__).parents[2]


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every name below a folder, with the bytes of each file."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def umask():
    old = os.umask(0o027)
    yield 0o027
    os.umask(old)


def disk_full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def write_half_a_file(path: Path, fault: BaseException) -> None:
    with atomic_file(path) as partial:
        partial.write_bytes(b"half of the ne")
        raise fault


def write_half_a_folder(path: Path, fault: BaseException) -> None:
    with atomic_folder(path) as partial:
        fill(partial)
        raise fault


def write_folder(path: Path) -> None:
    with atomic_folder(path) as partial:
        fill(partial)


def fill(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "a.txt").write_bytes(b"new")


# --- files


def test_a_file_appears_with_its_content_in_a_new_folder(tmp_path):
    write_text(tmp_path / "deep" / "er" / "a.txt", "βeta\n")
    assert tree(tmp_path / "deep") == {"er": None, "er/a.txt": "βeta\n".encode()}


def test_a_file_is_replaced(tmp_path):
    write_text(tmp_path / "a.txt", "old and long")
    write_text(tmp_path / "a.txt", "new")
    assert tree(tmp_path) == {"a.txt": b"new"}


def test_the_old_file_stands_until_the_block_ends(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"old")
    with atomic_file(tmp_path / "a.txt") as partial:
        partial.write_bytes(b"new")
        assert (tmp_path / "a.txt").read_bytes() == b"old"


def test_the_temporary_file_has_the_suffix_and_the_folder_of_the_final_one(tmp_path):
    with atomic_file(tmp_path / "a.png") as partial:
        assert (partial.suffix, partial.parent) == (".png", tmp_path)
        assert partial.name.startswith(PREFIX)


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_a_failure_in_the_block_keeps_the_old_file_and_passes_through(tmp_path, fault):
    (tmp_path / "a.txt").write_bytes(b"old")
    with pytest.raises(fault):
        write_half_a_file(tmp_path / "a.txt", fault())
    assert tree(tmp_path) == {"a.txt": b"old"}


def test_a_full_disk_in_the_block_keeps_the_old_file(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"old")
    with pytest.raises(UserError, match=r"Could not write .*a\.txt: No space left"):
        write_half_a_file(tmp_path / "a.txt", OSError(errno.ENOSPC, "No space left on device"))
    assert tree(tmp_path) == {"a.txt": b"old"}


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_full_disk_at_the_end_keeps_the_old_file(tmp_path, monkeypatch, call):
    (tmp_path / "a.txt").write_bytes(b"old")
    monkeypatch.setattr(os, call, disk_full)
    with pytest.raises(UserError, match=r"Could not write .*a\.txt: No space left"):
        write_text(tmp_path / "a.txt", "new")
    assert tree(tmp_path) == {"a.txt": b"old"}


LIMITED = """
import resource, sys
from kvae.internal.errors import UserError
from kvae.internal.files import write_text
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    write_text(sys.argv[1], "new" * 100_000)
except UserError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of a process's files")
def test_a_write_that_the_system_stops_keeps_the_old_file(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "a.txt")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert f"Could not write {tmp_path / 'a.txt'}: File too large" in done.stdout, done.stderr
    assert tree(tmp_path) == {"a.txt": b"old"}


@pytest.mark.parametrize("atomic", [atomic_file, atomic_folder])
def test_a_parent_that_is_a_file_is_refused(tmp_path, atomic):
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(UserError, match=r"Could not write .*below"), atomic(tmp_path / "file" / "below"):
        pass
    assert tree(tmp_path) == {"file": b"old"}


def test_a_file_does_not_replace_a_folder(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(UserError, match="Could not write"):
        write_text(tmp_path / "a", "new")
    assert tree(tmp_path) == {"a": None, "a/b": None}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
def test_permissions_of_a_file_follow_the_umask(tmp_path, umask):
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
def test_writing_leaves_the_umask_as_it_was(tmp_path, umask):
    write_text(tmp_path / "a.txt", "new")
    assert os.umask(umask) == umask


# --- folders


def test_a_folder_appears_whole(tmp_path):
    with atomic_folder(tmp_path / "run") as partial:
        fill(partial)
        assert not (tmp_path / "run").exists()
    assert tree(tmp_path) == {"run": None, "run/sub": None, "run/sub/a.txt": b"new"}


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_a_failure_in_the_block_leaves_no_folder_and_passes_through(tmp_path, fault):
    with pytest.raises(fault):
        write_half_a_folder(tmp_path / "run", fault())
    assert tree(tmp_path) == {}


def test_a_full_disk_in_the_block_leaves_no_folder(tmp_path):
    with pytest.raises(UserError, match=r"Could not write .*run: No space left"):
        write_half_a_folder(tmp_path / "run", OSError(errno.ENOSPC, "No space left on device"))
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("call", ["rename", "fsync"])
def test_a_full_disk_at_the_end_leaves_no_folder(tmp_path, monkeypatch, call):
    monkeypatch.setattr(os, call, disk_full)
    with pytest.raises(UserError, match=r"Could not write .*run: No space left"):
        write_folder(tmp_path / "run")
    assert tree(tmp_path) == {}


def test_a_folder_that_exists_is_left_alone(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a.txt").write_bytes(b"old")
    with pytest.raises(UserError, match=r"Could not write .*run"):
        write_folder(tmp_path / "run")
    assert tree(tmp_path) == {"run": None, "run/a.txt": b"old"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
def test_permissions_of_a_folder_follow_the_umask(tmp_path, umask):
    with atomic_folder(tmp_path / "run"):
        pass
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o777 & ~umask


# --- JSON


@pytest.mark.parametrize("value", [{"elbo": -100.5, "names": ["a", "β"], "none": None}, [], 1, "text"])
def test_json_round_trip(tmp_path, value):
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_refuses_what_is_no_number_and_keeps_the_old_file(tmp_path, value):
    (tmp_path / "a.json").write_bytes(b"old")
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"elbo": [value]})
    assert tree(tmp_path) == {"a.json": b"old"}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"elbo": 1', b"\xff\xfe", b"no JSON", b'{"a": 1, "a": 1}', b"[1e999]", b"[" * 100_000, b"9" * 5000],
)
def test_damaged_json_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json is not valid JSON"):
        read_json(tmp_path / "a.json")


def test_missing_json_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"Could not read .*a\.json: No such file"):
        read_json(tmp_path / "a.json")


# --- folders that are replaced


OLD = {"run": None, "run/card.json": b"old", "run/deep": None, "run/deep/er.txt": b"old"}
NEW = {"run": None, "run/sub": None, "run/sub/a.txt": b"new"}


@pytest.fixture
def old_folder(tmp_path):
    """`run`, with the content of OLD."""
    (tmp_path / "run" / "deep").mkdir(parents=True)
    for name in ("card.json", "deep/er.txt"):
        (tmp_path / "run" / name).write_bytes(b"old")
    return tmp_path / "run"


def replace_folder(path: Path) -> None:
    with atomic_folder(path, overwrite=True) as partial:
        fill(partial)


def replace_half_a_folder(path: Path, fault: BaseException) -> None:
    with atomic_folder(path, overwrite=True) as partial:
        fill(partial)
        raise fault


def test_a_folder_is_replaced_whole(tmp_path, old_folder):
    with atomic_folder(old_folder, overwrite=True) as partial:
        assert tree(partial) == {}
        fill(partial)
        assert {name: content for name, content in tree(tmp_path).items() if PREFIX not in name} == OLD
    assert tree(tmp_path) == NEW


def test_overwriting_needs_no_folder_that_exists(tmp_path):
    replace_folder(tmp_path / "deep" / "run")
    assert tree(tmp_path / "deep") == NEW


def test_overwriting_keeps_a_file(tmp_path):
    (tmp_path / "run").write_bytes(b"old")
    with pytest.raises(UserError, match="run is a file there"):
        replace_folder(tmp_path / "run")
    assert tree(tmp_path) == {"run": b"old"}


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_a_failure_in_the_block_keeps_the_old_folder_and_passes_through(tmp_path, old_folder, fault):
    with pytest.raises(fault):
        replace_half_a_folder(old_folder, fault())
    assert tree(tmp_path) == OLD


def test_a_full_disk_in_the_block_keeps_the_old_folder(tmp_path, old_folder):
    with pytest.raises(UserError, match=r"Could not write .*run: No space left"):
        replace_half_a_folder(old_folder, OSError(errno.ENOSPC, "No space left on device"))
    assert tree(tmp_path) == OLD


def test_a_full_disk_at_the_end_keeps_the_old_folder(tmp_path, old_folder, monkeypatch):
    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(UserError, match=r"Could not write .*run: No space left"):
        replace_folder(old_folder)
    assert tree(tmp_path) == OLD


@pytest.mark.parametrize("failing", [1, 2, 3])
@pytest.mark.parametrize("fault", [OSError(errno.EACCES, "no"), KeyboardInterrupt()], ids=["os", "ctrl-c"])
def test_a_failure_of_any_renaming_keeps_the_old_folder(tmp_path, old_folder, monkeypatch, failing, fault):
    rename, calls = os.rename, []

    def fail_once(*paths):
        calls.append(paths)
        if len(calls) == failing:
            raise fault
        rename(*paths)

    monkeypatch.setattr(os, "rename", fail_once)
    with pytest.raises((UserError, KeyboardInterrupt)):
        replace_folder(old_folder)
    assert tree(tmp_path) == OLD


def test_a_folder_that_exists_is_not_replaced_unasked(tmp_path, old_folder):
    with pytest.raises(UserError, match=r"Could not write .*run"):
        write_folder(old_folder)
    assert tree(tmp_path) == OLD


# --- digests


@pytest.mark.parametrize("content", [b"", b"abc", bytes(range(256)) * 1000])
@pytest.mark.parametrize("kind", [str, Path])
def test_a_digest_is_the_sha256_of_the_bytes(tmp_path, content, kind):
    (tmp_path / "a").write_bytes(content)
    assert digest(kind(tmp_path / "a")) == hashlib.sha256(content).hexdigest()


def test_a_digest_is_that_of_the_standard(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")  # the first example of FIPS 180-2
    assert digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_digest_of_what_is_no_file_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        digest(tmp_path / "missing")


# --- checks before anything is written


@pytest.mark.parametrize("place", ["file", "file/within", "folder/file/within", "x" * 300, "loop/within"])
@pytest.mark.parametrize("check", [check_file, check_folder])
def test_a_place_that_cannot_be_written_is_found_before(tmp_path, check, place):
    (tmp_path / "folder").mkdir()
    for name in ("file", "folder/file"):
        (tmp_path / name).touch()
    (tmp_path / "loop").symlink_to("loop")
    path = tmp_path / place / ("x.png" if check is check_file else "")
    with pytest.raises(WriteError, match="Could not write"):
        check(path)


def test_a_folder_is_no_file_to_write(tmp_path):
    with pytest.raises(WriteError, match="Is a directory"):
        check_file(tmp_path)


def test_a_folder_without_permission_is_found_before(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may write everywhere
    for check in (check_file, check_folder):
        with pytest.raises(WriteError, match="Permission denied"):
            check(tmp_path / "new" / "further")


def test_a_place_that_can_be_written_passes_and_stays_as_it_is(tmp_path):
    (tmp_path / "old").write_text("old")
    for path in (tmp_path / "old", tmp_path / "new", tmp_path / "folder" / "new"):
        check_file(path)
    check_folder(tmp_path)
    check_folder(tmp_path / "a" / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_an_error_speaks_of_previous_content_and_of_space_only_where_that_is_true(tmp_path, monkeypatch):
    def fails(number):
        def replace(*_):
            raise OSError(number, os.strerror(number))

        return replace

    (tmp_path / "old.txt").write_text("old")
    for name, kept in (("old.txt", True), ("new.txt", False)):
        for number, advice in ((errno.ENOSPC, "Free some space."), (errno.EROFS, "Choose a path that can be written.")):
            monkeypatch.setattr(os, "replace", fails(number))
            with pytest.raises(WriteError) as caught:
                write_text(tmp_path / name, "new")
            monkeypatch.undo()
            assert str(caught.value).endswith(advice)
            assert ("The previous content is unchanged." in str(caught.value)) is kept


@pytest.mark.parametrize("fault", [UserError("Could not read x.png."), BrokenPipeError(errno.EPIPE, "Broken pipe")])
def test_an_error_of_the_block_that_is_not_of_writing_passes_as_it_is(tmp_path, fault):
    for atomic in (files.atomic_file, files.atomic_folder):
        with pytest.raises(type(fault)) as caught, atomic(tmp_path / "a"):
            raise fault
        assert caught.value is fault


def test_a_failure_whose_undoing_fails_too_loses_nothing(tmp_path, old_folder, monkeypatch):
    rename, calls = os.rename, []

    def fail_twice(*paths):
        calls.append(paths)
        if len(calls) in (3, 4):  # the new folder does not come to its place, nor the old one back
            raise OSError(errno.EACCES, "another program reads it")
        rename(*paths)

    monkeypatch.setattr(os, "rename", fail_twice)
    with pytest.raises(UserError):
        replace_folder(old_folder)
    monkeypatch.undo()
    (left,) = tmp_path.iterdir()
    assert partials.is_between(left)
    monkeypatch.setattr(partials, "_is_abandoned", lambda path: True)  # the process has ended
    partials.recover(tmp_path)
    assert tree(tmp_path) == NEW


def test_an_empty_folder_stays_the_same_folder(tmp_path):
    """Its parent need not be writable."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".DS_Store").touch()
    before = (tmp_path / "run").stat().st_ino
    replace_folder(tmp_path / "run")
    assert (tmp_path / "run").stat().st_ino == before
    (tmp_path / "run" / ".DS_Store").unlink()
    assert tree(tmp_path) == NEW


def test_the_temporary_file_of_a_link_has_the_suffix_of_the_link(tmp_path):
    (tmp_path / "blob").write_text("old")
    (tmp_path / "model.keras").symlink_to("blob")
    with files.atomic_file(tmp_path / "model.keras") as partial:
        assert partial.suffix == ".keras"
        partial.write_text("new")
    assert (tmp_path / "blob").read_text() == "new"
    assert (tmp_path / "model.keras").is_symlink()


def test_what_is_written_after_a_failure_stays_when_the_next_process_recovers(tmp_path, monkeypatch):
    path, rename = tmp_path / "run", os.rename
    for content in ("old", "failed", "good"):
        calls = []

        def failing(*paths, calls=calls):
            calls.append(paths)
            if len(calls) in (3, 4):
                raise OSError(errno.EACCES, "another program reads it")
            rename(*paths)

        with monkeypatch.context() as patch, contextlib.suppress(UserError), atomic_folder(path, overwrite=True) as new:
            (new / "a.txt").write_text(content)
            if content == "failed":
                patch.setattr(os, "rename", failing)
    monkeypatch.setattr(partials, "_is_abandoned", lambda path: True)
    partials.recover(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]
    assert (path / "a.txt").read_text() == "good"
