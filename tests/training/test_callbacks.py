"""Callbacks and the history file, each alone; tests/training/test_training.py has them in a whole training."""

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image
from scipy import special

import kvae
from kvae.internal.errors import UserError
from kvae.model import networks, objectives
from kvae.plotting import figures
from kvae.training import callbacks, checkpoints, history

pytestmark = pytest.mark.usefixtures("without_xla")  # many small models, of which XLA is not what is tested


@pytest.mark.slow
def test_data_epoch_makes_initial_epoch_train_on_that_epochs_order():
    orders = []
    for start in (0, 2):
        data = kvae.data.load("mnist5k", train="train[:40]", test="test[:10]", batch_size=40, seed=1)
        seen = []

        class Spy(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None, data=data, seen=seen):
                position = int(data.epoch)
                seen.append(next(iter(data.train)).numpy())
                data.epoch.assign(position)

        vae = kvae.VAE(2, hidden_units=(4,), seed=0)
        vae.compile(optimizer="adam")
        follow = callbacks.DataEpoch(data.epoch)
        vae.fit(data.train, initial_epoch=start, epochs=4, callbacks=[follow, Spy()], verbose=0)
        orders.append(seen)
    np.testing.assert_array_equal(orders[0][2:], orders[1])


def test_history_keeps_every_digit_and_nan(tmp_path, rng):
    others = {"elbo": -1.0, "reconstruction": 1.0, "kl": 0.0}
    first = {"epoch": 1, "loss": float(rng.random()), **others, "val_loss": float("nan")}
    rows = [first, {"epoch": 2, "loss": 1 / 3, **others}]
    history.write(tmp_path / "history.csv", rows)
    columns = history.read(tmp_path / "history.csv")
    np.testing.assert_array_equal(columns["loss"], [row["loss"] for row in rows])
    assert np.isnan(columns["val_loss"]).all()


def test_history_that_is_missing_or_no_table_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"history\.csv"):
        history.read(tmp_path / "history.csv")
    (tmp_path / "history.csv").write_text("epoch,loss\n1,high\n")
    with pytest.raises(UserError, match=r"history\.csv"):
        history.read(tmp_path / "history.csv")


@pytest.mark.slow
def test_only_the_newest_checkpoint_stays(tmp_path, digits):
    vae = kvae.VAE(2, hidden_units=(4,), seed=0)
    vae.compile(optimizer="adam")
    checkpoint = checkpoints.Checkpoint(tmp_path / "checkpoint", tmp_path / "history.csv", seconds=0)
    vae.fit(digits, epochs=3, callbacks=[checkpoint], verbose=0)
    assert checkpoints.latest_checkpoint(tmp_path / "checkpoint").name == "epoch-000003"
    assert len(list((tmp_path / "checkpoint").iterdir())) == 1


@pytest.mark.slow
def test_checkpoints_keep_their_distance_but_for_the_last_epoch(tmp_path, digits, monkeypatch):
    saved = []
    monkeypatch.setattr(checkpoints.Checkpoint, "_save", lambda self, epochs: saved.append(epochs))
    vae = kvae.VAE(2, hidden_units=(4,), seed=0)
    vae.compile(optimizer="adam")
    checkpoint = checkpoints.Checkpoint(tmp_path / "checkpoint", tmp_path / "history.csv", seconds=3600)
    checkpoint._saved_at = float("inf")
    vae.fit(digits, epochs=4, callbacks=[checkpoint], verbose=0)
    assert saved == [4]
    assert len(history.read(tmp_path / "history.csv")["epoch"]) == 4


@pytest.mark.exhaustive  # tests/model/test_objective_training.py shows more in CI
def test_a_model_trained_on_two_devices_learns_and_counts_every_image(tmp_path):
    code = """
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, kvae
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    vae = kvae.VAE(2, hidden_units=(16,), seed=0)
    vae.compile(optimizer=keras.optimizers.Adam(1e-2))
data = kvae.data.load("mnist5k", train="train[:250]", test="test[:50]", batch_size=100, seed=0)
losses = vae.fit(data.train, epochs=3, verbose=0).history["loss"]
assert losses[-1] < losses[0], losses
elbo, reference = vae.evaluate(data.test, verbose=0, return_dict=True)["elbo"], kvae.evaluation.elbo(vae, data.test)
assert abs(elbo - reference.elbo.mean) < 2, (elbo, reference.elbo.mean)  # one draw per image against eight
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]


# BatchLoss


@pytest.fixture(scope="module")
def small():
    return kvae.data.load("mnist5k", train="train[:40]", test="test[:20]", batch_size=10, seed=1)


def attached(callback, latent_dim=2):
    """The callback, knowing a model that is built and compiled."""
    vae = kvae.VAE(latent_dim, hidden_units=(4,), seed=0)
    vae.build((None, 28, 28, 1))
    vae.compile(optimizer="adam")
    callback.set_model(vae)
    return callback


def trained_weights(data, *more):
    """Weights after two epochs, from the first epoch of the data, with more callbacks."""
    data.epoch.assign(0)
    vae = kvae.VAE(2, hidden_units=(4,), seed=0)
    vae.compile(optimizer="adam", steps_per_execution=1)
    vae.fit(data.train, epochs=2, callbacks=[callbacks.DataEpoch(data.epoch), *more], verbose=0)
    return vae.get_weights()


@pytest.fixture(scope="module")
def undisturbed(small):
    return trained_weights(small)


def assert_equal_arrays(first, second):
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("seconds", "steps"),
    [(0.0, [1, 2, 3, 4, 5, 6, 7, 8]), (1.0, [1, 2, 3, 4, 5, 6, 7, 8]), (2.5, [1, 4, 7]), (5.0, [1, 6]), (3600.0, [1])],
)
def test_batch_losses_are_printed_at_most_every_so_many_seconds(small, capsys, monkeypatch, seconds, steps):
    callback = attached(callbacks.BatchLoss(small, 5, seconds))
    for step in range(1, 9):  # two epochs of four batches of one second
        monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=lambda now=step: 1000.0 + now))
        if step % 4 == 1:
            callback.on_epoch_begin(step // 4)
        callback.model.steps.assign(step)
        callback.on_train_batch_end((step - 1) % 4)
    lines = capsys.readouterr().out.splitlines()
    expected = r"epoch (\d), step (\d): loss of a random training batch \d+\.\d\d nats per image"
    found = [tuple(map(int, re.fullmatch(expected, line).groups())) for line in lines]
    assert found == [(1 if step <= 4 else 2, step) for step in steps]


@pytest.mark.slow
def test_batch_losses_change_neither_the_training_nor_the_order_of_the_data(small, undisturbed, capsys):
    assert_equal_arrays(trained_weights(small, callbacks.BatchLoss(small, 5, seconds=0)), undisturbed)
    assert len(capsys.readouterr().out.splitlines()) == 8


def test_what_batch_losses_print_depends_on_the_step_alone(small, capsys):
    for size, step in ((5, 3), (5, 4), (5, 3)):
        callback = attached(callbacks.BatchLoss(small, size))
        callback.model.steps.assign(step)
        callback.on_train_batch_end(0)
    first, other, again = (line.split("batch")[1] for line in capsys.readouterr().out.splitlines())
    assert first == again != other


def certain(path, **options):
    """A model whose posterior has no width and data of one image, so that neither the choice of a batch nor the draw of
    z makes a difference; and what is exact: reconstruction and KL of that image, in float64."""
    picture = np.random.default_rng(0).integers(0, 2, (5, 6)).astype(np.uint8) * 255
    np.savez(path / "one.npz", x_train=np.stack([picture] * 20), x_test=picture[None])
    data = kvae.data.load(f"npz:{path / 'one.npz'}", batch_size=10)
    encoder = networks.MLPEncoder(2, (8,), kernel_regularizer=keras.regularizers.L2(10.0), seed=3)
    vae = kvae.VAE(encoder=encoder, seed=0, **options)
    vae.build((None, 5, 6, 1))
    vae.compile(optimizer="adam")
    head = vae.encoder.scale_head
    head.kernel.assign(0 * head.kernel)
    head.bias.assign([-25.0, -25.0])
    x = picture[None, ..., None] / 255
    mean = np.float64(vae.encode(x).mean)
    logits = np.float64(vae.decode(mean))
    reconstruction = -(x * special.log_expit(logits) + (1 - x) * special.log_expit(-logits)).sum()
    kl = 0.5 * (mean**2 + np.exp(-25.0) - 1 + 25.0).sum()
    return vae, data, reconstruction, kl


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.5])
def test_batch_losses_are_beta_weighted_without_the_penalty_on_weights(tmp_path, beta):
    vae, data, reconstruction, kl = certain(tmp_path, beta=beta)
    callback = callbacks.BatchLoss(data, 4)
    callback.set_model(vae)
    assert float(sum(vae.losses)) > 10
    # Sums of 30 float32 terms of size 1; the posterior's width of 4e-6 moves the logits by less than their rounding.
    np.testing.assert_allclose(callback.losses(np.random.default_rng(0)), [reconstruction + beta * kl] * 4, rtol=1e-5)


@pytest.mark.parametrize(("step", "weight"), [(0, 0.0), (5, 2.0), (10, 4.0), (99, 4.0)])
def test_batch_losses_take_the_beta_of_the_step(tmp_path, step, weight):
    vae, data, reconstruction, kl = certain(tmp_path, beta=objectives.LinearWarmup(4.0, steps=10))
    callback = callbacks.BatchLoss(data, 1)
    callback.set_model(vae)
    vae.steps.assign(step)
    loss = callback.losses(np.random.default_rng(0))
    np.testing.assert_allclose(loss, reconstruction + weight * kl, rtol=1e-5)  # as above


@pytest.mark.parametrize(("streams", "highest"), [(True, 999), (False, 4999)])
def test_batch_losses_of_a_stream_are_those_of_its_beginning(streams, highest):
    chosen = []

    def images_at(part, places):
        chosen.append(places)
        return np.zeros((len(places), 3, 4, 1), np.float32)

    info = SimpleNamespace(sizes={"train": 5000})
    callback = callbacks.BatchLoss(SimpleNamespace(info=info, streams=streams, images_at=images_at), 20_000)
    vae = kvae.VAE(2, hidden_units=(4,), seed=0)
    vae.build((None, 3, 4, 1))
    callback.set_model(vae)
    callback.losses(np.random.default_rng(0))
    # 20,000 draws leave out the last of 5,000 places once in exp(4) = 55 seeds; this seed does not.
    assert (chosen[0].min(), chosen[0].max()) == (0, highest)


# Plots


def after(callback, *logs):
    """Lets epochs end one after the other, with these logs."""
    for epoch, values in enumerate(logs):
        callback.on_epoch_end(epoch, values)


@pytest.mark.slow
def test_plots_are_drawn_every_n_epochs_under_the_epochs_name(small, tmp_path):
    kinds = ["lattice", "reconstructions"]
    after(attached(callbacks.Plots(small, tmp_path / "plots", kinds, every=2)), *[{}] * 5)
    files = ("lattice", "reconstructions", "reconstructions_draws")
    expected = {f"{file}_epoch_{epoch:04}.png" for file in files for epoch in (2, 4)}
    assert {path.name for path in (tmp_path / "plots").iterdir()} == expected


def test_plots_are_by_default_samples_at_the_end_alone(small, tmp_path):
    drawing = attached(callbacks.Plots(small, tmp_path))
    after(drawing, {}, {})
    assert not list(tmp_path.iterdir())
    drawing.on_train_end()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["samples.png", "samples_grid.png", "samples_strip.png"]


def test_plots_show_the_model_as_it_is(small, tmp_path):
    drawing = attached(callbacks.Plots(small, tmp_path, ["lattice(seamless=true)"], every=1))
    pictures = []
    for epoch in range(2):
        drawing.on_epoch_end(epoch)
        drawn = np.asarray(Image.open(tmp_path / f"lattice_epoch_{epoch + 1:04}.png"))
        expected = figures.lattice(figures.Subject(drawing.model, small), seamless=True)["lattice"]
        np.testing.assert_array_equal(drawn, np.rint(255 * expected[..., 0]))
        pictures.append(drawn)
        drawing.model.decoder.set_weights([2 * weight for weight in drawing.model.decoder.get_weights()])
    assert not np.array_equal(*pictures)


@pytest.mark.slow
def test_plots_change_neither_the_training_nor_the_order_of_the_data(small, undisturbed, tmp_path):
    drawing = callbacks.Plots(small, tmp_path, ["samples", "reconstructions"], every=2)
    assert_equal_arrays(trained_weights(small, drawing), undisturbed)
    assert (tmp_path / "reconstructions_epoch_0002.png").is_file()


LOGS = {"loss": 3.0, "reconstruction": 2.0, "kl": 1.0}
HELD_OUT = {f"val_{name}": value + 1 for name, value in LOGS.items()}


def test_learning_curves_are_drawn_of_the_epochs_so_far(small, tmp_path, monkeypatch):
    histories = []
    monkeypatch.setattr(figures, "draw", lambda kind, subject, *_, **__: histories.append(subject.history))
    drawing = attached(callbacks.Plots(small, tmp_path, ["learning_curves"], every=2))
    after(drawing, LOGS, LOGS, LOGS | HELD_OUT, LOGS)
    first, second = histories
    assert (list(first["epoch"]), list(second["epoch"])) == ([1, 2], [1, 2, 3, 4])
    np.testing.assert_array_equal(second["kl"], [1, 1, 1, 1])
    np.testing.assert_array_equal(second["val_kl"], [np.nan, np.nan, 2, np.nan])
    assert "val_kl" not in first


def test_learning_curves_with_gaps_in_the_validation_are_a_picture(small, tmp_path):
    after(attached(callbacks.Plots(small, tmp_path, ["learning_curves"], every=3)), LOGS, LOGS | HELD_OUT, LOGS)
    with Image.open(tmp_path / "learning_curves_epoch_0003.png") as image:
        low, high = image.convert("L").getextrema()
        assert low < high


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ["latice"]}, "Unknown kind of plot 'latice'. Did you mean 'lattice'"),
        ({"kinds": ["samples", "curves"]}, "Unknown kind of plot 'curves'"),
        ({"every": 0}, "every to be a whole number of at least 1"),
    ],
    ids=["one", "one of two", "every"],
)
def test_invalid_plots_are_refused_before_the_training(small, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        callbacks.Plots(small, tmp_path, **options)


def test_a_plot_that_does_not_suit_is_left_out_with_a_line_and_training_goes_on(small, tmp_path, capsys):
    drawing = attached(callbacks.Plots(small, tmp_path, ["lattice", "samples"], every=1), latent_dim=3)
    after(drawing, {}, {})
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("lattice: not drawn.") and "This model has 3" in line] == lines
    assert len(lines) == 1
    assert (tmp_path / "samples_epoch_0002.png").is_file()
