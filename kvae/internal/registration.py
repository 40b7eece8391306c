"""Lets `keras.saving.load_model` open kvae's models if both kvae and Keras are imported, in either order.

Keras finds a class by its registered name, but `import kvae` must not import TensorFlow, which the classes need. So a
placeholder is registered for each model; it imports the class when a file needs it. Registration itself needs Keras. If
Keras is not imported yet, a hook on its import registers the placeholders.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
from typing import Any

MODELS = {  # the classes of which a whole file can be saved, each with its module
    "VAE": "kvae.model.vae",
    "MLPEncoder": "kvae.model.networks",
    "MLPDecoder": "kvae.model.networks",
    "ConvEncoder": "kvae.model.networks",
    "ConvDecoder": "kvae.model.networks",
    "ResidualEncoder": "kvae.model.networks",
    "ResidualDecoder": "kvae.model.networks",
}


class _Placeholder:
    """Stands for a class until Keras opens a file with it; then it imports all classes, which register themselves."""

    def __init__(self, name: str) -> None:
        self._name = name

    def from_config(self, config: dict[str, Any]) -> Any:
        importlib.import_module("kvae.model.vae")
        return getattr(importlib.import_module(MODELS[self._name]), self._name).from_config(config)


def _register(keras: Any) -> None:
    registered = keras.saving.get_custom_objects()
    for name in MODELS:
        registered.setdefault(f"kvae>{name}", _Placeholder(name))


class _KerasFinder(importlib.abc.MetaPathFinder):
    """Finds Keras with the other finders, and registers kvae's models as soon as its import succeeds.

    It is removed only then: TensorFlow tries to import Keras while it is itself being imported, and this may fail.
    """

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname != "keras":
            return None
        others = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in others if spec is not None), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: Any) -> None:
                execute(module)
                _register(module)
                sys.meta_path.remove(self)

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def register_with_keras() -> None:
    """Registers the models with Keras: now, or as soon as Keras is imported."""
    if "keras" in sys.modules:
        _register(sys.modules["keras"])
    else:
        sys.meta_path.insert(0, _KerasFinder())
