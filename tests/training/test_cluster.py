"""Training on several devices or machines is the same as on one."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kvae.cli.training import train
from kvae.internal.errors import UserError
from kvae.model import image_places
from kvae.training import distribution, history

WORKERS = ["10.0.0.1:2222", "10.0.0.2:2222"]


def tf_config(addresses, index, kind="worker"):
    return json.dumps({"cluster": {kind: addresses}, "task": {"type": "worker", "index": index}})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not set"),
        ("{", "Invalid JSON"),
        ('{"cluster": {"worker": ["a:1"]}}', "task"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}', "task.type"),
        (tf_config(WORKERS, 2), "worker. Received 2"),
        (tf_config(WORKERS, -1), "task.index"),
        (tf_config(WORKERS, 0, kind="chief"), "below 0, the number of addresses of type worker"),
    ],
)
def test_an_invalid_tf_config_is_explained(text, said, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match="TF_CONFIG") as error:
        distribution.workers()
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("config", "chief"),
    [
        (tf_config(WORKERS, 0), True),
        (tf_config(WORKERS, 1), False),
        ('{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "chief", "index": 0}}', True),
        ('{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "worker", "index": 0}}', False),
    ],
)
def test_who_is_the_chief(config, chief, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    assert distribution.is_chief("multiworker") == chief
    assert distribution.is_chief("mirrored")
    assert distribution.is_chief(None)


def test_the_command_line_offers_every_kind_and_refuses_others(call):
    (option,) = [parameter for parameter in train.params if parameter.name == "distribute"]
    assert tuple(option.type.choices) == distribution.KINDS
    with pytest.raises(UserError, match="Did you mean 'mirrored'"):
        distribution.strategy("mirored")


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize(
    ("in_set", "expected"),
    [(False, [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1]]), (True, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]])],
)
def test_images_know_their_places(labels, in_set, expected):
    x = np.arange(10.0)[:, None]
    batches = tf.data.Dataset.from_tensor_slices((x, x) if labels else x).batch(4)
    for conditional in {False, labels}:
        found = list(
            image_places.add_places(batches, in_set=in_set, conditional=conditional, check=tuple).as_numpy_iterator()
        )
        assert all(isinstance(batch, image_places.Placed) for batch in found)
        assert [batch.place.tolist() for batch in found] == expected
        assert [batch.global_batch_size.tolist() for batch in found] == [[4] * 4, [4] * 4, [2] * 2]
        np.testing.assert_array_equal(np.concatenate([batch.x for batch in found]), x)
        given = [batch.condition for batch in found]
        assert np.array_equal(np.concatenate(given), x) if conditional else given == [()] * 3


# --- real devices and processes

SETTINGS = [
    "--dataset=mnist5k",
    "--set=data.train=train[:197]",  # four batches of 49, which no two devices share evenly, and one of a single image
    "--set=data.test=test[:51]",
    "--set=data.binarize=stochastic",
    "--set=training.monitor_test=true",
    "--set=training.average=0.9",  # so the losses on the test set are of averaged weights
    "--set=training.checkpoint_seconds=0",
    "--set=model.hidden_units=[16]",
    "--batch-size=49",
    "--epochs=6",
]
LOSSES = ("loss", "kl", "val_loss", "val_kl")

# Trains as `kvae train` does and leaves this process's own history and weights.
DUMP = """
import sys
from kvae.internal.tensorflow import keras, tf
cpus, kind, settings, out, dump = int(sys.argv[1]), sys.argv[2], sys.argv[3].split(";"), sys.argv[4], sys.argv[5]
if cpus > 1:
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * cpus)
    tf.distribute.MirroredStrategy = lambda make=tf.distribute.MirroredStrategy: make(["CPU:0", "CPU:1"])
import numpy as np
from kvae import training
from kvae.training.config import RunConfig, parse_setting, override
class Dump(keras.callbacks.Callback):
    def on_train_end(self, logs=None):
        np.savez(dump, *self.model.get_weights(), **logs)
config = RunConfig.from_dict(override({"name": "run"}, dict(parse_setting(setting) for setting in settings)))
training.train(config, out, extra=[Dump()], distribute=None if kind == "none" else kind, verbose=0)
"""


def start(arguments, environment=None, **options):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", **(environment or {})}
    return subprocess.Popen([sys.executable, *arguments], env=environment, stderr=subprocess.PIPE, text=True, **options)


def addresses(count):
    """Free ports of this machine."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    found = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return found


def ended(processes, seconds=240):
    """Waits for processes to succeed; ends all of them where one does not."""
    try:
        for process in processes:
            _, errors = process.communicate(timeout=seconds)
            assert process.returncode == 0, errors[-3000:]
    finally:
        for process in processes:
            process.kill()


def dump_settings():
    keys = {"--dataset": "data.source", "--batch-size": "data.batch_size", "--epochs": "training.epochs"}
    named = [setting.split("=", 1) for setting in SETTINGS]
    return ";".join(value if name == "--set" else f"{keys[name]}={value}" for name, value in named)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process without any strategy leaves."""
    folder = tmp_path_factory.mktemp("alone")
    ended([start(["-c", DUMP, "1", "none", dump_settings(), str(folder / "run"), str(folder / "dump.npz")])])
    return folder


def assert_alike(dump, reference):
    with np.load(dump) as one, np.load(reference) as other:
        assert set(one.files) == set(other.files)
        for name in LOSSES:
            # Sums over two halves of a batch round otherwise than over the whole; 30 steps of Adam carry that on.
            np.testing.assert_allclose(one[name], other[name], rtol=1e-4, err_msg=name)


@pytest.mark.slow
def test_two_devices_and_two_workers_train_as_one_does_and_only_the_chief_writes(alone, tmp_path):
    hosts = addresses(2)
    processes = [
        start(
            ["-c", DUMP, "1", "multiworker", dump_settings(), str(tmp_path / f"run{i}"), str(tmp_path / f"{i}.npz")],
            {"TF_CONFIG": tf_config(hosts, i)},
        )
        for i in range(2)
    ]
    devices = ["-c", DUMP, "2", "mirrored", dump_settings(), str(tmp_path / "run"), str(tmp_path / "devices.npz")]
    ended([*processes, start(devices)])
    assert_alike(tmp_path / "devices.npz", alone / "dump.npz")
    assert_alike(tmp_path / "0.npz", alone / "dump.npz")
    with np.load(tmp_path / "0.npz") as chief, np.load(tmp_path / "1.npz") as other:
        for name in chief.files:
            np.testing.assert_array_equal(chief[name], other[name], err_msg=name)
    assert (tmp_path / "run0" / "evaluation.json").is_file()
    assert not (tmp_path / "run1").exists()


@pytest.mark.exhaustive
def test_a_killed_worker_ends_the_training_which_resume_takes_up(alone, tmp_path):
    run = tmp_path / "run"

    def both(*arguments):
        hosts = addresses(2)
        command = ["-m", "kvae", "train", "--distribute=multiworker", f"--out={run}", *arguments]
        return [start(command, {"TF_CONFIG": tf_config(hosts, i)}, stdout=subprocess.DEVNULL) for i in range(2)]

    chief, other = both(*SETTINGS)
    try:
        waited = time.monotonic() + 180
        while not list(Path(run).glob("checkpoint/epoch-*")):
            assert time.monotonic() < waited, "no checkpoint within 180 s"
            assert chief.poll() is None, chief.stderr.read()[-3000:]
            time.sleep(0.05)
        other.kill()
        _, errors = chief.communicate(timeout=180)
    finally:
        chief.kill()
        other.kill()
    assert chief.returncode == 2, errors[-3000:]
    assert f"Start all workers again with --resume --out {run}" in errors
    assert len(history.read(run / "history.csv")["epoch"]) < 6

    ended(both("--resume"))
    resumed, reference = (history.read(folder / "history.csv") for folder in (run, alone / "run"))
    np.testing.assert_array_equal(resumed["epoch"], np.arange(1, 7))
    for name in LOSSES:
        # As above: rounding over 30 steps.
        np.testing.assert_allclose(resumed[name], reference[name], rtol=1e-4, err_msg=name)
