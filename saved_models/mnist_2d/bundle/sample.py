"""Draws images with the decoder in the folder of this file. It needs only numpy and ai-edge-litert, and not kvae.

    python sample.py -n 64 --seed 1 -o samples.png [--draws] [--model decoder_int8.tflite]

With the same options, the pixels of the picture are those of `kvae sample BUNDLE -n 64 --seed 1`. It shows the mean of
every pixel. With --draws, every pixel is drawn by itself, independently of its neighbours, so the images look noisy.
"""

import argparse
import hashlib
import json
import math
import os
import pathlib
import secrets
import struct
import sys
import zlib
from typing import NoReturn

import numpy as np
from ai_edge_litert.interpreter import Interpreter

MOST = 10_000  # the largest number of images in one picture
CHUNK = 256  # images per call, so that the memory does not depend on their number
LARGEST = 2**31 - 1  # bytes of a .tflite file
NAMES = ("decoder.tflite", "decoder_float16.tflite", "decoder_int8.tflite", "decoder_full_int8.tflite")


def mix(words: np.ndarray) -> np.ndarray:
    """The hash function of kvae's portable random numbers, uint32 -> uint32."""
    words = (words ^ (words >> np.uint32(16))) * np.uint32(0x7FEB352D)
    words = (words ^ (words >> np.uint32(15))) * np.uint32(0x846CA68B)
    return words ^ (words >> np.uint32(16))


def image_seeds(count: int, seed: int) -> np.ndarray:
    """One seed per image, [count] int32. Every int32 is a valid seed; these are the seeds that kvae uses."""
    golden = 0x9E3779B9
    key = mix(mix(np.array([seed ^ (5 * golden % 2**32)], np.uint32)))
    return mix((np.arange(count, dtype=np.int64) * golden % 2**32).astype(np.uint32) ^ key).view(np.int32)


def as_bytes(means: np.ndarray) -> np.ndarray:
    """Means, which are float32 in [0, 1], as uint8."""
    return np.rint(np.clip(means, 0, 1) * np.float32(255)).astype(np.uint8)


def layout(count: int, height: int, width: int) -> tuple[int, int]:
    """The number of columns, and of times that every pixel is repeated: the same as `kvae.runtime.sheet` has."""
    columns = min(count, 5) if count <= 10 else math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    longest = max(rows * (height + 1), columns * (width + 1)) - 1
    return columns, max(1, min(128 // max(height, width), 1200 // longest))


def sheet(images: np.ndarray) -> np.ndarray:
    """Images [n, H, W(, C)] uint8 in rows, one white pixel apart, enlarged: [height, width, C]."""
    images = images[..., None] if images.ndim == 3 else images
    count, height, width, channels = images.shape
    columns, enlargement = layout(count, height, width)
    rows = math.ceil(count / columns)
    cells = np.full((rows * columns, height + 1, width + 1, channels), 255, np.uint8)
    cells[:count, :height, :width] = images
    picture = cells.reshape(rows, columns, height + 1, width + 1, channels).swapaxes(1, 2)
    picture = picture.reshape(rows * (height + 1), columns * (width + 1), channels)[:-1, :-1]
    return picture.repeat(enlargement, axis=0).repeat(enlargement, axis=1)


def png(picture: np.ndarray) -> bytes:
    """The content of a PNG file of a picture [H, W, 1 or 3] uint8."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, channels = picture.shape
    if channels not in (1, 3):
        fail(f"expected images with 1 or 3 channels for a PNG file, the model has {channels}")
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    lines = b"".join(b"\0" + line.tobytes() for line in picture)  # 0 before each line: no filter
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def read(model: pathlib.Path) -> bytes:
    """The content of a .tflite file, which must have the SHA-256 that a model card beside it states."""
    try:
        if not model.is_file():
            fail(f"could not load {model}: it is {'not a file' if model.exists() else 'not there'}")
        if model.stat().st_size > LARGEST:
            fail(f"could not load {model}: it has more than {LARGEST} bytes")
        content = model.read_bytes()
        card = model.parent / "model_card.json"
        files = json.loads(card.read_bytes())["files"] if card.is_file() else {}
        stated = files.get(model.name, {}).get("sha256")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        fail(f"could not load {model}: {error}")
    if content[4:8] != b"TFL3" or stated not in (None, hashlib.sha256(content).hexdigest()):
        fail(f"could not load {model}: it is damaged, or not a .tflite file")
    if stated is None:
        print(
            f"sample.py: no model_card.json states the SHA-256 of {model.name}: damage is not noticed", file=sys.stderr
        )
    return content


def write(path: pathlib.Path, content: bytes) -> None:
    """Writes a file so that there is either the old one or all of the new one."""
    target = pathlib.Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        fail(f"could not write {path}: it is not a file")
    partial = target.with_name(f".partial-{secrets.token_hex(8)}")
    try:
        partial.write_bytes(content)
        os.replace(partial, target)
    except OSError as error:
        fail(f"could not write {path}: {error.strerror or error}")
    finally:
        partial.unlink(missing_ok=True)


def class_names(model: pathlib.Path) -> list[str]:
    """The names of the classes that a model card beside the decoder states, in lower case, or none."""
    try:
        card = json.loads((model.parent / "model_card.json").read_bytes())
        return [str(name).lower() for name in card["model"]["class_names"]]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def of_labels(text: str, classes: int, names: list[str]) -> np.ndarray:
    """The conditions of the classes in a text, one row each: a 1 for the class, and 0 for all others."""
    numbers = [str(number) for number in range(classes)]
    parts = [part.strip().lower() for part in text.split(",")]
    for part in parts:
        if part not in names and part not in numbers:
            fail(f"expected --label with a class from 0 to {classes - 1} or a name, received {part!r}")
    return np.eye(classes, dtype=np.float32)[[(names if part in names else numbers).index(part) for part in parts]]


def conditions(details: dict | None, text: str | None, labels: str | None, names: list[str]) -> dict[str, np.ndarray]:
    """The input `condition` of one or several images, [m, ...] float32, or no input if the model takes no condition."""
    if details is None:
        if text is not None or labels is not None:
            fail("expected no --condition and no --label, because this model takes none")
        return {}
    shape = tuple(int(side) for side in details["shape"][1:])
    if labels is not None and (text is not None or len(shape) != 1):
        fail("expected --label for a model of classes, and without --condition")
    if text is None and len(shape) == 1 and (labels is not None or names):
        labels = ",".join(map(str, range(shape[0]))) if labels is None else labels
        return {"condition": of_labels(labels, shape[0], names)}
    try:
        return {"condition": np.array([float(part) for part in (text or "").split(",")], np.float32).reshape(1, *shape)}
    except ValueError:
        fail(f"expected --condition with {math.prod(shape)} numbers, received {text!r}")


def fail(message: str) -> NoReturn:
    print(f"sample.py: {message}", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    about = (__doc__ or "").split("\n\n")
    parser = argparse.ArgumentParser(description=about[0], epilog=about[-1])
    parser.error = fail  # type: ignore[method-assign]
    parser.add_argument("-n", dest="count", type=int, default=10, help="the number of images")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the images, from 0 to 2147483647")
    parser.add_argument("-o", dest="output", type=pathlib.Path, default=pathlib.Path("samples.png"), help="a PNG file")
    parser.set_defaults(draws=False)
    parser.add_argument("--means", dest="draws", action="store_false", help="show the mean of every pixel: the default")
    parser.add_argument("--draws", action="store_true", help="show a draw of every pixel, which looks noisy")
    parser.add_argument(
        "--condition", help="the condition of all images, for a conditional model: numbers, as --condition=-0.5,1"
    )
    parser.add_argument(
        "--label", help="the classes of the images, taken in turn, for a model of classes: names or numbers"
    )
    parser.add_argument("--model", type=pathlib.Path, default=None, help="a .tflite file of this bundle")
    given = parser.parse_args()
    if not 1 <= given.count <= MOST:
        fail(f"expected -n from 1 to {MOST}, received {given.count}")
    if not 0 <= given.seed < 2**31:
        fail(f"expected --seed from 0 to {2**31 - 1}, received {given.seed}")
    folder = pathlib.Path(__file__).resolve().parent
    model = given.model or next((folder / name for name in NAMES if (folder / name).is_file()), folder / NAMES[0])
    content = read(model)
    try:
        draw = Interpreter(model_content=content).get_signature_runner("sample")
        details = draw.get_input_details().get("condition")
    except Exception as error:  # of a damaged file, the runtime raises errors of many types
        fail(f"could not load {model}: {' '.join(str(error).split())}")
    condition = conditions(details, given.condition, given.label, class_names(model))
    if len(draw.get_output_details()["images"]["shape"]) not in (3, 4):
        fail("expected a model of images [height, width] or [height, width, channels], received a model of vectors")
    seeds, images = image_seeds(given.count, given.seed), []
    for start in range(0, given.count, CHUNK):
        some = seeds[start : start + CHUNK]
        places = np.arange(start, start + len(some))
        try:
            drawn = draw(seed=some, **{name: value[places % len(value)] for name, value in condition.items()})
        except Exception as error:
            fail(f"could not draw with {model}: {' '.join(str(error).split())}")
        if not np.isfinite(drawn["means"]).all():
            fail(f"could not draw with {model}: its means are not finite numbers, so it is damaged or diverged")
        images.append(drawn["images"] if given.draws else as_bytes(drawn["means"]))
    write(given.output, png(sheet(np.concatenate(images))))
    print(given.output)


if __name__ == "__main__":
    main()
