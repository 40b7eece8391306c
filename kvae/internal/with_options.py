"""Names with options in one text, such as `lattice(n=50, seamless=true)` or `elbo,ais(images=100)`."""

import re
import tomllib
from collections.abc import Iterable
from typing import Any

from kvae.internal.errors import UserError, unknown
from kvae.internal.visible import shown


def parse(text: str, noun: str, names: Iterable[str], example: str) -> tuple[str, dict[str, Any]]:
    """A name and its options by name, whose values are written as in TOML.

    Args:
        text: the text.
        noun: what is named, for the errors.
        names: the names that exist.
        example: a name with options, for the errors.

    Raises:
        UserError: if there is no such name, or if the text is not of this form.
    """
    found = re.fullmatch(r"([^()]*)(?:\((.*)\))?", text)
    name, given = found.groups() if found else (text, None)
    if name not in names:
        raise unknown(noun, name, names)
    try:
        return name, tomllib.loads(f"options = {{{given or ''}}}")["options"]
    except (ValueError, RecursionError):
        raise UserError(f"Expected a {noun} with options such as {example}. Received {shown(text)}.") from None


def split(text: str) -> list[str]:
    """The parts of a text between its commas, except for commas within brackets; empty parts are left out."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]
