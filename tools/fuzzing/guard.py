"""What a reader must not do while it reads: write outside of its folder, start a process, use the network, print."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {  # the events of Python's audit hooks whose first arguments are paths that are changed, and how many
    **dict.fromkeys(("os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.chown", "os.truncate", "os.utime"), 1),
    **dict.fromkeys(("os.rename", "os.link", "os.symlink", "shutil.move"), 2),
    **dict.fromkeys(("shutil.rmtree", "tempfile.mkdtemp", "tempfile.mkstemp"), 1),
}
PROCESSES = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "pty.spawn",
)
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.bind", "urllib.Request")


class Guard:
    """Watches this process from now on. There can be one per process, because an audit hook cannot be removed.

    Args:
        scratch: the folder in which everything may be written. It becomes the current folder.
    """

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch.resolve()
        self.seen: list[str] = []
        self._active = self._processes = False
        self._folders = (self.scratch / "temporary", self.scratch / "current")
        for folder in self._folders:
            folder.mkdir()
        os.environ["TMPDIR"] = str(self._folders[0])
        os.chdir(self._folders[1])
        self._printed = open(self.scratch / "printed", "w+b", buffering=0)  # noqa: SIM115
        for descriptor in (1, 2):
            os.dup2(self._printed.fileno(), descriptor)
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._active:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITING:
                self._see_path(event, path)
        elif event in CHANGES:
            for path in arguments[: CHANGES[event]]:
                self._see_path(event, path)
        elif event in NETWORK or (event in PROCESSES and not self._processes):
            self.seen.append(f"{event}: {str(arguments)[:100]}")

    def _see_path(self, event: str, path: Any) -> None:
        if isinstance(path, str | bytes | os.PathLike):
            place = Path(os.path.realpath(os.fsdecode(path)))
            if not place.is_relative_to(self.scratch) and str(place) != os.devnull:
                self.seen.append(f"{event} outside of the folder: {place}")

    def forget(self) -> None:
        """Removes what was printed, and what was left in the folders for temporary files."""
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self._printed.truncate(0)
        self._printed.seek(0)
        for folder in self._folders:
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    @contextmanager
    def watching(self, processes: bool = False) -> Iterator[list[str]]:
        """Yields a list, which has what was seen when the block has ended.

        Args:
            processes: whether processes may be started.
        """
        self.seen, self._processes, self._active = [], processes, True
        try:
            yield self.seen
        finally:
            self._active = False
            if not processes and _has_children():
                self.seen.append("a process was started")
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            if os.fstat(self._printed.fileno()).st_size:
                self.seen.append(f"printed {os.pread(self._printed.fileno(), 200, 0)!r}")
            for folder in self._folders:
                if left := os.listdir(folder):
                    self.seen.append(f"left {left[0]!r} in the folder {folder.name}")
            if self.seen:
                self.forget()


def _has_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True
