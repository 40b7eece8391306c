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
    if not isinstance(name, str) or (fault := _fault(name)):
        raise UserError(
            f"Expected a name such as 'mnist_2d' for the run and its folder. Received {shown(name)}, which "
            f"{fault if isinstance(name, str) else 'is not a text'}."
        )
    return name


def _fault(name: str) -> str:
    """Why a text is no name, or an empty text if it is one."""
    if not name.isprintable() or any(letter in FORBIDDEN for letter in name):
        return f"contains one of {FORBIDDEN} or a character that cannot be printed"
    if not name or name[0] in "-. " or name[-1] in ". ":
        return "is empty, begins with a hyphen, a dot or a space, or ends with a dot or a space"
    if (size := len(name.encode())) > LONGEST:
        return f"has {size:,} bytes, and at most {LONGEST} are possible"
    return "is the name of a device on Windows" if name.partition(".")[0].lower() in DEVICES else ""


def name_of_source(source: str) -> str:
    """The default name of a run on a dataset: its letters, digits and underscores, if these are a name."""
    words = _words(source)
    return distinct_name(source) if _fault(words) else words


def distinct_name(text: str) -> str:
    """A short name for a text; two different texts have different names.

    It is the text itself where this is a plain name. Otherwise it is the end of the text, which is often the name of a
    file, and a part of the text's SHA-256.
    """
    words = _words(text)
    if words == text and not _fault(text):
        return text
    end = words.encode()[-60:].decode(errors="ignore").strip("_")
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{end}-{digest}" if end else digest


def _words(text: str) -> str:
    return re.sub(r"\W+", "_", text).strip("_")
