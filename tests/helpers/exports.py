"""Exports that are made in a moment, and code for processes in which some packages cannot be imported."""

from contextlib import contextmanager
from pathlib import Path

import pytest

from kvae.export import parity

REAL_COSTS = parity.costs
FORMATS = ("savedmodel", "savedmodel_decoder", "tflite")
LATENCY = {"1": 10.0, "64": 20.0}  # microseconds by batch size, as `pretended_costs` states them


def pretended_costs(path: Path, _: str, threads: tuple[int, ...] = parity.THREADS) -> dict:
    """What `parity.costs` returns, without the processes that measure it."""
    latency = {f"{count} threads": LATENCY for count in threads}
    return {"bytes": parity.size(path), "load_seconds": 0.1, "peak_memory_mb": 50.0, "latency_us": latency}


@contextmanager
def without_costs():
    """Exports start no processes that measure what their files cost."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "costs", pretended_costs)
        yield


@contextmanager
def quick_parity():
    """Exports compare few samples, in two parts, and measure no costs."""
    with without_costs(), pytest.MonkeyPatch.context() as patch:
        for name, value in (("LATENTS", 100), ("IMAGES", 100), ("CHUNK", 70)):
            patch.setattr(parity, name, value)
        yield


def tree(folder: Path) -> dict[str, bytes]:
    """The content of every file of a folder, by its path in it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without(*packages: str) -> str:
    """Code after which these packages cannot be imported."""
    return f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {packages}:
            raise ImportError(f"no {{name}} here")

sys.meta_path.insert(0, Blocker())
"""
