"""The machine on which numbers are measured."""

import os
import platform
from pathlib import Path
from typing import Any

VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2"}  # the instructions on which the speed of matrix products depends


def describe() -> dict[str, Any]:
    """The model of the processor, and what else speeds depend on."""
    facts = _facts()
    return {
        "cpu": facts.get("model name") or platform.processor() or platform.machine(),
        "vectors": next((name for flag, name in VECTORS.items() if flag in facts.get("flags", "").split()), None),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _facts() -> dict[str, str]:
    """What Linux states of the first core; nothing on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
