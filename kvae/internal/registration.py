"""Lets `keras.saving.load_model` open kvae's models where kvae and Keras are imported, in either order.

Keras looks a class up by its registered name, and `import kvae` does not import TensorFlow, so a placeholder stands
under the name of each model until a file asks for it. Registering needs Keras, hence the hook on its import.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
from typing import Any

MODELS = {  # what may be saved in a file of its own, and where it stands
    "VAE": "kvae.model.vae",
    "MLPEncoder": "kvae.model.networks",
    "MLPDecoder": "kvae.model.networks",
    "ConvEncoder": "kvae.model.networks",
    "ConvDecoder": "kvae.model.networks",
}


class _Placeholder:
    """Imports kvae's classes, all of which register themselves, once Keras opens a file with one of them."""

    def __init__(self, name: str) -> None:
        self._name = name

    def from_config(self, config: dict[str, Any]) -> Any:
        importlib.import_module("kvae.model.vae")
        return getattr(importlib.import_module(MODELS[self._name]), self._name).from_config(config)


def _register(keras: Any) -> None:
    known = keras.saving.get_custom_objects()
    for name in MODELS:
        known.setdefault(f"kvae>{name}", _Placeholder(name))


class _KerasFinder(importlib.abc.MetaPathFinder):
    """Finds Keras as the finders after it do, and has kvae's models registered once it has run.

    It stays until then: TensorFlow tries to import Keras while it is half imported itself, and may fail.
    """

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname != "keras":
            return None
        others = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((found for found in others if found is not None), None)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_register(module: Any) -> None:
                run(module)
                _register(module)
                sys.meta_path.remove(self)

            spec.loader.exec_module = run_and_register  # type: ignore[method-assign]
        return spec


def register_with_keras() -> None:
    """Registers the models with Keras now, or as soon as it has been imported."""
    if "keras" in sys.modules:
        _register(sys.modules["keras"])
    else:
        sys.meta_path.insert(0, _KerasFinder())
