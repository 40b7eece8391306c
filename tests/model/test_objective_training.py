"""Models that train with each objective: both paths of fit, files, a resumed run, the command line, exact bounds."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from objective_cases import CASES
from oracles import LinearModel
from small_models import SHAPE, compiled, tiny

import kvae
from kvae import objectives
from kvae.internal.errors import UserError
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream
from kvae.training import build
from kvae.training.config import RunConfig
from kvae.training.runs import Run

pytestmark = pytest.mark.usefixtures("without_xla")  # many small models, of which XLA is not what is tested

TABLES = {  # the options of a recipe
    "iwae": {"samples": 3},
    "dreg": {"samples": 3},
    "miwae": {"samples": 4, "groups": 2},
    "ciwae": {"samples": 3, "weight": 0.25},
    "piwae": {"samples": 4, "groups": 2},
    "free_bits": {"nats": 0.1, "groups": 1},
    "capacity": {"gamma": 2.0, "capacity": {"kind": "linear", "beta": 3.0, "steps": 4}},
    "beta_tc": {"beta": {"kind": "cyclical", "beta": 4.0, "period": 3}},
    "elbo": {"beta": {"kind": "cyclical", "beta": 4.0, "period": 3}},
    "info": {"alpha": 0.25, "weight": 10.0},
}


@pytest.mark.exhaustive  # tests/test_part_contract.py shows it in CI
@pytest.mark.slow  # tests/test_part_contract.py has all objectives with their default options
@pytest.mark.parametrize("name", ["piwae", "capacity", "beta_tc"])
def test_both_paths_of_fit_are_the_same_and_a_file_goes_on_alike(name, x, paths, tmp_path):
    """23 images in batches of 6: the last one has 5."""
    fast, ordinary = (compiled(tiny(objective=CASES[name]()), jit_compile=False) for _ in range(2))
    history = fast.fit(x, batch_size=6, shuffle=False, epochs=2, validation_data=x, verbose=0).history
    assert set(paths) == {"fast"}
    batches = tf.data.Dataset.from_tensor_slices(x).batch(6)
    expected = ordinary.fit(batches, epochs=2, validation_data=batches, verbose=0).history
    assert "ordinary" in paths
    assert history.keys() == expected.keys()
    for metric, values in history.items():
        np.testing.assert_allclose(values, expected[metric], rtol=2e-5, atol=2e-6, err_msg=metric)  # order of sums
    fast.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    assert loaded.objective.get_config() == fast.objective.get_config()
    for vae in (fast, loaded):
        vae.fit(x, batch_size=6, shuffle=False, verbose=0)
    for one, other in zip(fast.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)  # the same graph, traced twice


def test_bounds_are_ordered_below_the_exact_evidence(rng):
    """A linear model, whose log p(x) has a closed form, and a q that does not fit."""
    linear = LinearModel(rng.normal(size=(4, 2)), np.full(4, 0.5), 0.5, (2, 2, 1))
    x = rng.normal(size=(10, 2, 2, 1)).astype(np.float32)
    repeated = np.repeat(x, 400, axis=0)
    noise = Keyed(0, Stream.EVALUATION, tf.range(len(repeated)))
    draws = linear.vae.draw(repeated, noise, samples=50)
    few = objectives.Draws(*[part[:5] for part in draws[:4]], *draws[4:])
    bounds = [
        -objective.loss(given, 0).numpy().astype(np.float64)
        for objective, given in (
            (objectives.ELBO(samples=50), draws),
            (objectives.IWAE(5), few),
            (objectives.IWAE(50), draws),
        )
    ]
    exact = np.mean([linear.log_evidence(each.ravel()) for each in x])
    means = [*(bound.mean() for bound in bounds), exact]
    errors = [bound.std() / np.sqrt(len(bound)) for bound in bounds]
    # Each gap is several times the error of both its ends.
    for low, high, error in zip(means[:-1], means[1:], errors, strict=True):
        assert high - low > 4 * error, (means, errors)


def test_an_objective_is_an_argument_or_a_name_and_has_no_short_forms():
    assert kvae.VAE(2, objective=kvae.objectives.IWAE(samples=7)).samples == 7
    assert isinstance(kvae.VAE(2, objective="beta_tc").objective, kvae.objectives.BetaTC)
    assert kvae.VAE(2, objective="beta_tc").beta == 6.0
    assert kvae.VAE(2, objective="iwae").beta == 1.0  # it has none
    for short in ({"beta": 2.0}, {"samples": 3}, {"kl": "sampled"}):
        with pytest.raises(UserError, match="Expected either objective="):
            kvae.VAE(2, objective="iwae", **short)


@pytest.mark.parametrize(
    ("name", "given", "hint"),
    [
        ("beta_tc", {"beta": 4}, "Write objective=kvae.objectives.BetaTC(beta=4)."),
        ("iwae", {"samples": 3}, "Write objective=kvae.objectives.IWAE(samples=3)."),
        ("iwae", {"beta": 4}, "Received both."),
        (kvae.objectives.IWAE(), {"samples": 3}, "Received both."),
    ],
)
def test_the_short_form_of_an_option_beside_an_objective_is_answered_with_the_long_one(name, given, hint):
    with pytest.raises(UserError) as error:
        kvae.VAE(2, objective=name, **given)
    assert str(error.value).endswith(hint)


@pytest.mark.slow
def test_beta_tc_finds_the_number_of_training_images(x):
    vae = compiled(tiny(objective="beta_tc"))
    with pytest.raises(UserError, match="number of training images"):
        vae.fit(tf.data.Dataset.from_tensor_slices(x).batch(6), verbose=0)
    vae.fit(x[:20], batch_size=5, verbose=0)
    assert vae.objective.data_size == 20
    logs = vae.fit(x, batch_size=5, verbose=0).history  # without another compilation
    assert (vae.objective.data_size, float(vae.objective._size)) == (23, 23.0)
    again = kvae.objectives.BetaTC.from_config(vae.objective.get_config())
    assert again.data_size == 23
    again.build(9)
    assert again.data_size == 9  # it was found, not given
    parts = [logs[name][0] for name in ("index_code_mi", "total_correlation", "dimension_wise_kl")]
    assert sum(parts) == pytest.approx(logs["kl"][0], rel=1e-4, abs=1e-5)  # float32 means of differences


@pytest.mark.slow
def test_a_given_number_of_training_images_is_kept(x):
    vae = compiled(tiny(objective=kvae.objectives.BetaTC(data_size=500)))
    vae.fit(x, batch_size=5, verbose=0)
    again = kvae.objectives.BetaTC.from_config(vae.objective.get_config())
    again.build(9)
    for objective in (vae.objective, again):
        assert (objective.data_size, float(objective._size)) == (500, 500.0)


def test_a_file_of_before_has_the_number_of_images_that_was_found():
    again = kvae.objectives.BetaTC.from_config({"beta": 2.0, "samples": 1, "kl": "analytic", "data_size": 23})
    assert again.data_size == 23
    again.build(9)
    assert again.data_size == 9


def test_a_run_tells_beta_tc_the_number_of_its_images_also_if_they_are_streamed():
    data = kvae.data.load("mnist5k", train="train[:70]", batch_size=10)
    vae = build.build_model(RunConfig.from_dict({"model": {"hidden_units": [4], "objective": "beta_tc"}}), data)
    assert vae.objective.data_size == 70


def test_dreg_refuses_a_prior_that_depends_on_the_encoder():
    class Bound(kvae.priors.StandardNormal):
        def bind(self, encode):
            self.__dict__["encode"] = encode

    with pytest.raises(UserError, match="does not depend on the encoder"):
        tiny(objective="dreg", prior=Bound())
    vae = tiny(prior=Bound())
    vae.build((None, *SHAPE))
    with pytest.raises(UserError, match="does not depend on the encoder"):
        vae.objective = "dreg"


def test_there_is_a_table_of_every_objective():
    assert TABLES.keys() == objectives.OBJECTIVES.keys()


@pytest.mark.slow  # each draw is inverted for each of 100 pseudo-inputs
def test_names_and_objects_of_parts_go_together():
    two_kinds = np.repeat(np.stack([np.zeros(SHAPE), np.ones(SHAPE)]), 30, axis=0).astype(np.float32)
    vae = kvae.VAE(4, prior="vamp", posterior="iaf", objective=kvae.objectives.IWAE(samples=5))
    vae.compile(keras.optimizers.Adam(1e-2))
    losses = vae.fit(two_kinds, batch_size=12, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0] / 2
    assert vae.prior.pseudo_inputs.shape == (100, *SHAPE)
    assert vae.samples == 5


@pytest.mark.parametrize("name", TABLES)
def test_the_table_of_a_recipe_is_the_same_objective_after_it_was_written(name):
    config = RunConfig.from_dict({"model": {"objective": {"kind": name, **TABLES[name]}}})
    written = json.loads(json.dumps(build.resolved(config).to_dict()))
    made = [build.part("objective", each.model.objective) for each in (config, RunConfig.from_dict(written))]
    assert made[0].get_config() == made[1].get_config()
    assert type(made[0]) is objectives.OBJECTIVES[name]
    table = written["model"]["objective"]
    assert {option: table[option] for option in TABLES[name]} == TABLES[name]


@pytest.mark.slow
def test_the_command_line_trains_with_an_objective(call, tmp_path):
    arrays = {name: np.random.default_rng(0).integers(0, 256, (20, 6, 5), np.uint8) for name in ("x_train", "x_test")}
    np.savez(tmp_path / "odd.npz", **arrays)
    small = ["--dataset", "npz:odd.npz", "--epochs", 1, "--set", "model.hidden_units=[4]", "--out", "run"]
    table = 'model.objective.capacity={kind = "linear", beta = 3.0, steps = 4}'
    status, _, err = call("train", *small, "--set", "model.objective=capacity", "--set", table, "--quiet")
    assert status == 0, err
    assert Run.open(tmp_path / "run").config.model.objective.options["capacity"]["steps"] == 4
    for wrong, message in (
        (["model.objective=iwa"], "Did you mean 'iwae'"),
        (["model.objective=iwae", "model.objective.nats=1"], "Expected one of: samples"),
        (["model.objective=miwae", "model.samples=5"], "multiple of groups"),
        (['model.beta={kind="cyclical",beta=1.0,period=4}', "training.beta_warmup_epochs=1"], "Received a schedule"),
    ):
        settings = [part for each in wrong for part in ("--set", each)]
        status, _, err = call("train", *small[:-1], "other", *settings)
        assert (status, message in err) == (2, True), err


TWO_DEVICES = """
import sys
import numpy as np
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, kvae
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
x = np.random.default_rng(0).integers(0, 2, (23, 6, 5, 1)).astype(np.float32)
y = np.arange(23) % 3
def trained(objective, condition=None):
    vae = kvae.VAE(2, hidden_units=(8,), objective=objective, condition=condition, seed=0)
    vae.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    labels = {} if condition is None else {"y": y}
    validation = x if condition is None else (x, y)
    options = {"batch_size": 6, "shuffle": False, "epochs": 3, "validation_data": validation, "verbose": 0}
    return vae, vae.fit(x, **labels, **options).history
objectives = (lambda: kvae.objectives.FreeBits(0.15), lambda: kvae.objectives.DReG(4))
for make, condition in (*((each, None) for each in objectives), (lambda: "elbo", 3)):
    vae, alone = trained(make(), condition)
    with strategy.scope():
        other, together = trained(make(), condition)
    for name, values in alone.items():
        np.testing.assert_allclose(together[name], values, rtol=1e-4, err_msg=name)
    for one, two in zip(vae.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-3, atol=1e-5)
try:
    with strategy.scope():
        trained(kvae.objectives.BetaTC())
except kvae.UserError as error:
    assert "Expected one device for the objective BetaTC" in str(error), error
    print("refused")
"""


@pytest.mark.slow
def test_two_devices_train_as_one_or_refuse():
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES], capture_output=True, text=True, env={**os.environ}, check=False
    )
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr[-3000:]
