"""`kvae.internal.locks`: one process writes a folder, and a lock ends with its process."""

import os
import socket
import subprocess
import sys

import pytest

from kvae.internal import locks
from kvae.internal.errors import UserError
from kvae.internal.files import WriteError
from kvae.internal.locks import LockedError, locked

HOLD = """
import sys, time
from kvae.internal.locks import locked
with locked(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that has locked `tmp_path`."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_another_process_is_named_with_its_machine(tmp_path, other):
    message = rf"process {other.pid} on '{socket.gethostname()}'\. Wait until it has ended"
    with pytest.raises(LockedError, match=message), locked(tmp_path):
        raise AssertionError


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path, other):
    other.kill()
    other.wait()
    with locked(tmp_path):
        assert (tmp_path / locks.HOLDER).is_file()
    assert not (tmp_path / locks.HOLDER).exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"process": "x", "machine": 1}', b"\xff", b"[" * 100_000])
def test_a_holder_that_cannot_be_read_is_not_named(tmp_path, other, content):
    (tmp_path / locks.HOLDER).write_bytes(content)
    with pytest.raises(LockedError, match="its number is not known"), locked(tmp_path):
        raise AssertionError


def test_threads_of_one_process_exclude_each_other(tmp_path):
    with locked(tmp_path), pytest.raises(LockedError, match=f"process {os.getpid()}"), locked(tmp_path):
        raise AssertionError


def test_a_lock_can_be_taken_again_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), locked(tmp_path):
        raise RuntimeError
    with locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(WriteError, match=r"Could not lock .*missing"), locked(tmp_path / "missing"):
        raise AssertionError
    assert issubclass(WriteError, UserError)


def test_the_holder_of_a_lock_is_known_without_taking_it(tmp_path, other):
    assert locks.holder(tmp_path) == f"process {other.pid} on {socket.gethostname()!r}"


def test_a_folder_that_no_process_writes_has_no_holder(tmp_path, other):
    assert locks.holder(tmp_path / "missing") is None
    other.kill()
    other.wait()
    assert (tmp_path / locks.HOLDER).is_file()  # which the killed process has left
    assert locks.holder(tmp_path) is None
    with locked(tmp_path):
        pass
