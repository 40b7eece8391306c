"""`kvae.training.encodings`: which images of a source are encoded, and the files with the result."""

import csv
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import kvae
from kvae.data import open_source
from kvae.internal.errors import UserError
from kvae.training import encodings, train_resume
from kvae.training.runs import Run
from kvae.training.train_resume import load_data


@pytest.fixture
def run(tiny_run) -> Run:
    return Run.open(tiny_run)


@pytest.fixture
def labelled(tmp_path) -> str:
    """A source of 9 + 4 images with labels, and of the size of the run's images."""
    rng = np.random.default_rng(1)
    arrays = {f"x_{part}": rng.integers(0, 256, (n, 6, 5), np.uint8) for part, n in (("train", 9), ("test", 4))}
    np.savez(tmp_path / "other.npz", **arrays, y_train=np.arange(9) % 3, y_test=np.array([5, 6, 7, 8]))
    return f"npz:{tmp_path / 'other.npz'}"


def test_the_images_are_those_of_the_split_as_the_model_sees_them(run, labelled):
    encoded = encodings.encode(run, labelled)
    with np.load(labelled.removeprefix("npz:")) as archive:
        x = (archive["x_test"][..., None] > 127.5).astype(np.float32)  # the run's threshold of 0.5
    np.testing.assert_allclose(encoded.posterior.mean, run.load_model().encode(x)[0], rtol=1e-5, atol=1e-6)
    assert encoded.labels.tolist() == [5, 6, 7, 8]
    assert (encoded.protocol["split"], encoded.protocol["images"]) == ("test", 4)
    assert encoded.protocol["binarization"] == "threshold 0.5"


def test_split_and_number_choose_the_images_and_batches_do_not_matter(run, labelled):
    whole = encodings.encode(run, labelled, split="train")
    first = encodings.encode(run, labelled, split="train", number=5, batch_size=2)
    assert len(whole.posterior.mean) == 9
    assert first.labels.tolist() == [0, 1, 2, 0, 1]
    np.testing.assert_allclose(first.posterior.mean, whole.posterior.mean[:5], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_all_splits_are_encoded_one_after_another(run, labelled, tmp_path):
    encoded, first = (encodings.encode(run, labelled, split="all", number=number) for number in (None, 11))
    apart = [encodings.encode(run, labelled, split=split) for split in ("train", "test")]
    np.testing.assert_allclose(
        encoded.posterior.mean, np.concatenate([each.posterior.mean for each in apart]), rtol=1e-5, atol=1e-6
    )
    assert encoded.places.tolist() == [*range(9), *range(4)]
    assert encoded.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 5, 6, 7, 8]
    assert encoded.protocol["split"] == "all"
    assert first.places.tolist() == [*range(9), 0, 1]
    for name in ("z.npz", "z.csv"):
        encodings.save(encoded, tmp_path / name)
    with np.load(tmp_path / "z.npz") as archive:
        assert archive["split"].tolist() == ["train"] * 9 + ["test"] * 4
    assert (tmp_path / "z.csv").read_text().splitlines()[10].startswith("0,test,5,")


class OfLabel(keras.layers.Layer):
    def call(self, x, condition):
        mean = tf.repeat(condition[:, None], 2, axis=1)
        return mean, tf.zeros_like(mean)


class ToImages(keras.layers.Layer):
    def call(self, z, condition):
        return tf.zeros((tf.shape(z)[0], 6, 5, 1))


def test_the_labels_are_the_condition_of_a_model_that_takes_one(run, labelled, monkeypatch):
    vae = kvae.VAE(encoder=OfLabel(), decoder=ToImages(), condition_shape=(), seed=0)
    vae.build((None, 6, 5, 1))
    monkeypatch.setattr(Run, "load_model", lambda _: vae)
    encoded = encodings.encode(run, labelled, split="all", batch_size=4)
    np.testing.assert_array_equal(encoded.posterior.mean, np.repeat(encoded.labels[:, None], 2, axis=1))
    with pytest.raises(UserError, match="Expected images with labels"):
        encodings.encode(run)


def test_the_default_are_the_run_s_own_test_images_which_have_no_labels(run, tmp_path):
    encoded = encodings.encode(run)
    assert encoded.posterior.mean.shape == (20, 3)
    assert encoded.labels is None
    encodings.save(encoded, tmp_path / "z.npz")
    with np.load(tmp_path / "z.npz") as archive:
        assert set(archive) == {"index", "mean", "variance", "protocol"}


def test_images_of_another_size_are_one_line(run, tmp_path):
    np.savez(tmp_path / "large.npz", x=np.zeros((30, 7, 5), np.uint8))
    with pytest.raises(UserError, match=r"Expected images of 6 x 5 x 1, .* Received images of 7 x 5 x 1"):
        encodings.encode(run, f"npz:{tmp_path / 'large.npz'}")


def test_npz_and_csv_have_the_same_numbers(run, labelled, tmp_path):
    encoded = encodings.encode(run, labelled)
    for name in ("z.npz", "z.CSV"):
        encodings.save(encoded, tmp_path / name)
    with np.load(tmp_path / "z.npz") as archive:
        arrays = dict(archive)
    assert json.loads(str(arrays["protocol"])) == encoded.protocol
    with (tmp_path / "z.CSV").open() as file:
        names, *rows = csv.reader(file)
    assert names == ["index", "label", *(f"{kind}_{d}" for kind in ("mean", "variance") for d in (1, 2, 3))]
    table = np.array(rows, np.float64).astype(np.float32)
    np.testing.assert_array_equal(table[:, 0], np.arange(4))
    np.testing.assert_array_equal(table[:, 1], arrays["label"])
    np.testing.assert_array_equal(table[:, 2:5], arrays["mean"])
    np.testing.assert_array_equal(table[:, 5:], arrays["variance"])


@pytest.mark.parametrize("streaming", [False, True])
def test_pictures_have_their_files_and_class_names_beside_their_numbers(streaming, run, tmp_path, monkeypatch):
    pixels = np.random.default_rng(2).integers(0, 256, (24, 6, 5), np.uint8)
    for number, image in enumerate(pixels):
        file = tmp_path / "pets" / ("cat" if number % 2 else "dog") / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    source = open_source(f"images:{tmp_path / 'pets'}", streaming)
    monkeypatch.setattr(train_resume, "load_data", lambda config: load_data(config, source))
    encoded = encodings.encode(run, source.name, split="all")
    for name in ("z.csv", "z.npz"):
        encodings.save(encoded, tmp_path / name)
    with (tmp_path / "z.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:5] == ["index", "file", "split", "label", "label_name"]
    assert {row["file"] for row in rows} == {f"{'cat' if n % 2 else 'dog'}/{n}.png" for n in range(24)}
    vae = run.load_model()
    for row in (rows[0], rows[-1]):
        assert row["label_name"] == ("cat", "dog")[int(row["label"])] == Path(row["file"]).parent.name
        x = (np.asarray(Image.open(tmp_path / "pets" / row["file"]))[None, ..., None] > 127.5).astype(np.float32)
        assert float(row["mean_1"]) == pytest.approx(float(vae.encode(x).mean[0, 0]), abs=1e-5)
    with np.load(tmp_path / "z.npz") as archive:
        assert archive["file"].tolist() == [row["file"] for row in rows]
        assert archive["label_names"].tolist() == ["cat", "dog"]


def test_an_existing_file_is_replaced_only_on_demand(run, labelled, tmp_path):
    encoded = encodings.encode(run, labelled)
    (tmp_path / "z.csv").write_text("mine")
    with pytest.raises(UserError, match=r"exists\. Replace it with --overwrite"):
        encodings.save(encoded, tmp_path / "z.csv")
    assert (tmp_path / "z.csv").read_text() == "mine"
    encodings.save(encoded, tmp_path / "z.csv", overwrite=True)
    assert (tmp_path / "z.csv").read_text().startswith("index,label")


@pytest.mark.parametrize("name", ["z", "z.txt", "z.npy"])
def test_another_suffix_is_refused(tmp_path, name):
    with pytest.raises(UserError, match=r"ends with \.npz or \.csv"):
        encodings.check_output(tmp_path / name, False)
