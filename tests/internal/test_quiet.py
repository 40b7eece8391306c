"""What is written to file descriptor 2 in a silenced block: nothing, unless an exception passes."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kvae.internal.quiet_output import silenced

ROOT = Path(__file__).parents[2]


def chatter(text):
    """Writes as a C++ library does, past Python."""
    os.write(2, text.encode())


def fail_after(text, fault):
    with silenced():
        chatter(text)
        raise fault


def printed(block, after=""):
    """What a program prints on standard error that runs `block` silenced; pytest has put a stream of its own there."""
    code = """
import os, sys
from kvae.internal.quiet_output import silenced
sys.stderr = os.fdopen(2, "w", buffering=4096, closefd=False)
sys.stderr.write("before ")  # not yet flushed
with silenced():
    {}
{}
"""
    command = [sys.executable, "-c", code.format(block, after)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False).stderr


def descriptors():
    return len(os.listdir("/dev/fd"))


def test_what_is_written_to_the_descriptor_is_held_back(capfd):
    with silenced():
        chatter("noise\n")
    assert capfd.readouterr() == ("", "")


def test_what_a_child_process_writes_is_held_back(capfd):
    with silenced():
        subprocess.run([sys.executable, "-c", "import os; os.write(2, b'noise')"], check=True)
    assert capfd.readouterr() == ("", "")


def test_what_another_thread_writes_is_held_back(capfd):
    with silenced():
        thread = threading.Thread(target=chatter, args=("noise",))
        thread.start()
        thread.join()
    assert capfd.readouterr() == ("", "")


def test_standard_output_is_left_alone(capfd):
    with silenced():
        os.write(1, b"result\n")
    assert capfd.readouterr() == ("result\n", "")


def test_what_stands_before_and_after_the_block_comes_out(capfd):
    chatter("before ")
    with silenced():
        chatter("noise")
    chatter("after")
    assert capfd.readouterr().err == "before after"


def test_what_python_wrote_before_the_block_comes_out_and_what_it_writes_there_does_not():
    # Had the stream not been flushed at both ends, the text would come out with that of the block, or not at all.
    assert printed("print('noise', file=sys.stderr)", "sys.stderr.write('after')") == "before after"


def test_an_exception_shows_what_python_wrote():
    block = "os.write(2, b'first '); print('second', file=sys.stderr); raise SystemExit(3)"
    assert printed(block) == "before first second\n"


@pytest.mark.parametrize("fault", [RuntimeError("no"), SystemExit(3)], ids=repr)
def test_an_exception_passes_with_what_was_written_before_it(capfd, fault):
    with pytest.raises(type(fault)) as caught:
        fail_after("the reason\n", fault)
    assert caught.value is fault
    assert capfd.readouterr().err == "the reason\n"


def test_an_interruption_passes_alone(capfd):
    with pytest.raises(KeyboardInterrupt):
        fail_after("libraries chatter\n", KeyboardInterrupt())
    assert capfd.readouterr().err == ""


def test_an_exception_shows_much_text_whole(capfd):
    text = "line of some length\n" * 2000  # 40 kB, less than a pipe holds
    with pytest.raises(RuntimeError):
        fail_after(text, RuntimeError())
    assert capfd.readouterr().err == text


def test_an_exception_that_is_caught_within_the_block_shows_nothing(capfd):
    with silenced():
        try:
            chatter("noise")
            raise RuntimeError
        except RuntimeError:
            pass
    assert capfd.readouterr().err == ""


def test_the_descriptor_is_restored_after_an_exception(capfd):
    with pytest.raises(RuntimeError):
        fail_after("", RuntimeError())
    chatter("after")
    assert capfd.readouterr().err == "after"


def test_the_descriptor_is_the_file_that_it_was():
    before = os.fstat(2)
    with silenced():
        assert not os.path.samestat(os.fstat(2), before)
    assert os.path.samestat(os.fstat(2), before)


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="This system does not list open descriptors")
def test_no_descriptor_is_left_open():
    before = descriptors()
    for _ in range(3):
        with silenced():
            chatter("noise")
        with pytest.raises(RuntimeError):
            fail_after("", RuntimeError())
    assert descriptors() == before


def test_blocks_nest(capfd):
    with silenced():
        chatter("outer ")
        with silenced():
            chatter("inner ")
        chatter("outer again")
    chatter("after")
    assert capfd.readouterr().err == "after"


def test_an_exception_through_two_blocks_shows_the_text_once(capfd):
    nested = silenced()(fail_after)
    with pytest.raises(RuntimeError):
        nested("inner", RuntimeError())
    assert capfd.readouterr().err == "inner"


def test_an_exception_of_an_inner_block_that_the_outer_catches_shows_nothing(capfd):
    with silenced():
        with pytest.raises(RuntimeError):
            fail_after("inner", RuntimeError())
        chatter("outer")
    assert capfd.readouterr().err == ""


def test_a_function_may_be_silenced_whole(capfd):
    silenced()(chatter)("noise")
    assert capfd.readouterr().err == ""


def test_where_no_temporary_file_can_be_made_the_lines_are_shown_and_nothing_leaks(monkeypatch, capfd):
    def no_folder():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr("tempfile.TemporaryFile", no_folder)
    first = os.dup(2)
    os.close(first)
    for _ in range(3):
        with silenced():
            chatter("seen ")
    again = os.dup(2)
    os.close(again)
    assert again == first
    assert capfd.readouterr().err == "seen seen seen "
