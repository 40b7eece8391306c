"""Callbacks and the history file on their own; tests/test_training.py shows them at work."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import kvae
from kvae import callbacks, history
from kvae.errors import UserError


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
    rows = [{"epoch": 1, "loss": float(rng.random()), "val_loss": float("nan")}, {"epoch": 2, "loss": 1 / 3}]
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


def test_only_the_newest_checkpoint_stays(tmp_path, digits):
    vae = kvae.VAE(2, hidden_units=(4,), seed=0)
    vae.compile(optimizer="adam")
    checkpoint = callbacks.Checkpoint(tmp_path / "checkpoint", tmp_path / "history.csv", seconds=0)
    vae.fit(digits, epochs=3, callbacks=[checkpoint], verbose=0)
    assert callbacks.latest_checkpoint(tmp_path / "checkpoint").name == "epoch-000003"
    assert len(list((tmp_path / "checkpoint").iterdir())) == 1


def test_checkpoints_keep_their_distance_but_for_the_last_epoch(tmp_path, digits, monkeypatch):
    saved = []
    monkeypatch.setattr(callbacks.Checkpoint, "_save", lambda self, epochs: saved.append(epochs))
    vae = kvae.VAE(2, hidden_units=(4,), seed=0)
    vae.compile(optimizer="adam")
    checkpoint = callbacks.Checkpoint(tmp_path / "checkpoint", tmp_path / "history.csv", seconds=3600)
    checkpoint._saved_at = float("inf")
    vae.fit(digits, epochs=4, callbacks=[checkpoint], verbose=0)
    assert saved == [4]
    assert len(history.read(tmp_path / "history.csv")["epoch"]) == 4


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
assert abs(elbo - reference.elbo.mean) < 2, (elbo, reference.elbo.mean)  # one draw an image against eight
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
