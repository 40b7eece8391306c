"""Text from outside in Markdown: it is shown as it is, and is neither markup nor HTML."""

import re

from kvae.internal.visible import visible

MARKUP = "\\`*_[]<>|#&~$"


def escaped(text: object) -> str:
    """A text as one line that is no markup, but for a list that `-` or `1.` makes at the beginning of a line."""
    line = "".join(f"\\{letter}" if letter in MARKUP else letter for letter in visible(text))
    return re.sub(r"(?<=[^\W_])\\_(?=[^\W_])", "_", line)  # within a word, _ is no markup
