"""The contenders of the benchmark, their environments, and the processes in which they run."""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from contenders.protocol import Settings

SCRIPTS = Path(__file__).parent
ENVIRONMENTS = SCRIPTS.parent.parent / ".benchmark"
VERSIONS = """
import importlib, importlib.metadata, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps({name: importlib.metadata.version(name) for name in sys.argv[1:]}))
"""


class ContenderError(Exception):
    """A contender could not be measured; the message is the reason."""


@dataclass(frozen=True)
class Environment:
    """An interpreter and the packages that it must have.

    The interpreter is that of `.benchmark/<name>` if it exists, otherwise the one that runs the benchmark.
    """

    name: str
    packages: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return ENVIRONMENTS / self.name

    @property
    def requirements(self) -> Path:
        return SCRIPTS / f"{self.name}.txt"

    @property
    def python(self) -> str:
        python = self.folder / "bin" / "python"
        return str(python) if python.exists() else sys.executable

    def versions(self, timeout: float) -> dict[str, str]:
        """The versions of the packages.

        Every package is imported, which also loads its files into memory before start-up times are measured.

        Args:
            timeout: the longest time for the imports, in seconds.

        Raises:
            ContenderError: if a package is missing or cannot be imported.
        """
        command = [self.python, "-c", VERSIONS, *self.packages]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=True)
        except subprocess.TimeoutExpired as error:
            raise ContenderError(f"{', '.join(self.packages)} took more than {timeout:g} s to import") from error
        except subprocess.CalledProcessError as error:
            raise ContenderError(last_line(error.stderr) or f"exit status {error.returncode}") from error
        return json.loads(last_line(done.stdout))

    def install(self) -> None:
        """Makes the virtual environment with the requirements. Packages that are installed already are kept."""
        subprocess.run([sys.executable, "-m", "venv", self.folder], check=True)
        subprocess.run([self.folder / "bin" / "python", "-m", "pip", "install", "-r", self.requirements], check=True)


@dataclass(frozen=True)
class Contender:
    """A script, its arguments and its environment."""

    name: str
    environment: Environment
    script: Path
    arguments: tuple[str, ...] = ()


KVAE = Environment("kvae", ("kvae", "tensorflow", "keras", "numpy"))
PYTORCH = Environment("pytorch", ("torch", "numpy"))
JAX = Environment("jax", ("jax", "jaxlib", "numpy"))
PYTHAE = Environment("pythae", ("pythae", "torch", "numpy"))
LIMIT = "limit"  # no contender, but what the others are measured against
CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender(LIMIT, KVAE, SCRIPTS / "matrix_products.py"),
        Contender("kvae", KVAE, SCRIPTS / "kvae_fit.py"),
        Contender("keras_io", KVAE, SCRIPTS / "keras_io.py"),
        Contender("pytorch_eager", PYTORCH, SCRIPTS / "pytorch.py", ("eager",)),
        Contender("pytorch_compiled", PYTORCH, SCRIPTS / "pytorch.py", ("compiled",)),
        Contender("jax_scan", JAX, SCRIPTS / "jax_scan.py"),
        Contender("pythae", PYTHAE, SCRIPTS / "pythae_trainer.py"),
    )
}


def last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


class Worker:
    """The process of a contender.

    Args:
        contender: the contender.
        settings: the settings of its training.
        folder: the current folder of the process, in which it may write files.
        timeout: the longest time for an answer, in seconds.
    """

    def __init__(self, contender: Contender, settings: Settings, folder: Path, timeout: float) -> None:
        self.timeout = timeout
        self.log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - closed in `close`
        self.process = subprocess.Popen(
            [contender.environment.python, contender.script, *contender.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            errors="replace",
            cwd=folder,
            env={"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ},
            start_new_session=True,  # a new process group, so that `close` also ends the processes that it has started
        )
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        self.say(asdict(settings))

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")  # marks the end of the output

    def say(self, message: Any) -> None:
        with suppress(BrokenPipeError):  # the process has ended; `hear` raises the error
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """The next answer of the process.

        Raises:
            ContenderError: if the process has ended, or if it does not answer in time.
        """
        until = time.monotonic() + self.timeout
        while True:
            try:
                line = self.lines.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise ContenderError(f"no answer within {self.timeout:g} s") from None
            if not line:
                raise ContenderError(self._why_it_ended())
            try:
                answer = json.loads(line)
            except ValueError:
                continue  # a line that a library has printed
            if isinstance(answer, dict):
                return answer

    def ask(self, command: str) -> dict[str, Any]:
        self.say(command)
        return self.hear()

    def _why_it_ended(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=5.0)
        self.log.seek(0)
        return f"{last_line(self.log.read()) or 'ended'} (exit status {self.process.returncode})"

    def close(self) -> None:
        """Ends the process and all processes that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.log.close()
