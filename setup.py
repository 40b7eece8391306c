"""Package metadata of kvae. Version ranges live here; the tested versions are pinned in constraints.txt."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
WITH_TENSORFLOW = "python_version < '3.14'"

setup(
    name="kvae",
    version="0.3.0",
    description="Variational autoencoders with Keras: trained with plain fit, measured honestly, loadable anywhere.",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["kvae", "kvae.*"]),
    package_data={
        "kvae": ["py.typed", "web/*"],
        "kvae.data": ["mnist5k.npz", "mnist5k.md"],
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
        "pyarrow>=18",
        "psutil>=6",
        "pydantic>=2.10,<3",
        "click>=8.1.8,<9",
        "rich>=13.9,<16",
    ],
    extras_require={
        "tensorboard": ["tensorboard>=2.18"],
        "test": [
            "pytest>=8.3",
            "pytest-xdist>=3.6",
            "hypothesis>=6.120",
            "scipy>=1.14",
            "mpmath>=1.3",
            "playwright>=1.45",  # drives Chromium, which the tests of the web page skip without
            "kvae[tensorboard]",
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
