"""JSON files with a digest of their own content, by which damage is noticed.

The digest is for files that kvae writes and reads back, and that people do not edit. It detects damage and accidental
changes. It does not detect forgery, because whoever changes the content on purpose can compute the digest as well.
"""

import hashlib
import json
import os
import warnings
from typing import Any

from kvae.internal import files
from kvae.internal.errors import KvaeWarning, UserError, stacklevel_of_user

DIGEST = "sha256"  # the key of the digest


def digest_of(content: dict[str, Any]) -> str:
    """SHA-256 of the content of a JSON object without its own digest, whatever the order of its keys."""
    rest = {name: value for name, value in content.items() if name != DIGEST}
    as_read = json.loads(json.dumps(rest, allow_nan=False))  # keys are texts there, also numbers
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()


def seal(content: dict[str, Any]) -> dict[str, Any]:
    """The same content with its digest, as the last entry."""
    rest = {name: value for name, value in content.items() if name != DIGEST}
    return {**rest, DIGEST: digest_of(rest)}


def write(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Writes a JSON object with its digest, atomically.

    Raises:
        ValueError: if the content has NaN or infinity, which JSON does not have.
    """
    files.write_json(path, seal(content))


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a JSON object that `write` wrote, and checks its digest.

    Returns:
        The content without the digest.

    Raises:
        UserError: if the file cannot be read, is no JSON object, or differs from what was written.

    Warns:
        KvaeWarning: if the file has no digest, because a version of kvae before 0.3 wrote it.
    """
    content = files.read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"Expected a JSON object in {os.fspath(path)}. Received a {type(content).__name__}.")
    stated = content.pop(DIGEST, None)
    if stated is None and _has_digest_of_another_name(content):
        stated = ""
    if stated is None:
        message = (
            f"{os.fspath(path)} has no digest, a checksum of its content, because an earlier version of kvae wrote it. "
            "It is read, but damage to it would not be noticed."
        )
        warnings.warn(message, KvaeWarning, stacklevel=stacklevel_of_user())
    elif stated != digest_of(content):
        raise UserError(f"{os.fspath(path)} is not the file that kvae wrote: it was damaged or changed by hand.")
    return content


def _has_digest_of_another_name(content: dict[str, Any]) -> bool:
    """Whether the last entry is the digest of the others, so that only its name was damaged."""
    *others, last = content.items() if content else [("", None)]
    return last[1] == digest_of(dict(others))
