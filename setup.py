"""Package metadata of kvae. Version ranges live here; the tested versions are pinned in constraints.txt."""

import os
import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
WITH_TENSORFLOW = "python_version < '3.14'"
# Where the files of this release can be read, as https://github.com/OWNER/kvae/blob/v0.3.0. Stated when it is built.
ADDRESS = os.environ.get("KVAE_ADDRESS", "").rstrip("/")


def package_page(readme: str, address: str) -> str:
    """The README for a package page, where relative links and images would lead nowhere.

    With an address, they become absolute. Without one, links become their text, and images are left out.
    """

    def link(match: re.Match) -> str:
        text, target = match.groups()
        if target.startswith("https://"):
            return match[0]
        target = f"README.md{target}" if target.startswith("#") else target
        return f"[{text}]({address}/{target})" if address else text

    parts = re.split(r"(^```.*?^```$)", readme, flags=re.M | re.S)  # every second one is code
    for index, text in list(enumerate(parts))[::2]:
        if address:
            text = re.sub(r'(<img\s[^>]*src=")(?!https://)', rf"\1{address.replace('/blob/', '/raw/')}/", text)
        else:
            text = re.sub(r"^<p><img .*?</p>\n\n", "", text, flags=re.M | re.S)
        parts[index] = re.sub(r"\[([^\]]+)\]\(([^)]+)\)", link, text)
    return "".join(parts)


# As in kvae/runtime/pretrained.py, which this file cannot import.
PRETRAINED = ("mnist_2d", "fashion_2d", "mnist_10d")
REQUIRED = ("model_card.json", "decoder.tflite", "decoder_int8.tflite")
OPTIONAL = ("README.md", "preview.png", "web/index.html")


class BuildWithPretrained(build_py):
    """Copies the pretrained models into the package. An editable install reads them in saved_models."""

    def _pretrained(self) -> dict[Path, Path]:
        """The files to copy, each with its place in the package."""
        copied = {Path("saved_models", "README.md"): Path("kvae", "pretrained", "README.md")}  # whose data they learned
        for model in PRETRAINED:
            bundle = Path("saved_models", model, "bundle")
            names = (*REQUIRED, *(name for name in OPTIONAL if (ROOT / bundle / name).is_file()))
            copied.update({bundle / name: Path("kvae", "pretrained", model, name) for name in names})
        return copied

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for source, place in self._pretrained().items():
                self.mkpath(str(Path(self.build_lib, place).parent))
                self.copy_file(str(source), str(Path(self.build_lib, place)))

    def get_source_files(self) -> list[str]:
        """What a source distribution must have."""
        return [*super().get_source_files(), *map(str, self._pretrained())]


setup(
    name="kvae",
    version="0.3.0",
    description="Variational autoencoders with Keras: trained with plain fit, measured honestly, loadable anywhere.",
    long_description=package_page((ROOT / "README.md").read_text(encoding="utf-8"), ADDRESS),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    cmdclass={"build_py": BuildWithPretrained},
    packages=find_packages(include=["kvae", "kvae.*"]),
    package_data={
        "kvae": ["py.typed", "web/*"],
        "kvae.data": ["mnist5k.npz", "mnist5k.md"],
        "kvae.evaluation": ["digit_features.npz", "digit_features.md"],
        "kvae.export": ["snippet_templates/*"],
        "kvae.training": ["recipes/*.toml"],
    },
    install_requires=[
        # TensorFlow has no release for Python 3.14. There kvae runs exported decoders, but trains no model.
        f"tensorflow>=2.20,<2.22; {WITH_TENSORFLOW}",
        f"keras>=3.13,<4; {WITH_TENSORFLOW}",
        "ai-edge-litert>=2.1,<3",
        "filelock>=4,<5",
        f"h5py>=3.11; {WITH_TENSORFLOW}",  # Keras needs it as well
        "flatbuffers>=25",
        f"tensorflow-datasets>=4.9.9,<5; {WITH_TENSORFLOW}",
        f"importlib_resources>=6; {WITH_TENSORFLOW}",  # tensorflow-datasets imports it without declaring it
        "numpy>=2.0,<3",
        "matplotlib>=3.9,<4",
        "pillow>=11,<14",
        "platformdirs>=4,<5",
        "pyarrow>=18",
        "psutil>=6",
        "pydantic>=2.10,<3",
        "click>=8.1.8,<9",
        "rich>=13.9,<16",
    ],
    extras_require={
        "onnx": ["onnx>=1.17", "onnxruntime>=1.21", "tf2onnx>=1.17"],
        "tensorboard": ["tensorboard>=2.18"],
        "test": [
            "pytest>=8.3",
            "pytest-xdist>=3.8",
            "hypothesis>=6.120",
            "scipy>=1.14",
            "mpmath>=1.3",
            "pyyaml>=6",  # reads the metadata in README.md of a bundle
            "playwright>=1.45",  # drives Chromium, which the tests of the web page skip without
            "kvae[onnx,tensorboard]",
        ],
        "dev": ["ruff>=0.9", "mypy>=1.14", "kvae[test]"],
    },
    entry_points={"console_scripts": ["kvae = kvae.cli:run"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
