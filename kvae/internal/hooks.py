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


def after_imports(package: str, function: Callable[[], None]) -> None:
    """Calls `function()` whenever a module within `package` and all that it imports have been imported.

    Not in between, while some of these modules are half done: `function` may import any of them.
    """
    _FINDER.packages[package] = function


class _Finder(importlib.abc.MetaPathFinder):
    """Finds what the finders after it find, and has the functions that wait for it called once that has run."""

    def __init__(self) -> None:
        self.waiting: dict[str, Callable[[Any], None]] = {}
        self.packages: dict[str, Callable[[], None]] = {}
        self._running = 0  # modules of these packages that have begun to run and not ended

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package = fullname.partition(".")[0]
        if package in self.packages and path is not None:
            spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Loader(spec.loader, self._ended(package), self._begun)
            return spec
        function = self.waiting.pop(fullname, None)
        if function is None:
            return None
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            self.waiting[fullname] = function
            return None
        spec.loader = _Loader(spec.loader, function)
        return spec

    def _begun(self) -> None:
        self._running += 1

    def _ended(self, package: str) -> Callable[[Any], None]:
        def ended(module: Any) -> None:
            self._running -= 1
            if module is not None and self._running == 0:
                self.packages[package]()

        return ended


class _Loader(importlib.abc.Loader):
    """Another loader, which may serve many modules, with a call after the one module of this spec has run.

    With `before`, that is called first, and `function` is called with None where the module failed.
    """

    def __init__(self, loader: Any, function: Callable[[Any], None], before: Callable[[], None] | None = None) -> None:
        self._loader, self._function, self._before = loader, function, before

    def __getattr__(self, name: str) -> Any:  # such as get_data and get_source
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if self._before is None:
            self._loader.exec_module(module)
            self._function(module)
            return
        self._before()
        done = None
        try:
            self._loader.exec_module(module)
            done = module
        finally:
            self._function(done)


_FINDER = _Finder()
sys.meta_path.insert(0, _FINDER)
