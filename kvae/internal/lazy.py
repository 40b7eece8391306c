"""Names of a package that are imported when they are first used (PEP 562), so that importing it stays cheap."""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` for a package.

    Args:
        package: its `__name__`.
        names: by public name, the module that it stands for, or `module:name` for a name of that module.
    """

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, attribute = names[name].partition(":")
        found = importlib.import_module(module)
        return getattr(found, attribute) if attribute else found

    return get, lambda: sorted({*vars(sys.modules[package]), *names})
