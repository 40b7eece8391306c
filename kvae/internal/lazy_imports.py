"""Names of a package that are imported on first use (PEP 562), so that importing the package is fast."""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Makes the functions `__getattr__` and `__dir__` of a package.

    Args:
        package: the `__name__` of the package.
        names: for each public name, the module that it stands for, or `module:name` for a name in a module.

    Returns:
        The two functions, which the package assigns to `__getattr__` and `__dir__`.
    """

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, attribute = names[name].partition(":")
        try:
            imported = importlib.import_module(module)
        except ModuleNotFoundError as error:
            from kvae.internal.missing_packages import MissingPackageError, explained

            reason = explained(error)
            if isinstance(reason, MissingPackageError):
                raise reason from None
            raise
        return getattr(imported, attribute) if attribute else imported

    return get, lambda: sorted({*vars(sys.modules[package]), *names})
