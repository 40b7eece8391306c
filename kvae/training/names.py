"""Names of runs and of files in a run folder. A name is a name: it leads to no other folder, on no system."""

import hashlib
import re

from kvae.internal.errors import UserError
from kvae.internal.visible import shown

LONGEST = 100  # bytes; most file systems allow 255, and 143 if names are encrypted
FORBIDDEN = '/\\:*?"<>|'  # in the name of a file on Windows or elsewhere
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}


def check_name(name: object) -> str:
    """The name of a run, which is also that of its folder.

    Raises:
        UserError: if it could not be the name of a folder on every system.
    """
    if not isinstance(name, str):
        reason = "is not a text"
    elif not name.isprintable() or any(letter in FORBIDDEN for letter in name):
        reason = f"contains one of {FORBIDDEN} or a character that cannot be printed"
    elif not name or name[0] in "-. " or name[-1] in ". ":
        reason = "is empty, begins with a hyphen, a dot or a space, or ends with a dot or a space"
    elif len(name.encode()) > LONGEST:
        reason = f"has {len(name.encode()):,} bytes, and at most {LONGEST} are possible"
    elif name.partition(".")[0].lower() in DEVICES:
        reason = "is the name of a device on Windows"
    else:
        return name
    raise UserError(
        f"Expected a name such as 'mnist_2d' for the run and its folder. Received {shown(name)}, which {reason}."
    )


def name_of_source(source: str) -> str:
    """The default name of a run on a dataset: its letters, digits and underscores."""
    try:
        return check_name(_words(source))
    except UserError:
        return distinct_name(source)


def distinct_name(text: str) -> str:
    """A short name for a text; two different texts have different names.

    It is the text itself where this is a plain name. Otherwise it is the end of the text, which is often the name of a
    file, and a part of the text's SHA-256.
    """
    words = _words(text)
    if words == text and len(text.encode()) <= LONGEST:
        return text
    end = words.encode()[-60:].decode(errors="ignore").strip("_")
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{end}-{digest}" if end else digest


def _words(text: str) -> str:
    return re.sub(r"\W+", "_", text).strip("_")
