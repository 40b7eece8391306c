"""The table of everything in kvae that reads files. A new reader is an entry with a valid input and a function."""

import functools
import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fuzzing import mutations as change
from fuzzing.worker import Reader
from PIL import Image

from kvae.internal import picture_files

ROOT = Path(__file__).parents[2]
RUN = ROOT / "tests" / "fixtures" / "before_0_2"  # small runs
SIZE = (6, 5)  # width and height of the pictures


def _pixels(count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIZE[1], SIZE[0]), np.uint8)


# --- data


def _make_csv(folder: Path) -> None:
    rows = "\n".join(",".join(map(str, [label, *image.ravel()[:25]])) for label, image in enumerate(_pixels()))
    header = ",".join(["label", *(f"pixel{column}" for column in range(25))])
    (folder / "a.csv").write_text(f"{header}\n{rows}\n")
    (folder / "b.csv").write_text(rows)
    (folder / "c.csv.gz").write_bytes(gzip.compress(rows.encode()))


def _read_csv(folder: Path) -> None:
    from kvae.data.sources.csv import read_csv

    errors = []
    for name in ("a.csv", "b.csv", "c.csv.gz"):
        try:
            _check_split(read_csv(folder / name))
        except ValueError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _make_idx(folder: Path) -> None:
    for part, suffix in (("train", ""), ("t10k", ".gz")):
        for kind, array in (("images-idx3", _pixels()), ("labels-idx1", np.arange(4, dtype=np.uint8))):
            content = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
            path = folder / f"{part}-{kind}-ubyte{suffix}"
            path.write_bytes(gzip.compress(content) if suffix else content)


def _make_npz(folder: Path) -> None:
    np.savez(folder / "a.npz", x_train=_pixels(), y_train=np.arange(4), x_test=_pixels().astype(np.float32))


def _opened(kind: str, place: str = "") -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        from kvae.data import open_source

        for split in open_source(f"{kind}:{folder / place}").splits.values():
            _check_split(split)

    return read


def _check_split(split: Any) -> None:
    assert split.images.dtype == np.uint8
    assert split.images.shape == (split.count, *split.image_shape)
    assert split.labels is None or split.labels.shape == (split.count,)


# --- pictures

# The orientation 3, as the only entry.
EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0\0\0\0\0"
OPTIONS: dict[str, dict[str, dict[str, Any]]] = {  # variants of the formats: by name, options of Pillow
    "PNG": {"a": {}, "b": {"compress_level": 0}},
    "JPEG": {"a": {}, "b": {"progressive": True}, "c": {"exif": EXIF}},
    "BMP": {"a": {}},
    "GIF": {"a": {}},
    "TIFF": {name: {"compression": name} for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")},
    "WEBP": {"a": {"lossless": True}, "b": {}},
}


def _make_pictures(format: str, folder: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
    for name, options in OPTIONS[format].items():
        Image.fromarray(colour).save(folder / f"{name}.png", format, **options)


def _read_pictures(folder: Path) -> None:
    from kvae.data.sources.images import COLOUR_MODES

    for path in folder.glob("*.png"):
        picture_files.header(path)
        image = picture_files.read(path, COLOUR_MODES)
        assert image.mode in ("L", "RGB")
        assert image.width * image.height <= picture_files.PIXELS


def _pictures(format: str) -> Reader:
    mutations = [change.some_bytes, change.start_of(64), *([change.png_chunk] * 2 if format == "PNG" else [])]
    files = [f"{name}.png" for name in OPTIONS[format]]
    return Reader(functools.partial(_make_pictures, format), files, _read_pictures, mutations)


def _make_folder(folder: Path) -> None:
    """Folders of pictures with classes, in formats that can be streamed."""
    for part in ("train", "test"):
        for label, (suffix, options) in {"a": ("png", {}), "b": ("jpg", {"quality": 90})}.items():
            (folder / part / label).mkdir(parents=True)
            Image.fromarray(_pixels(1)[0]).save(folder / part / label / f"x.{suffix}", **options)


def _read_stream(folder: Path) -> None:
    from kvae.data import open_source

    for split in open_source(f"images:{folder}", streaming=True).splits.values():
        split.check(0, split.count)  # decodes every picture as the stream does


def _make_masks(folder: Path) -> None:
    white = (_pixels(1)[0] > 127).astype(np.uint8) * 255
    Image.fromarray(white).save(folder / "a.png")
    Image.fromarray(white).save(folder / "b.gif")
    Image.fromarray(white.astype(np.uint16) * 257).save(folder / "c.png")
    Image.fromarray(white.astype(np.float32)).save(folder / "d.tif")
    Image.fromarray(white).save(folder / "e.tif", compression="tiff_lzw")


def _read_masks(folder: Path) -> None:
    from kvae.completion import masks

    for path in folder.iterdir():
        assert masks.named(str(path), (SIZE[1], SIZE[0], 1)).shape == (SIZE[1], SIZE[0], 1)


# --- recipes and settings


def _make_recipe(folder: Path) -> None:
    shutil.copy(ROOT / "kvae" / "training" / "recipes" / "flux_vae.toml", folder / "recipe.toml")


def _read_recipe(folder: Path) -> None:
    from kvae.training.build import make_parts, resolved
    from kvae.training.config import RunConfig, load_values

    make_parts(resolved(RunConfig.from_dict(load_values(str(folder / "recipe.toml")))))


def _make_settings(folder: Path) -> None:
    settings = ("model.beta=1.5", "model.prior='mixture'", "model.prior.components=10", "data.streaming=true")
    settings += ("training.learning_rate=1e-3", "name='a'", "model.hidden_units=[200, 200]", "seed=1")
    for number, setting in enumerate(settings):
        (folder / f"{number}").write_text(setting)


def _read_settings(folder: Path) -> None:
    from kvae.training.config import RunConfig, override, parse_setting

    settings = [path.read_bytes().decode("utf-8", "surrogateescape") for path in sorted(folder.iterdir())]
    RunConfig.from_dict(override({}, dict(map(parse_setting, settings))))


# --- files that kvae wrote


def _make_run(folder: Path) -> None:
    for name in ("config.json", "history.csv", "evaluation.json"):
        shutil.copy(RUN / "finished" / name, folder)
    shutil.copytree(RUN / "early_stopped" / "checkpoint" / "epoch-000005", folder / "checkpoint" / "epoch-000005")


def _read_config(folder: Path) -> None:
    from kvae.training.runs import Run

    Run.open(folder)


def _read_evaluation(folder: Path) -> None:
    from kvae.training.runs import read_evaluation

    read_evaluation(folder / "evaluation.json")


def _read_state(folder: Path) -> None:
    """Reads a checkpoint without its model, which has an entry of its own and would take most of the time."""
    from kvae.training import checkpoints

    checkpoints.read_state(folder / "checkpoint" / "epoch-000005")


def _read_history(folder: Path) -> None:
    from kvae.training import history

    history.read(folder / "history.csv")


# --- models and decoders


@functools.cache
def _model() -> Any:
    import kvae

    vae = kvae.VAE(latent_dim=2, hidden_units=(8,), seed=0)
    vae.build((None, SIZE[1], SIZE[0], 1))
    return vae


def _make_keras(folder: Path) -> None:
    _model().save(folder / "model.keras")


def _read_keras(folder: Path) -> None:
    import kvae.runtime

    kvae.runtime.load(folder / "model.keras")  # a drawing would take a second, because each model is compiled


def _make_tflite(folder: Path) -> None:
    from kvae import export

    (folder / "decoder.tflite").write_bytes(export.convert(_model(), ["float32"])["float32"])


def _read_tflite(folder: Path) -> None:
    """Without the trial in a process of its own: the check of the structure alone must keep LiteRT from crashing."""
    import kvae.runtime

    _check_decoder(kvae.runtime.open_decoder(folder / "decoder.tflite"))


def _try_tflite(folder: Path) -> None:
    import kvae.runtime

    _check_decoder(kvae.runtime.load(folder / "decoder.tflite"))


def _make_page(folder: Path) -> None:
    from kvae.export import web

    (folder / "index.html").write_text(web.page(_model(), "web_int8", web.About()), encoding="utf-8")


def _read_page(folder: Path) -> None:
    import kvae.runtime

    _check_decoder(kvae.runtime.load(folder / "index.html"))


def _check_decoder(decoder: Any) -> None:
    import kvae.runtime

    drawn = decoder.sample(kvae.runtime.seeds(2, seed=1))
    assert np.isfinite(drawn.means).all(), "the means are not finite"
    assert drawn.images.shape == (2, *decoder.image_shape)
    assert drawn.z.shape == (2, decoder.latent_dim)


def _make_bundle(folder: Path) -> None:
    """A bundle with the decoder and the card of a model that is part of kvae."""
    source = ROOT / "saved_models" / "mnist_10d" / "bundle"
    for name in ("model_card.json", "decoder_int8.tflite"):
        shutil.copy(source / name, folder)


def _read_bundle(folder: Path) -> None:
    import kvae.runtime

    _check_decoder(kvae.runtime.load(folder, "int8"))


JSON = (change.tree, change.tree, change.tree, change.text, change.some_bytes)
KERAS = change.inside_zip({".json": change.tree, ".h5": change.some_bytes})
NPZ = change.inside_zip({".npy": change.start_of(128)})

READERS: dict[str, Reader] = {
    "csv": Reader(
        _make_csv,
        ["a.csv", "b.csv", "c.csv.gz"],
        _read_csv,
        [change.some_bytes, change.text, change.inside_gzip(change.text)],
    ),
    "idx": Reader(
        _make_idx,
        [f"{part}-ubyte{suffix}" for part in ("train-images-idx3", "train-labels-idx1") for suffix in ("",)]
        + ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"],
        _opened("idx"),
        [change.some_bytes, change.start_of(16), change.inside_gzip(change.start_of(16))],
    ),
    "npz": Reader(_make_npz, ["a.npz"], _opened("npz", "a.npz"), [change.some_bytes, NPZ, NPZ]),
    **{format.lower(): _pictures(format) for format in picture_files.FORMATS},
    "masks": Reader(
        _make_masks,
        ["a.png", "b.gif", "c.png", "d.tif", "e.tif"],
        _read_masks,
        [change.some_bytes, change.start_of(64), change.png_chunk],
    ),
    "images": Reader(
        _make_folder,
        [f"{part}/{name}" for part in ("train", "test") for name in ("a/x.png", "b/x.jpg")],
        _opened("images"),
        [change.some_bytes, change.png_chunk],
    ),
    "stream": Reader(
        _make_folder,
        [f"{part}/{name}" for part in ("train", "test") for name in ("a/x.png", "b/x.jpg")],
        _read_stream,
        [change.some_bytes, change.png_chunk],
        share=0.5,
    ),
    "recipes": Reader(_make_recipe, ["recipe.toml"], _read_recipe, [change.text, change.text, change.some_bytes]),
    "--set": Reader(
        _make_settings, [str(number) for number in range(8)], _read_settings, [change.text, change.some_bytes]
    ),
    "config.json": Reader(_make_run, ["config.json"], _read_config, JSON),
    "evaluation.json": Reader(_make_run, ["evaluation.json"], _read_evaluation, JSON),
    "state.json": Reader(_make_run, ["checkpoint/epoch-000005/state.json"], _read_state, JSON),
    "history.csv": Reader(_make_run, ["history.csv"], _read_history, [change.text, change.some_bytes]),
    "model_card.json": Reader(_make_bundle, ["model_card.json"], _read_bundle, JSON),
    ".tflite": Reader(
        _make_tflite,
        ["decoder.tflite"],
        _read_tflite,
        [change.flip, change.number, change.some_bytes],
    ),
    ".tflite, tried": Reader(
        _make_tflite,
        ["decoder.tflite"],
        _try_tflite,
        [change.flip, change.number, change.some_bytes],
        share=0.05,  # a file whose structure is sound is tried in a process of its own
        processes=True,
    ),
    ".html": Reader(
        _make_page,
        ["index.html"],
        _read_page,
        [
            change.inside_page(change.tree),
            change.inside_page(change.tree),
            change.inside_page(change.text),
            change.text,
        ],
        share=0.5,
    ),
    ".keras": Reader(_make_keras, ["model.keras"], _read_keras, [KERAS, KERAS, KERAS, change.some_bytes], share=0.1),
}
