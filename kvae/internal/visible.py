"""Text from outside, such as a path or the name of a class, made safe to show: one line of it stays one line."""


def visible(text: object) -> str:
    r"""The text with each character that cannot be seen as its escape: `\n`, `\x1b`, `\u202e`, `\udcff`, ...

    These are the characters that `repr` escapes as well: control characters, which would move the cursor or change the
    colours of a terminal; line separators; the invisible characters that change the direction of text; and halves of
    surrogate pairs, which stand for the undecodable bytes of a file name. Quotes and backslashes stay as they are.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def shortened(text: str, most: int) -> str:
    """The text, without its middle if it has more than `most` characters: its beginning and end often differ."""
    head = (most - 1) // 2
    return text if len(text) <= most else f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def shown(value: object, most: int = 200) -> str:
    """`repr(value)` for the message of an error, with at most `most` characters."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print a whole number of thousands of digits
        return "a number with too many digits"
    except RecursionError:
        return "a value that is nested too deeply"
    return shortened(text, most)
