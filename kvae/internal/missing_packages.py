"""What is said where a package is missing: kvae was installed without TensorFlow, or for a Python that has none."""

import importlib.util
import sys
from pathlib import Path

from kvae.internal.errors import UserError

# The packages of kvae by the names that are imported, each with its name for pip.
RUNTIME = {  # what drawing images with a .tflite decoder needs
    "ai_edge_litert": "ai-edge-litert",
    "click": "click",
    "numpy": "numpy",
    "PIL": "pillow",
}
TRAINING = {  # what the other commands need
    "filelock": "filelock",
    "flatbuffers": "flatbuffers",
    "matplotlib": "matplotlib",
    "platformdirs": "platformdirs",
    "psutil": "psutil",
    "pyarrow": "pyarrow",
    "pydantic": "pydantic",
    "pydantic_core": "pydantic",
    "rich": "rich",
}
TENSORFLOW = {  # what has no release for the newest Python
    "h5py": "h5py",
    "importlib_resources": "importlib_resources",
    "keras": "keras",
    "tensorflow": "tensorflow",
    "tensorflow_datasets": "tensorflow-datasets",
}
ONNX = ("onnx", "onnxruntime", "tf2onnx")  # the extra `onnx`
FIRST_WITHOUT_TENSORFLOW = (3, 14)
REST = "kvae sample, kvae pretrained and kvae.load work without it."
# kvae is not in a registry of packages, where another package may have its name.
INSTALL = "Run pip install . in a clone of kvae, or pip install with the path of its wheel, without --no-deps"


class MissingPackageError(UserError, ImportError):
    """A package that kvae needs for what it was asked is not installed."""


def check_onnx() -> None:
    """Raises `MissingPackageError` if a package that writes decoders in ONNX is not installed. It imports none."""
    missing = [name for name in ONNX if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingPackageError(
            f"Expected the packages {', '.join(ONNX)} for the format onnx. Missing: {', '.join(missing)}. Install "
            f"them: pip install {' '.join(missing)}, or pip install '.[onnx]' in a clone of kvae."
        )


def _asked() -> str:
    """What needs a package: the command that this process runs if it is one of kvae, or else what was called."""
    started = Path(sys.argv[0] if sys.argv else "")
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    is_kvae = started.stem == "kvae" or (started.name == "__main__.py" and started.parent.name == "kvae")
    return f"kvae {words[0]}" if is_kvae and words else "This"


def explained(error: ImportError) -> ImportError:
    """The error for a package of kvae that is not installed, which says what to install; any other error as it is."""
    name = error.name or ""
    if name in RUNTIME:
        package = RUNTIME[name]
        return MissingPackageError(
            f"This needs the package {package}, which is missing. Install it: pip install {package}"
        )
    if name in TENSORFLOW and sys.version_info >= FIRST_WITHOUT_TENSORFLOW:
        return MissingPackageError(
            "This needs TensorFlow and Keras, which have no release for Python "
            f"{sys.version_info.major}.{sys.version_info.minor}. Install kvae under Python 3.11, 3.12 or 3.13. {REST}"
        )
    if name in TRAINING or name in TENSORFLOW:
        return MissingPackageError(
            f"{_asked()} needs the full installation of kvae: the package {(TRAINING | TENSORFLOW)[name]} is missing. "
            f"{INSTALL}. {REST}"
        )
    return error
