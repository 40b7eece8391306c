"""Complete programs that draw with the files of one bundle, for its README: Python, Kotlin, Swift, C++ and JavaScript.

Each program draws the picture of a seed, compares z with the z that kvae found for it, and decodes a latent vector. The
programs lie in the folder `snippet_templates`. In them, `@NAME@` stands for a value, and a line that begins with
`?flag ` is only there if the flag holds.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

TEMPLATES = Path(__file__).parent / "snippet_templates"
CHECKED_NUMBERS = 4  # of z: enough to notice another seed, another generator or another file

# The variants that draw the picture of a seed, best first. `full_int8` is not among them, because its z differs.
EXACT = ("float32", "float16", "int8")
SMALL = ("int8", "float16", "float32")
ONNX = ("onnx",)


class Facts(NamedTuple):
    """What the programs need to know of a bundle."""

    files: Mapping[str, str]  # for each variant the file in the bundle: {"float32": "decoder.tflite"}
    latent_dim: int
    image_shape: tuple[int, ...]  # (height, width, channels), or (height, width)
    decoded: str  # the second output of `decode`: "logits" or "parameters"
    condition_shape: tuple[int, ...] | None  # of one image, or None if the model takes no condition
    seed: int  # int32
    z_of_seed: list[float]  # the z of this seed, and of `example_condition` if the model takes a condition


class Snippet(NamedTuple):
    """A program for one language."""

    title: str
    language: str  # the name that a fenced block of Markdown takes
    code: str
    checked: str  # how the tests of kvae check it, in one sentence


class _Program(NamedTuple):
    title: str
    language: str
    template: str
    variants: tuple[str, ...]  # which the program can run, best first
    checked: str


# For each language the ways to run a decoder, best first. A bundle gets the first one that its files allow.
_PROGRAMS: tuple[tuple[_Program, ...], ...] = (
    (
        _Program("Python", "python", "python_litert.txt", EXACT, "Run by the tests of kvae."),
        _Program("Python", "python", "python_onnx.txt", ONNX, "Run by the tests of kvae."),
    ),
    (
        _Program(
            "Kotlin, Android",
            "kotlin",
            "Decoder.kt",
            SMALL,
            "Compiled by the tests of kvae against stand-ins of the classes of Android and LiteRT, which answer with "
            "outputs that LiteRT has computed; it was not run on a device.",
        ),
    ),
    (
        _Program(
            "Swift, iOS",
            "swift",
            "Decoder.swift",
            SMALL,
            "Not compiled: the tests of kvae only compare the names of files, signatures, inputs and outputs.",
        ),
    ),
    (
        _Program(
            "C++",
            "cpp",
            "draw.cpp",
            EXACT,
            "Compiled and run with TensorFlow Lite 2.14.1 of Debian. Where it is not installed, the tests of kvae use "
            "a stand-in, which answers with outputs that LiteRT has computed.",
        ),
    ),
    (
        _Program("JavaScript, Node", "js", "onnx.mjs", ONNX, "Run by the tests of kvae in Node."),
        _Program("JavaScript, browser", "html", "litert.html", EXACT, "Run by the tests of kvae in Chromium."),
    ),
)


def render(facts: Facts) -> list[Snippet]:
    """The programs for one bundle.

    Args:
        facts: what the programs need to know of it.

    Returns:
        One program for each language that can run a file of the bundle. There is none for a model whose images are no
        grey or colour pictures.
    """
    height, width, channels = (*facts.image_shape, 1)[:3] if len(facts.image_shape) in (2, 3) else (0, 0, 0)
    if channels not in (1, 3):
        return []
    chosen = (next((each for each in programs if _variant(each, facts)), None) for programs in _PROGRAMS)
    return [
        Snippet(each.title, each.language, _filled(each, facts, height, width, channels), each.checked)
        for each in chosen
        if each is not None
    ]


def example_condition(shape: tuple[int, ...]) -> np.ndarray:
    """The condition that the programs pass, `[1, *shape]` float32: 1 and then zeros, class 0 of a one-hot label."""
    condition = np.zeros((1, *shape), np.float32)
    condition.flat[0] = 1
    return condition


def _variant(program: _Program, facts: Facts) -> str | None:
    """The best variant that a program can run and the bundle has."""
    return next((each for each in program.variants if each in facts.files), None)


def _filled(program: _Program, facts: Facts, height: int, width: int, channels: int) -> str:
    """The code of a program."""
    file = facts.files[str(_variant(program, facts))]
    page = next((name for variant, name in facts.files.items() if variant.startswith("web")), "")
    numbers = [str(np.float32(value)) for value in facts.z_of_seed[:CHECKED_NUMBERS]]
    values: dict[str, object] = {
        "FILE": file,
        "STEM": Path(file).stem,
        "WEB": page,
        "HEIGHT": height,
        "WIDTH": width,
        "CHANNELS": channels,
        "LATENT": facts.latent_dim,
        "DECODED": facts.decoded,
        "SEED": facts.seed,
        "Z": ", ".join(numbers),
        "Z_FLOAT": ", ".join(f"{value}f" for value in numbers),
        "COUNT": len(numbers),
        "PNM": {1: "P5", 3: "P6"}[channels],
        "EXTENSION": {1: "pgm", 3: "ppm"}[channels],
    }
    condition = facts.condition_shape
    if condition is not None:
        values |= {"CONDITION_SHAPE": ", ".join(map(str, condition)), "CONDITION_SIZE": int(np.prod(condition))}
    flags = {
        "condition": condition is not None,
        "plain": condition is None,
        "grey": channels == 1,
        "colour": channels == 3,
        "web": bool(page),
        "no_web": not page,
    }
    lines = []
    for line in (TEMPLATES / program.template).read_text(encoding="utf-8").splitlines():
        if flagged := re.fullmatch(r"\?(\w+) (.*)", line):
            if not flags[flagged[1]]:
                continue
            line = flagged[2]
        lines.append(re.sub(r"@([A-Z_]+)@", lambda match: str(values[match[1]]), line))
    return "\n".join(lines) + "\n"
