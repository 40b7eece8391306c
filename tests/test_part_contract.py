"""What every part must do: each objective, prior, posterior, likelihood and network that has a name in kvae's tables.

A part that is added to its table is tested here with its default options, beside the default parts of the other kinds:
`python -m pytest -n0 -m "" tests/test_part_contract.py -k PART`; by default only the default parts are, and in
CI all parts.
With KVAE_EVERY_COMBINATION=1 all combinations are tested too, which takes hours.
"""

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from fit_paths import recorded_paths
from part_cases import (
    cases,
    eagerly,
    export_in_another_process,
    is_named,
    refused,
    settings_of,
    source_of_images,
    trained,
    values_of,
)

from kvae import completion, runtime, training
from kvae.model.priors import StandardNormal
from kvae.training import build
from kvae.training.config import RunConfig
from kvae.training.runs import Run

pytestmark = [
    pytest.mark.usefixtures("without_xla"),  # many models, of which XLA is not what is tested
    pytest.mark.filterwarnings("ignore:The model has collapsed"),  # as it may have, in so short a training
    pytest.mark.filterwarnings("ignore:Even though the `tf.config:UserWarning"),  # tf.data compiles what is eager here
]
PARTS = ("encoder", "decoder", "likelihood", "prior", "posterior", "objective")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return source_of_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module", params=cases())
def parts(request):
    return request.param


@pytest.fixture(scope="module")
def values(parts, source):
    return values_of(parts, source)


@pytest.fixture(scope="module")
def compiled(values, tmp_path_factory):
    """The run that a user has: its folder, its model, and which path each call of compiled steps took."""
    with recorded_paths() as paths:
        run, vae, _ = trained(values, tmp_path_factory.mktemp("compiled"))
    return run, vae, paths


@pytest.fixture(scope="module")
def ordinary(values, tmp_path_factory):
    """The same run, of which nothing is compiled, and its folder after the first epoch."""
    with eagerly():
        run, _, interrupted = trained(values, tmp_path_factory.mktemp("ordinary"))
    return run, interrupted


@pytest.mark.every_case
@pytest.mark.slow
def test_fit_takes_the_fast_path(compiled):
    run, vae, paths = compiled
    assert set(paths) == {"fast"}
    assert len(run.history()["loss"]) == 2
    assert int(vae.steps) == 6


@pytest.mark.every_case
@pytest.mark.slow
def test_fit_is_the_same_on_the_ordinary_path(compiled, ordinary):
    fast, slow = compiled[0].history(), ordinary[0].history()
    assert fast.keys() == slow.keys()
    for name, numbers in fast.items():
        # float32 sums in another order
        np.testing.assert_allclose(numbers, slow[name], rtol=5e-5, atol=5e-6, err_msg=name)


@pytest.mark.every_case
def test_its_file_is_the_model(compiled):
    run, vae, _ = compiled
    loaded, x = run.load_model(), training.load_data(run.config).examples("test", 6)[0]
    assert np.array_equal(loaded.elbo(x, seed=1), vae.elbo(x, seed=1))
    assert np.array_equal(loaded.generate(3, seed=1), vae.generate(3, seed=1))
    for name in PARTS:
        assert options(loaded, name) == options(vae, name)


@pytest.mark.every_case
def test_a_resumed_training_ends_as_an_uninterrupted_one(ordinary, tmp_path):
    run, interrupted = ordinary
    with eagerly():
        resumed = training.resume(interrupted, verbose=0)
    assert (resumed.history()["epoch"] == [1, 2]).all()
    assert resumed.history_file.read_text() == run.history_file.read_text()
    assert resumed.evaluation() == run.evaluation()
    for one, other in zip(resumed.load_model().get_weights(), run.load_model().get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.every_case
def test_evaluate_measures_it_and_states_the_protocol(compiled, call):
    run = compiled[0]
    before = run.evaluation()
    with eagerly():
        status, out, error = call("evaluate", run.folder, "--samples", 20, "--json")
    assert status == 0, error
    measured = json.loads(out)
    assert {"elbo", "reconstruction", "kl", "log_likelihood"} <= measured.keys()
    assert all(np.isfinite(value) for value in measured.values() if isinstance(value, float))
    assert measured["elbo"] == pytest.approx(before["elbo"], rel=1e-5)  # compiled or not
    assert measured["elbo"] < measured["log_likelihood"]
    for kind in ("prior", "posterior", "likelihood"):
        assert measured["protocol"][kind].startswith(run.config.to_dict()["model"][kind]["kind"])


@pytest.mark.every_case
@pytest.mark.slow
def test_images_are_completed_with_it(compiled):
    run, vae, _ = compiled
    x = training.load_data(run.config).examples("test", 3)[0]
    found = completion.complete(vae, x, "top", samples=10, steps=3)
    assert np.isfinite(found.score.log_density).all()
    assert np.isfinite(found.means).all()
    for images in (found.means, *found.draws):
        np.testing.assert_array_equal(images[found.observed], x[found.observed])


@pytest.mark.every_case
def test_its_config_json_makes_it_again(compiled, values):
    run, vae, _ = compiled
    written = json.loads((run.folder / "config.json").read_text())["config"]
    config = RunConfig.from_dict(written)
    assert build.resolved(config) == config == Run.open(run.folder).config
    for kind, table in values["model"].items():
        if isinstance(table, dict):
            assert table.items() <= written["model"][kind].items()
    again = build.build_model(config, training.load_data(config))
    for name in PARTS:
        assert options(again, name) == options(vae, name)


@pytest.mark.every_case
@pytest.mark.slow
def test_it_takes_labels_or_refuses_them_in_words(values, parts, call, tmp_path):
    values = {**values, "training": {"epochs": 1}}
    with eagerly():
        status, _, error = call("train", *settings_of(values), "--conditional", "--out", tmp_path / "run", "--quiet")
    if status == 2:
        assert "without a condition" in error
        assert any(is_named(part, error) for part in parts), error
        assert error.count("\n") == 1
        assert not (tmp_path / "run").exists()
        return
    assert status == 0, error
    vae, seeds = Run.open(tmp_path / "run").load_model(), runtime.seeds(5, 1)
    assert vae.condition_shape == (3,)
    assert not np.array_equal(*(vae.sample(seeds, label).means for label in (0, 1)))


@pytest.mark.parametrize("pair", refused(), ids=" ".join)
def test_two_parts_that_do_not_fit_are_refused_in_words(pair, source, call, tmp_path):
    status, _, error = call("train", *settings_of(values_of(pair, source)), "--out", tmp_path / "run", "--quiet")
    assert (status, error.count("\n")) == (2, 1), error
    assert any(is_named(part, error) for part in pair), error
    assert not (tmp_path / "run").exists()


@pytest.mark.every_case
@pytest.mark.slow
def test_export_draws_one_image_of_one_seed(exported):
    run, bundle = exported
    vae, seeds = run.load_model(), runtime.seeds(200, 1)
    ours, theirs = vae.sample(seeds), runtime.load(bundle).sample(seeds)
    if isinstance(vae.prior, StandardNormal):
        np.testing.assert_array_equal(ours.z, theirs.z)
    else:
        np.testing.assert_allclose(ours.z, theirs.z, rtol=0, atol=1e-5)  # a product and a sum in float32
    np.testing.assert_allclose(ours.means, theirs.means, rtol=0, atol=1e-4)
    apart = np.abs(np.asarray(vae.likelihood.as_bytes(ours.images), np.int16) - theirs.images)
    assert (apart > 1).mean() < 1e-3  # a pixel whose uniform number is within 1e-5 of its probability
    assert len(np.unique(theirs.images, axis=0)) > 1


@pytest.mark.every_case
@pytest.mark.slow
def test_verify_finds_every_claim_true(exported, quick_exports, call):
    status, out, error = call("verify", exported[0].folder)
    assert (status, error) == (0, ""), out + error
    for claim in ("reference z", "evaluation.json: elbo", "decoder.tflite"):
        assert f"ok   {claim}" in out


@pytest.fixture(scope="module")
def exporter():
    """A process that exports, as a pool of one, so that no conversion is made in the process of the tests."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.fixture(scope="module")
def exported(ordinary, exporter):
    run, _ = ordinary
    exporter.submit(export_in_another_process, str(run.folder)).result()
    return run, run.bundle


def options(vae, name):
    """The options of a part of a model, without what only a saved network has, and the names that Keras numbers."""
    config = getattr(vae, name).get_config()
    return {key: value for key, value in config.items() if key not in ("name", "dtype", "changed_layers")}
