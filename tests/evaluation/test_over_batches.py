"""`kvae.evaluation.over_batches`: a long evaluation goes on after an interruption, and nothing else is taken for it."""

import inspect
import json

import numpy as np
import pytest
from small_models import tiny

from kvae import evaluation
from kvae.evaluation import importance_weighted
from kvae.evaluation.evaluations import EVALUATIONS, results_of
from kvae.evaluation.over_batches import over_batches
from kvae.internal import progress_bars
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import tf
from kvae.training import runs

KEEPING = [name for name, each in EVALUATIONS.items() if "keep" in inspect.signature(each.function).parameters]


def built(**options):
    vae = tiny(seed=1, **options)
    vae.build((None, 2, 2, 1))
    return vae


@pytest.fixture
def vae():
    return built()


@pytest.fixture
def x(rng):
    return rng.integers(0, 2, (7, 2, 2, 1)).astype(np.float32)


class Means:
    """Means of pixels, and the indices of the images for which it was asked; it can be interrupted."""

    def __init__(self, end_at: int | None = None) -> None:
        self.asked: list[int] = []
        self.end_at = end_at

    def __call__(self, x, condition, index):
        if self.end_at in index:
            raise KeyboardInterrupt
        self.asked += index.numpy().tolist()
        return [np.mean(x, axis=(1, 2, 3)), index.numpy()[None]]


def run(compute, vae, x, folder, settings=(0,), title="means", size=2):
    return over_batches(compute, vae, x, title, settings, size=size, keep=folder)


def test_without_a_folder_nothing_is_kept(vae, x, tmp_path):
    mean, index = over_batches(Means(), vae, x, "means", [], size=2)
    np.testing.assert_array_equal(mean, x.mean(axis=(1, 2, 3)))
    np.testing.assert_array_equal(index, np.arange(7)[None])
    assert not list(tmp_path.iterdir())


def test_after_an_interruption_only_the_rest_is_computed(vae, x, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(Means(end_at=4), vae, x, tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 2  # files of 2 images, and none that is not whole
    rest = Means()
    mean, index = run(rest, vae, x, tmp_path / "kept")
    assert rest.asked == [4, 5, 6]
    np.testing.assert_array_equal(mean, x.mean(axis=(1, 2, 3)))
    np.testing.assert_array_equal(index, np.arange(7)[None])


@pytest.mark.parametrize("changed", ["model", "weights", "images", "order", "settings", "title", "version"])
def test_what_depends_on_something_else_is_computed_again(vae, x, tmp_path, monkeypatch, changed):
    run(Means(), vae, x, tmp_path)
    settings, title = (0,), "means"
    if changed == "model":
        weights, vae = vae.get_weights(), built(beta=2.0)
        vae.set_weights(weights)
    elif changed == "weights":
        vae.set_weights([weight + 1 for weight in vae.get_weights()])
    elif changed in ("images", "order"):
        x = 1 - x if changed == "images" else x[::-1]
    elif changed == "settings":
        settings = (1,)
    elif changed == "title":
        title = "other means"
    else:
        monkeypatch.setattr("kvae.evaluation.over_batches.__version__", "0.0.0")
    means = Means()
    mean, _ = run(means, vae, x, tmp_path, settings, title)
    assert means.asked == list(range(7))
    np.testing.assert_array_equal(mean, x.mean(axis=(1, 2, 3)))


@pytest.mark.parametrize("damage", [lambda file: file.write_bytes(b""), lambda file: file.write_bytes(b"PK\3\4 no")])
def test_a_damaged_file_is_computed_again(vae, x, tmp_path, damage):
    run(Means(), vae, x, tmp_path, size=7)
    (file,) = tmp_path.iterdir()
    damage(file)
    means = Means()
    run(means, vae, x, tmp_path, size=7)
    assert means.asked == list(range(7))


def test_a_part_of_a_file_is_computed_again(vae, x, tmp_path):
    run(Means(), vae, x, tmp_path, size=7)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for length in range(0, len(whole), 40):
        file.write_bytes(whole[:length])
        means = Means()
        run(means, vae, x, tmp_path, size=7)
        assert means.asked == list(range(7))
        assert file.read_bytes() == whole


def test_a_folder_that_cannot_be_is_refused_before_the_work(vae, x, tmp_path):
    (tmp_path / "file").touch()
    means = Means()
    with pytest.raises(UserError, match="file"):
        run(means, vae, x, tmp_path / "file" / "kept")
    assert not means.asked


@pytest.mark.parametrize("batch", [None, 1, 2, 3, 7])
@pytest.mark.parametrize("images", [1, 3, 6, 7, 8])
def test_of_the_first_images_alone(vae, x, images, batch):
    data = x if batch is None else tf.data.Dataset.from_tensor_slices(x).batch(batch)
    means = Means()
    mean, index = over_batches(means, vae, data, "means", [], size=2, images=images)
    assert means.asked == list(range(min(images, 7)))
    np.testing.assert_array_equal(mean, x[:images].mean(axis=(1, 2, 3)))
    np.testing.assert_array_equal(index, np.arange(min(images, 7))[None])


@pytest.mark.parametrize("images", [None, 5])
def test_its_lines_say_how_far_it_is(vae, x, images, capsys, monkeypatch):
    monkeypatch.setattr(progress_bars, "SECONDS", 0.0)
    over_batches(Means(), vae, x, "means", [], size=2, images=images, verbose=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == ("means: 1 of 1 batches" if images is None else "means: 5 of 5 images")


@pytest.mark.slow
@pytest.mark.parametrize("name", KEEPING)
def test_kept_results_are_those_of_the_evaluation(x, tmp_path, name):
    conditional = name == "classification"
    vae = built(condition=3) if conditional else built()
    data = (x, np.arange(7) % 3) if conditional else x
    few = {"temperatures": 5, "chains": 2, "samples": 100, "sample_sizes": (1, 5), "steps": 3}
    parameters = inspect.signature(EVALUATIONS[name].function).parameters
    options = {key: value for key, value in few.items() if key in parameters}
    alone, first, again = (
        results_of(name, vae, data, keep=folder, **options) for folder in (None, tmp_path / "kept", tmp_path / "kept")
    )
    assert list((tmp_path / "kept").iterdir())
    for key, value in alone.items():
        np.testing.assert_equal(first[key], value)
        np.testing.assert_equal(again[key], value)


def test_an_interrupted_command_continues_and_leaves_nothing(call, tiny_run, monkeypatch):
    arguments = ("evaluate", tiny_run, "--only", "bounds,elbo", "--quiet")
    status, expected, _ = call(*arguments, "--json")
    assert status == 0
    before = (tiny_run / "evaluation.json").read_bytes()
    computed, compute = [], importance_weighted.weights_of_batch

    def interrupted(vae, x, condition, index, *others):
        if computed:
            raise KeyboardInterrupt
        computed.append(index.numpy())
        return compute(vae, x, condition, index, *others)

    with monkeypatch.context() as patch:
        patch.setattr(importance_weighted, "weights_of_batch", interrupted)
        status, out, err = call(*arguments)
    assert (status, out) == (130, "")
    assert err == f"Interrupted. To continue: kvae evaluate {tiny_run} --only bounds,elbo --quiet\n"
    assert len(list((tiny_run / "unfinished").iterdir())) == len(computed) == 1
    assert (tiny_run / "evaluation.json").read_bytes() == before

    def counting(vae, x, condition, index, *others):
        computed.append(index.numpy())
        return compute(vae, x, condition, index, *others)

    monkeypatch.setattr(importance_weighted, "weights_of_batch", counting)
    status, out, _ = call(*arguments, "--json")
    assert status == 0
    assert json.loads(out) == json.loads(expected)
    np.testing.assert_array_equal(np.concatenate(computed), np.arange(20))
    assert not (tiny_run / "unfinished").exists()


def test_a_run_with_an_unfinished_evaluation_has_no_foreign_files(tiny_run):
    vae = runs.Run.open(tiny_run).load_model()
    evaluation.log_likelihood(vae, np.zeros([3, 6, 5, 1], np.float32), samples=2, keep=tiny_run / "unfinished")
    assert runs.strangers(tiny_run) == []
