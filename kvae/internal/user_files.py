"""Python files of the user, which `--import` names, and the objects in them that a recipe or a command may name.

A configuration or a model card names such an object as `module:Name`. This never causes an import: the object is looked
up only in files that the user has named in the same call.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from kvae.internal.errors import UserError

_MODULES: dict[str, ModuleType] = {}


def import_file(path: str | Path) -> ModuleType:
    """Imports a Python file as a module with the name of the file. A file is imported only once.

    Args:
        path: the path of the file, e.g. `my_prior.py`. Its classes can then be named as `my_prior:Name`.

    Returns:
        The module.

    Raises:
        UserError: if the file does not exist, if it is not a Python file, if there is another module with its name, or
            if it raises an error.
    """
    path = Path(path).absolute()
    name = path.stem
    if path.suffix != ".py" or not name.isidentifier():
        raise UserError(f"Expected --import with a Python file such as my_prior.py. Received {str(path.name)!r}.")
    if not path.is_file():
        raise UserError(f"Expected --import with a file that exists. Received {str(path)!r}, which does not exist.")
    if name in _MODULES and _MODULES[name].__file__ == str(path):
        return _MODULES[name]
    existing = importlib.util.find_spec(name)
    if existing is not None and (existing.origin is None or Path(existing.origin).resolve() != path.resolve()):
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


def imported() -> list[Path]:
    """The files that were imported, in this order."""
    return [Path(str(module.__file__)) for module in _MODULES.values()]


def is_imported(module: str) -> bool:
    """Whether a file with this module name was imported."""
    return module in _MODULES


def file_of(name: str) -> Path:
    """The imported file that `module:Name` belongs to."""
    return Path(str(_MODULES[name.partition(":")[0]].__file__))


def find(name: str) -> Any:
    """The object that `module:Name` names in an imported file.

    Raises:
        UserError: if no such file was imported, or if it does not define the name.
    """
    module, _, attribute = name.partition(":")
    if module not in _MODULES:
        raise UserError(f"{name!r} is in a file that was not imported. Add --import {module}.py.")
    try:
        return getattr(_MODULES[module], attribute)
    except AttributeError:
        raise UserError(f"{_MODULES[module].__file__} has no {attribute!r}.") from None
