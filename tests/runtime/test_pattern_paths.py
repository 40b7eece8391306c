"""Files and folders whose names look like patterns of paths, have spaces, or have letters beyond ASCII."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest
from exports import quick_parity
from PIL import Image
from slow_cases import slow
from small_models import SHAPE, tiny_built

import kvae
from kvae import export, runtime
from kvae.completion import masks
from kvae.data import open_source

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_xla")]

NAMES = ["run[1]", "{a} b é", *slow("run[!a]", "日本", "[", "a]")]
if os.name != "nt":  # Windows has no files of these names
    NAMES += ["all*", *slow("what?", "a\\b", "a:b")]


@pytest.fixture(params=NAMES)
def folder(request, tmp_path) -> Path:
    path = tmp_path / request.param
    path.mkdir()
    return path


def means(decoder, vae):
    z = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    np.testing.assert_allclose(decoder.decode(z).means, vae.likelihood.mean(vae.decode(z)), rtol=0, atol=1e-5)


def test_a_saved_model_opens(folder):
    vae = tiny_built()
    export.saved_model(vae, folder / "saved", export.DECODER)
    means(runtime.open_decoder(folder / "saved"), vae)


def test_a_saved_model_opens_and_not_that_of_a_folder_that_the_pattern_names(tmp_path):
    vae, other = tiny_built(seed=1), tiny_built(seed=2)
    export.saved_model(other, tmp_path / "run1", export.DECODER)
    for name in ("run[1]", "run?", "*"):
        if os.name == "nt" and not name.startswith("run["):
            continue
        export.saved_model(vae, tmp_path / name, export.DECODER)
        means(runtime.open_decoder(tmp_path / name), vae)


def test_a_tflite_file_opens(folder):
    vae = tiny_built()
    (folder / "decoder[1].tflite").write_bytes(export.convert(vae, ["float32"])["float32"])
    means(runtime.open_decoder(folder / "decoder[1].tflite"), vae)


@pytest.mark.parametrize("name", ["m[1].keras", "m.weights.h5", "m[1]"])
def test_a_model_and_its_weights_load(folder, name):
    vae, other = tiny_built(seed=1), tiny_built(seed=2)
    if name.endswith(".h5"):
        vae.save_weights(folder / name)
        other.load_weights(folder / name)
    else:
        vae.save(folder / name, zipped=name.endswith(".keras"))
        other = keras.saving.load_model(folder / name)
    assert os.listdir(folder) == [name]
    for ours, theirs in zip(vae.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["run[1]", *slow("{a} b é")])
def test_a_bundle_opens_and_its_claims_hold(tmp_path, name):
    vae = tiny_built()
    with quick_parity():
        export.bundle(vae, tmp_path / name, variants=["float32"])
        assert all(check.passed is not False for check in export.verify(tmp_path / name))
    for variant in ("float32", "saved_model"):
        means(kvae.load(tmp_path / name, variant=variant), vae)


def test_sources_of_data_are_read(folder, rng):
    pixels = rng.integers(2, 250, (12, 5, 5), np.uint8)
    np.savez(folder / "a[1].npz", x_train=pixels, x_test=pixels)
    lines = "\n".join(",".join(map(str, image.ravel())) for image in pixels)
    (folder / "a[1].csv").write_text(lines, encoding="utf-8")
    for part in ("train", "test"):
        (folder / "pictures" / part).mkdir(parents=True)
        for number, image in enumerate(pixels):
            Image.fromarray(image).save(folder / "pictures" / part / f"[{number:02}].png")
    sources = [f"npz:{folder}/a[1].npz", f"csv:{folder}/a[1].csv,{folder}/a[1].csv", f"images:{folder}/pictures"]
    for source in sources:
        np.testing.assert_array_equal(open_source(source).splits["train"].images[..., 0], pixels)
    data = kvae.data.load(sources[2], streaming=True, batch_size=4)
    assert next(iter(data.test)).shape == (4, 5, 5, 1)


def test_a_mask_is_read(folder):
    Image.fromarray(np.eye(6, 5, dtype=np.uint8) * 255).save(folder / "mask[1].png")
    assert masks.named(str(folder / "mask[1].png"), SHAPE).any()
