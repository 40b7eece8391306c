"""Changes of the content of files, which a random generator chooses: of any bytes, and of those of a known structure.

A mutation is a function of (generator, content) that returns the changed content. It may fail if the content does not
have the structure that it expects; `mutate` then changes bytes.
"""

import io
import json
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from kvae.internal import sealed

Mutation = Callable[[random.Random, bytes], bytes]
LARGEST = 2**22  # bytes: larger results are cut
NUMBERS = (0, 1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1)
WORDS = (
    *(b"", b" ", b"\0", b"\n", b"\r\n", b",", b'"', b"'", b"=", b"[", b"]", b"{", b"}", b"#", b"\\", b"..", b"/", b"%"),
    *(
        b"-1",
        b"0",
        b"1e309",
        b"-1e309",
        b"1e-400",
        b"nan",
        b"NaN",
        b"inf",
        b"Infinity",
        b"null",
        b"true",
        b"0x7f",
        b"1_0",
    ),
    *(
        b"9" * 25,
        b"9" * 5000,
        b"a" * 20_000,
        b"[" * 20_000,
        b'{"a":' * 3000,
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\x1b[31m",
        "é\u2028".encode(),
    ),
    *(b"../x", b"/etc/passwd", b"$x^$", b"[/x]", b"__class__", b"module:Class", b"label", b"pixel0"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, -5, 2.5, 10**9, 2**31, 2**63, 2**64, -(2**63), 10**30, 1e300, -1e300, 1e-300),
    *(
        float("nan"),
        float("inf"),
        "",
        "a",
        "\0",
        "\n",
        "../x",
        "/etc/passwd",
        "nan",
        "é\u2028",
        "x" * 20_000,
        "module:Class",
    ),
    *([], {}, [[]], [1, 2], ["a"], {"a": 1}, {"kind": "a"}, {"kind": None}, [None], [float("nan")]),
)


def mutate(generator: random.Random, content: bytes, mutations: Sequence[Mutation]) -> bytes:
    """The content after one of the mutations, which is tried again as a change of bytes where it cannot be made."""
    try:
        changed = generator.choice(mutations)(generator, content)
    except (ValueError, KeyError, IndexError, struct.error, zlib.error, zipfile.BadZipFile, RecursionError):
        changed = some_bytes(generator, content)
    return changed[:LARGEST]


# --- any bytes


def some_bytes(generator: random.Random, content: bytes) -> bytes:
    """One to three changes of bytes, of any kind."""
    for _ in range(generator.choice((1, 1, 2, 3))):
        content = generator.choice(BYTES)(generator, content)
    return content


def _span(generator: random.Random, content: bytes) -> tuple[int, int]:
    """The start and stop of a part of the content, which is usually short."""
    start = generator.randrange(len(content) + 1)
    return start, min(len(content), start + generator.choice((1, 1, 2, 4, 8, 16, 100, 1000)))


def flip(generator: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(generator.choice((1, 1, 1, 2, 4, 16)) if content else 0):
        changed[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    return bytes(changed)


def overwrite(generator: random.Random, content: bytes) -> bytes:
    start, stop = _span(generator, content)
    fill = generator.choice((bytes(stop - start), b"\xff" * (stop - start), generator.randbytes(stop - start)))
    return content[:start] + fill + content[stop:]


def truncate(generator: random.Random, content: bytes) -> bytes:
    return content[: generator.randrange(len(content) + 1)]


def insert(generator: random.Random, content: bytes) -> bytes:
    start, stop = _span(generator, content)
    return (
        content[:start]
        + generator.choice((generator.randbytes(stop - start), generator.choice(WORDS)))
        + content[start:]
    )


def delete(generator: random.Random, content: bytes) -> bytes:
    start, stop = _span(generator, content)
    return content[:start] + content[stop:]


def repeat(generator: random.Random, content: bytes) -> bytes:
    start, stop = _span(generator, content)
    return content[:start] + content[start:stop] * generator.choice((2, 3, 100)) + content[stop:]


def swap(generator: random.Random, content: bytes) -> bytes:
    (start, stop), (other, end) = sorted((_span(generator, content), _span(generator, content)))
    stop = min(stop, other)
    return content[:start] + content[other:end] + content[stop:other] + content[start:stop] + content[end:]


def number(generator: random.Random, content: bytes) -> bytes:
    """An extreme whole number in 1, 2, 4 or 8 bytes, at a multiple of its size, in either order."""
    size = generator.choice((1, 2, 4, 4, 8))
    if len(content) < size:
        return insert(generator, content)
    place = generator.randrange(len(content) // size) * size
    value = (generator.choice(NUMBERS) + generator.choice((0, 0, 1, -1))) % 256**size
    return content[:place] + value.to_bytes(size, generator.choice(("little", "big"))) + content[place + size :]


BYTES: tuple[Mutation, ...] = (flip, overwrite, truncate, insert, delete, repeat, swap, number)


def start_of(length: int) -> Mutation:
    """A change of the first bytes alone, where formats have their headers."""

    def change(generator: random.Random, content: bytes) -> bytes:
        changed = generator.choice((flip, overwrite, number))(generator, content[:length])
        return changed + content[length:]

    return change


# --- text


def text(generator: random.Random, content: bytes) -> bytes:
    """Another number or word in the place of one, or another order of the lines."""
    if generator.random() < 0.2:
        lines = content.split(b"\n")
        chosen = generator.randrange(len(lines))
        lines[chosen : chosen + 1] = generator.choice(([], [lines[chosen]] * 2, [generator.choice(lines)]))
        return b"\n".join(lines)
    tokens = list(re.finditer(rb"[\w.+-]+|[^\w\s]", content))
    token = generator.choice(tokens)
    return content[: token.start()] + generator.choice(WORDS) + content[token.end() :]


def tree(generator: random.Random, content: bytes) -> bytes:
    """JSON with another value, another key, or without an entry. The digest of a sealed file is that of the result."""
    root = json.loads(content)
    nodes = [(root, key) for key in root]
    for parent, key in nodes:  # grows while it is gone through
        inner = parent[key]
        if isinstance(inner, dict | list):
            nodes.extend((inner, each) for each in (inner if isinstance(inner, dict) else range(len(inner))))
    parent, key = generator.choice(nodes)
    action = generator.randrange(6)
    if action == 0:
        del parent[key]
    elif action == 1 and isinstance(parent, dict):
        parent[generator.choice(("", "a", "__class__", "../x", "kind"))] = parent.pop(key)
    elif action == 2 and isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
        parent[key] = generator.choice((-parent[key], parent[key] + 1, parent[key] * 10**6, parent[key] / 3))
    elif action == 3:
        parent[key] = generator.choice(nodes)[0]
    else:
        parent[key] = generator.choice(VALUES)
    if isinstance(root, dict) and sealed.DIGEST in root and generator.random() < 0.8:
        with suppress(ValueError, TypeError):
            root = sealed.seal(root)
    return json.dumps(root).encode()


# --- containers: what they hold is changed, so that the change gets past their checksums


def inside_gzip(mutation: Mutation) -> Mutation:
    def change(generator: random.Random, content: bytes) -> bytes:
        packed = zlib.compressobj(1, wbits=31)
        return packed.compress(mutation(generator, zlib.decompress(content, wbits=31))) + packed.flush()

    return change


def inside_page(mutation: Mutation) -> Mutation:
    """A change of the description of the model in a web page."""

    def change(generator: random.Random, content: bytes) -> bytes:
        before, mark, rest = content.partition(b'id="model">')
        description, end, after = rest.partition(b"</script>")
        return before + mark + mutation(generator, description) + end + after

    return change


def inside_zip(mutations: dict[str, Mutation]) -> Mutation:
    """A change of a member of a zip archive, by the end of its name, or of its name, or without it."""

    def change(generator: random.Random, content: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        name = generator.choice(sorted(members))
        action = generator.random()
        if action < 0.1:
            members[generator.choice(("a", "../x", "/x", name.upper()))] = members.pop(name)
        elif action < 0.15:
            del members[name]
        else:
            mutation = next((each for end, each in mutations.items() if name.endswith(end)), some_bytes)
            members[name] = mutation(generator, members[name])
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", generator.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
            for each, data in members.items():
                archive.writestr(each, data)
        return file.getvalue()

    return change


def png_chunk(generator: random.Random, content: bytes) -> bytes:
    """A change of a chunk of a PNG file, whose checksum is that of the result."""
    chunks, place = [], 8
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    chosen = generator.randrange(len(chunks))
    kind, data = chunks[chosen]
    action = generator.randrange(6)
    if action == 0:
        chunks[chosen : chosen + 1] = generator.choice(([], [chunks[chosen]] * 2, [generator.choice(chunks)]))
    elif action == 1:
        kinds = (b"IHDR", b"PLTE", b"tRNS", b"zTXt", b"iCCP", b"eXIf", b"acTL", b"fdAT", b"IDAT", b"aaaa", kind.lower())
        chunks.insert(chosen, (generator.choice(kinds), generator.randbytes(generator.randrange(40))))
    elif action == 2 and kind == b"IDAT":
        chunks[chosen] = (kind, zlib.compress(some_bytes(generator, zlib.decompress(data))))
    elif action == 3:
        chunks[chosen] = (kind, zlib.compress(bytes(2**21)))
    else:
        chunks[chosen] = (kind, some_bytes(generator, data))
    parts = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return content[:8] + b"".join(parts)
