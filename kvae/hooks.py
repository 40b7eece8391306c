"""Calls a function when a module has been imported, whoever imports it: `import kvae` itself stays cheap."""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any


def when_imported(name: str, function: Callable[[Any], None]) -> None:
    """Calls `function(module)` as soon as the module `name` has been imported: at once if it is."""
    if name in sys.modules:
        function(sys.modules[name])
    else:
        _FINDER.waiting[name] = function


class _Finder(importlib.abc.MetaPathFinder):
    """Finds what the finders after it find, and has the functions that wait for it called once that has run."""

    def __init__(self) -> None:
        self.waiting: dict[str, Callable[[Any], None]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        function = self.waiting.pop(fullname, None)
        if function is None:
            return None
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            self.waiting[fullname] = function
            return None
        spec.loader = _Loader(spec.loader, function)
        return spec


class _Loader(importlib.abc.Loader):
    """Another loader, which may serve many modules, with a call after the one module of this spec has run."""

    def __init__(self, loader: Any, function: Callable[[Any], None]) -> None:
        self._loader, self._function = loader, function

    def __getattr__(self, name: str) -> Any:  # such as get_data and get_source
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._function(module)


_FINDER = _Finder()
sys.meta_path.insert(0, _FINDER)
