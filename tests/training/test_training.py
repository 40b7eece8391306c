"""Training from a configuration to a run folder, and resuming it after its process was killed."""

import contextlib
import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from kvae import training
from kvae.internal.errors import UserError
from kvae.training.build import resolved
from kvae.training.config import RunConfig
from kvae.training.runs import Run

SMALL = {
    "data": {"source": "mnist5k", "train": "train[:300]", "test": "test[:100]", "binarize": "stochastic"},
    "model": {"hidden_units": [16]},
    "training": {"epochs": 6, "checkpoint_seconds": 0.0, "jit_compile": False},
}


SHOWN = {  # what is printed and drawn while training
    "monitor_test": True,
    "monitor_every": 2,
    "show_batch_seconds": 0.0,
    "plots": ["lattice", "learning_curves"],
    "plots_every": 4,
}


VAMP = {"kind": "vamp", "components": 5}
CI = (pytest.mark.slow, pytest.mark.every_case)


def config(**changes):
    values = json.loads(json.dumps(SMALL))
    for section, keys in changes.items():
        if isinstance(keys, dict):
            values[section].update(keys)
        else:
            values[section] = keys
    return RunConfig.from_dict(values)


def contents(run: Run) -> dict[str, object]:
    """What an interrupted and an uninterrupted training must have in common, bit for bit."""
    return {
        "weights": [weight.tobytes() for weight in run.load_model().get_weights()],
        "history": run.history_file.read_text(),
        "evaluation": (run.folder / "evaluation.json").read_text(),
    }


class StopError(Exception):
    """Ends a training in the middle, as far as Python can."""


class StopAt(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.at = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.at:
            raise StopError


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run of `config()`; a test that changes it takes `copied`."""
    return training.train(config(), tmp_path_factory.mktemp("whole") / "run", verbose=0)


@pytest.fixture
def copied(whole, tmp_path):
    return Run.open(shutil.copytree(whole.folder, tmp_path / "run"))


@pytest.mark.slow
def test_a_run_folder_has_everything_in_its_place(whole):
    run = whole
    models = {"model.keras", "encoder.keras", "decoder.keras"}
    files = {path.name for path in run.folder.iterdir()}
    assert files == {
        *models,
        "config.json",
        "history.csv",
        "training_time.json",
        "evaluation.json",
        "checkpoint",
        ".lock",
    }
    assert [path.name for path in run.checkpoints.iterdir()] == ["epoch-000006"]
    assert len(run.history()["loss"]) == 6
    content = json.loads((run.folder / "config.json").read_text())
    assert set(content) == {"config", "protocol", "versions"}
    assert Run.open(run.folder).config == resolved(config())  # with the options that were left to their defaults


def test_the_saved_model_has_no_optimizer_and_its_halves_agree_with_it(whole, digits):
    run = whole
    vae = keras.saving.load_model(run.folder / "model.keras")
    assert getattr(vae, "optimizer", None) is None
    encoder = keras.saving.load_model(run.folder / "encoder.keras")
    decoder = keras.saving.load_model(run.folder / "decoder.keras")
    np.testing.assert_array_equal(encoder(digits)[0], vae.encode(digits).mean)
    np.testing.assert_array_equal(decoder(encoder(digits)[0]), vae.decode(vae.encode(digits).mean))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            {"training": {"schedule": "cosine", "warmup_epochs": 1, "beta_warmup_epochs": 4, "steps_per_execution": 2}},
            id="schedules",
        ),
        pytest.param(
            {"training": {"optimizer": "adamw", "jit_compile": True}, "model": {"samples": 2, "kl": "sampled"}},
            id="adamw",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"data": {"drop_remainder": True, "batch_size": 70, "validation": "train[300:400]"}},
            id="validation",
            marks=pytest.mark.slow,
        ),
        pytest.param({"training": SHOWN}, id="shown", marks=pytest.mark.exhaustive),
        pytest.param({"model": {"objective": {"kind": "dreg", "samples": 3}}}, id="dreg", marks=CI),
        pytest.param({"model": {"objective": "beta_tc", "prior": VAMP}}, id="beta_tc with vamp", marks=CI),
    ],
)
def test_a_resumed_training_ends_as_an_uninterrupted_one(changes, tmp_path):
    whole = training.train(config(**changes), tmp_path / "whole", verbose=0)
    with pytest.raises(StopError):
        training.train(config(**changes), tmp_path / "broken", verbose=0, extra=[StopAt(3)])
    resumed = training.resume(tmp_path / "broken", verbose=0)
    assert contents(resumed) == contents(whole)


@pytest.mark.slow
def test_early_stopping_keeps_its_state_and_best_weights_over_a_resume(tmp_path):
    # A learning rate that overshoots, so that the best epoch is an early one.
    changes = {
        "data": {"validation": "train[300:400]"},
        "training": {"epochs": 30, "early_stopping": 3, "learning_rate": 0.05},
    }
    whole = training.train(config(**changes), tmp_path / "whole", verbose=0)
    stopped_at = len(whole.history()["loss"])
    assert stopped_at < 30
    with pytest.raises(StopError):
        training.train(config(**changes), tmp_path / "broken", verbose=0, extra=[StopAt(stopped_at - 2)])
    assert contents(training.resume(tmp_path / "broken", verbose=0)) == contents(whole)


@pytest.mark.slow
def test_a_killed_process_resumes_to_the_same_bits(tmp_path):
    """SIGKILL at a moment of chance within an epoch, twice, then --resume until the end."""
    whole = training.train(config(training={"epochs": 40}), tmp_path / "whole", verbose=0)
    settings = [f"--set={key}" for key in ("data.train=train[:300]", "data.test=test[:100]", "model.hidden_units=[16]")]
    settings += ["--set=training.checkpoint_seconds=0", "--set=training.jit_compile=false"]
    recipe = tmp_path / "small.toml"
    recipe.write_text('name = "run"\n[data]\nbinarize = "stochastic"\n')
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "kvae", "train", "--epochs", "40", "--out", str(folder)]
    starts = [[*command, "--recipe", str(recipe), *settings], [*command, "--resume"]]
    for start, least in zip(starts, ("epoch-000004", "epoch-000011"), strict=True):
        process = subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ})
        while process.poll() is None and not any(path.name >= least for path in folder.glob("checkpoint/epoch-*")):
            time.sleep(0.005)
        assert process.poll() is None, process.stderr.read().decode()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not Run.open(folder).finished
    subprocess.run([*command, "--resume"], check=True, stdout=subprocess.DEVNULL, env={**os.environ})
    assert contents(Run.open(folder)) == contents(whole)


@pytest.mark.slow
def test_a_kill_before_the_first_checkpoint_starts_anew(whole, tmp_path):
    """And one configuration gives one result, bit for bit."""
    with pytest.raises(StopError):
        training.train(config(), tmp_path / "broken", verbose=0, extra=[StopAt(0)])
    assert contents(training.resume(tmp_path / "broken", verbose=0)) == contents(whole)


@pytest.mark.slow
def test_more_epochs_go_on_as_if_asked_for_at_first(copied, tmp_path):
    longer = config(training={"epochs": 8})
    whole = training.train(longer, tmp_path / "whole", verbose=0)
    with pytest.raises(StopError):
        training.train(config(), tmp_path / "broken", verbose=0, extra=[StopAt(3)])
    for folder in (copied.folder, tmp_path / "broken"):  # one has finished, the other was killed
        assert contents(training.resume(folder, longer, verbose=0)) == contents(whole)


def test_resuming_a_finished_run_changes_nothing(copied):
    before = contents(copied)
    assert contents(training.resume(copied.folder, verbose=0)) == before


@pytest.mark.slow
def test_a_run_resumes_although_its_recipe_is_described_in_other_words(tmp_path):
    trained = training.train(config(training={"epochs": 1}, description="As it was."), tmp_path / "run", verbose=0)
    resumed = training.resume(trained.folder, config(training={"epochs": 2}, description="As it is."), verbose=0)
    assert len(resumed.history()["epoch"]) == 2
    assert Run.open(resumed.folder).config.description == "As it was."


def test_resuming_with_other_settings_names_what_differs(copied):
    with pytest.raises(UserError, match=r"model\.objective\.beta"):
        training.resume(copied.folder, config(model={"beta": 2.0}), verbose=0)


@pytest.mark.slow
def test_a_run_whose_learning_rate_depends_on_the_epochs_says_how_to_train_longer(tmp_path):
    changes = {"epochs": 1, "schedule": "cosine"}
    training.train(config(training=changes), tmp_path / "run", verbose=0)
    with pytest.raises(UserError, match=r"training\.epochs .*schedule is cosine.* --epochs 2 and another --out"):
        training.resume(tmp_path / "run", config(training={**changes, "epochs": 2}), verbose=0)


@pytest.mark.slow
def test_a_run_is_not_overwritten_unasked(copied):
    before = contents(copied)
    with pytest.raises(UserError, match="--overwrite"):
        training.train(config(seed=1), copied.folder, verbose=0)
    assert contents(copied) == before
    training.train(config(seed=1), copied.folder, verbose=0, overwrite=True)
    assert contents(copied) != before


def test_overwrite_leaves_a_folder_alone_that_is_no_run(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(UserError, match="not a run"):
        training.train(config(), tmp_path / "thesis", overwrite=True, verbose=0)
    assert (tmp_path / "thesis" / "chapter.tex").exists()


def test_a_data_error_leaves_an_existing_run_whole_under_overwrite(copied):
    before = contents(copied)
    with pytest.raises(UserError):
        training.train(config(data={"source": "npz:nowhere.npz"}), copied.folder, overwrite=True, verbose=0)
    assert contents(copied) == before


def test_damaged_model_ends_in_one_line(copied):
    path = copied.folder / "model.keras"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"model\.keras is damaged"):
        copied.load_model()


@pytest.mark.slow
def test_damaged_checkpoint_ends_in_one_line(tmp_path):
    with pytest.raises(StopError):
        training.train(config(), tmp_path / "run", verbose=0, extra=[StopAt(2)])
    (model,) = Path(tmp_path / "run" / "checkpoint").glob("*/model.keras")
    model.write_bytes(b"PK nonsense")
    with pytest.raises(UserError, match="is damaged"):
        training.resume(tmp_path / "run", verbose=0)


def test_a_full_disk_while_saving_keeps_the_old_model(copied, monkeypatch):
    run = copied
    before = (run.folder / "model.keras").read_bytes()
    vae = run.load_model()

    def full(self, path, *args, **kwargs):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", full)
    with pytest.raises(UserError, match="No space left on device"):
        run.save_models(vae)
    assert (run.folder / "model.keras").read_bytes() == before
    assert not list(run.folder.glob(".partial-*"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"activation": "tahn"}}, "activation"),
        ({"training": {"schedule": "exponential", "final_learning_rate": 1e-4, "warmup_epochs": 1}}, "warmup_epochs"),
        ({"data": {"validation": "train[200:400]"}}, "separate from the training"),
        ({"data": {"validation": "test[:10]"}, "training": {"early_stopping": 1}}, "separate from the training"),
        ({"data": {"batch_size": 301}}, "batch_size"),
        ({"data": {"train": "train[:0]"}}, "at least one image"),
        ({"training": {"plots": ["samples", "latice"]}}, "Unknown kind of plot 'latice'. Did you mean 'lattice'"),
    ],
)
def test_mistakes_that_only_the_data_or_keras_show(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        training.train(config(**changes), tmp_path / "run", verbose=0)
    assert not (tmp_path / "run").exists()


def test_schedules_reach_the_rates_they_promise():
    for changes, expected in [
        ({"schedule": "constant"}, [1e-3, 1e-3, 1e-3]),
        ({"schedule": "constant", "warmup_epochs": 2}, [0.0, 1e-3, 1e-3]),
        ({"schedule": "cosine", "warmup_epochs": 2, "final_learning_rate": 1e-4}, [0.0, 1e-3, 1e-4]),
        ({"schedule": "cosine"}, [1e-3, None, 0.0]),
        ({"schedule": "exponential", "final_learning_rate": 1e-5}, [1e-3, None, 1e-5]),
    ]:
        optimizer = training.build_optimizer(config(training=changes), steps=10)
        schedule = optimizer._learning_rate
        for step, rate in zip((0, 20, 60), expected, strict=True):
            value = schedule(step) if callable(schedule) else schedule.numpy()
            if rate is not None:
                assert float(value) == pytest.approx(rate, rel=1e-5, abs=1e-9), (changes, step)  # float32


def test_the_networks_follow_the_configuration():
    data = training.load_data(config())
    network = {"kind": "conv", "filters": [4], "dense_units": 8, "output_bias": "data", "decoder_l2": 0.5}
    values = {**config().to_dict(), "model": {"network": network}}
    vae = training.build_model(RunConfig.from_dict(values), data)
    assert vae.encoder.filters == (4,)
    assert vae.decoder.losses
    assert not vae.encoder.losses
    # The convolutional head has one bias a channel: the logit of the mean, over its pixels.
    expected = np.clip(data.pixel_mean, 1e-3, 1 - 1e-3)
    expected = np.log(expected / (1 - expected)).mean()
    assert float(vae.decoder.head.bias[0]) == pytest.approx(expected, rel=1e-4)  # float32 mean of 784


@pytest.mark.slow
def test_a_diverged_training_leaves_no_model_and_says_in_which_epoch(tmp_path):
    with pytest.raises(UserError, match=r"The training diverged in epoch 1"):
        training.train(config(training={"learning_rate": 1e30}), tmp_path / "run", verbose=0)
    assert not Run.open(tmp_path / "run").finished


@pytest.mark.slow
def test_a_run_that_stopped_early_has_no_more_epochs(tmp_path):
    changes = {
        "data": {"validation": "train[300:400]"},
        "training": {"epochs": 30, "early_stopping": 2, "learning_rate": 0.05},
    }
    training.train(config(**changes), tmp_path / "run", verbose=0)
    changes["training"]["epochs"] = 60
    with pytest.raises(UserError, match="Early stopping ended this run"):
        training.resume(tmp_path / "run", config(**changes), verbose=0)
    assert Run.open(tmp_path / "run").finished


@pytest.mark.slow
def test_an_empty_folder_is_filled_in_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f".partial-{2**22 + 1}-01234567-0123456789abcdef-").touch()
    assert training.train(config(training={"epochs": 1}), ".", verbose=0).finished


@pytest.mark.slow
def test_a_source_of_files_is_remembered_by_its_absolute_path(tmp_path, monkeypatch, rng):
    monkeypatch.chdir(tmp_path)
    np.savez("digits.npz", x_train=rng.integers(0, 256, (300, 4, 4), np.uint8), x_test=np.zeros((100, 4, 4), np.uint8))
    run = training.train(config(data={"source": "npz:digits.npz"}, training={"epochs": 1}), "run", verbose=0)
    assert run.config.data.source == f"npz:{tmp_path / 'digits.npz'}"


@pytest.mark.slow
def test_tensorboard_logs_on_request(tmp_path):
    run = training.train(config(training={"tensorboard": True, "epochs": 1}), tmp_path / "run", verbose=0)
    assert list((run.folder / "tensorboard").rglob("events*"))


def test_a_missing_tensorboard_is_found_before_a_run_is_made_or_replaced(tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find_spec(name))
    with pytest.raises(UserError, match="pip install tensorboard"):
        training.train(config(training={"tensorboard": True, "epochs": 1}), tmp_path / "run", verbose=0)
    assert not (tmp_path / "run").exists()


# What is shown while training


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A run, and the lines that its training printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        run = training.train(config(training=SHOWN), tmp_path_factory.mktemp("shown") / "run", verbose=0)
    return run, printed.getvalue().splitlines()


@pytest.mark.slow
def test_epochs_without_a_look_at_the_test_set_are_empty_in_the_history_file(shown):
    names, *rows = (line.split(",") for line in shown[0].history_file.read_text().splitlines())
    written = [row[names.index("val_elbo")] != "" for row in rows]
    assert written == [False, True, False, True, False, True]


def test_epochs_without_a_look_at_the_test_set_are_read_as_nan(shown):
    columns = shown[0].history()
    assert np.isfinite(columns["val_elbo"]).tolist() == [False, True, False, True, False, True]
    assert np.isfinite(columns["elbo"]).all()


def test_pictures_are_drawn_into_the_plots_of_the_run_while_training_and_at_its_end(shown):
    names = {path.name for path in shown[0].plots.iterdir()}
    assert names == {f"{kind}{epoch}.png" for kind in ("lattice", "learning_curves") for epoch in ("_epoch_0004", "")}


def test_losses_of_random_batches_are_printed_while_training(shown):
    assert all("random training batch" in line for line in shown[1])
    # 3 steps an epoch in one execution, after which Keras calls back.
    assert [line.split(":")[0] for line in shown[1]] == [f"epoch {epoch}, step {3 * epoch}" for epoch in range(1, 7)]
