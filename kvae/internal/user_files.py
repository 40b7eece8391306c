"""A user's own code: files named with `--import`, and the names in them that a recipe or a command may use.

A configuration or a model card names such code as `module:Name`. It never causes an import: the name is found only in
files that the user has named in the same call.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from kvae.internal.errors import UserError

_MODULES: dict[str, ModuleType] = {}


def import_file(path: str | Path) -> ModuleType:
    """Runs a Python file as the module of its name, once.

    Args:
        path: the file, e.g. `my_prior.py`; its classes are then known as `my_prior:Name`.

    Returns:
        The module.

    Raises:
        UserError: if the file does not exist, is not a Python file, has the name of another module, or fails.
    """
    path = Path(path).absolute()
    name = path.stem
    if path.suffix != ".py" or not name.isidentifier():
        raise UserError(f"Expected --import with a Python file such as my_prior.py. Received {str(path.name)!r}.")
    if not path.is_file():
        raise UserError(f"Expected --import with a file that exists. {str(path)!r} does not.")
    if name in _MODULES and _MODULES[name].__file__ == str(path):
        return _MODULES[name]
    there = importlib.util.find_spec(name)
    if there is not None and (there.origin is None or Path(there.origin).resolve() != path.resolve()):
        raise UserError(f"Expected --import with a file of another name: there is a module {name!r} already.")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"Could not import {path}: {type(error).__name__}: {error}") from error
    _MODULES[name] = module
    return module


def is_imported(module: str) -> bool:
    """Whether a file of this name was imported."""
    return module in _MODULES


def files() -> list[Path]:
    """The files that were imported."""
    return [Path(str(module.__file__)) for module in _MODULES.values()]


def find(name: str) -> Any:
    """What `module:Name` stands for in a file that was imported.

    Raises:
        UserError: if no such file was imported, or it has no such name.
    """
    module, _, attribute = name.partition(":")
    if module not in _MODULES:
        raise UserError(f"{name!r} stands in a file of yours that was not imported. Add --import {module}.py.")
    try:
        return getattr(_MODULES[module], attribute)
    except AttributeError:
        raise UserError(f"{_MODULES[module].__file__} has no {attribute!r}.") from None
