"""Which folders are runs, which of their files are read back, and who may write them."""

import json
import re
import shutil
from pathlib import Path

import kills
import numpy as np
import pytest
from tiny_runs import tiny_run

from kvae import training
from kvae.internal import locks, partials, sealed
from kvae.internal.errors import KvaeWarning, UserError
from kvae.plotting import figures
from kvae.training import checkpoints, history, results, runs, train_resume
from kvae.training.runs import FILES, Run, check_free, read_evaluation

pytestmark = pytest.mark.usefixtures("without_xla")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run."""
    return tiny_run(tmp_path_factory.mktemp("whole")).folder


@pytest.fixture
def run(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def everything(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def with_epochs(folder, epochs):
    config = Run.open(folder).config
    return config.model_copy(update={"training": config.training.model_copy(update={"epochs": epochs})})


# --- which folders are replaced


@pytest.mark.slow
def test_a_run_may_be_replaced(run):
    (run / "plots").mkdir()
    pictures = ("samples.png", "exported_samples.png", "plots/lattice_epoch_0010.svg")
    for name in (*pictures, "plots/complete.json", "evaluation-mnist.json"):
        (run / name).touch()
    check_free(run, overwrite=True)


def test_all_pictures_are_files_of_a_run():
    for kind in (*figures.KINDS, "complete", "complete_contours", "samples_grid"):
        assert not runs.replacing.not_among([f"plots/{kind}.png", f"plots/{kind}_epoch_0001.pdf"], FILES)


@pytest.mark.parametrize(
    "name", ["thesis.tex", "plots/holiday.png", "plots/notes.txt", "checkpoint/x", "model.keras.bak", "samples/a.png"]
)
def test_what_kvae_did_not_write_is_not_replaced(run, name):
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).touch()
    before = everything(run)
    with pytest.raises(UserError, match=f"would be lost: {name}"):
        training.train(Run.open(run).config, run, overwrite=True)
    assert everything(run) == before


CONFIGURATIONS = {
    "of another program": {"model_type": "llama"},
    "a list": [],
    "a number": 5,
    "empty": {},
    "without protocol": {"config": {}, "versions": {"kvae": "0.3.0"}},
    "without versions": {"config": {}, "protocol": {}},
    "versions of another program": {"config": {}, "protocol": {}, "versions": {"transformers": "4"}},
    "versions that are no texts": {"config": {}, "protocol": {}, "versions": {"kvae": 1}},
    "config is a list": {"config": [], "protocol": {}, "versions": {"kvae": "0.3.0"}},
    "config has other keys": {"config": {"layers": 5}, "protocol": {}, "versions": {"kvae": "0.3.0"}},
    "model is a number": {"config": {"model": 3}, "protocol": {}, "versions": {"kvae": "0.3.0"}},
}


@pytest.mark.parametrize("content", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_a_folder_with_another_config_json_is_no_run(tmp_path, content, call):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(content))
    (folder / "thesis.tex").write_text("years of work")
    before = everything(folder)
    status, _, error = call("train", "--dataset", "mnist5k", "--out", folder, "--overwrite")
    assert status == 2
    assert error.count("\n") == 1
    assert "is not a run of kvae, so it is not replaced" in error
    with pytest.raises(UserError):
        Run.open(folder)
    assert everything(folder) == before


# --- who may write a run


def test_a_run_that_another_process_writes_is_left_alone(run, call):
    config = Run.open(run).config
    before = everything(run)
    with locks.locked(run):
        for begin in (
            lambda: training.resume(run),
            lambda: training.resume(run, with_epochs(run, 3)),
            lambda: training.train(config, run, overwrite=True),
            lambda: check_free(run, overwrite=True),
        ):
            with pytest.raises(locks.LockedError, match="Another process is writing"):
                begin()
        status, _, error = call("train", "--resume", "--out", run)
        assert (status, error.count("\n")) == (2, 1)
        assert Run.open(run).load_model().built  # readers are unaffected
        assert call("sample", run, "-n", 1)[0] == 0
    assert {**everything(run), ".lock": b""} == {**before, ".lock": b""}


@pytest.mark.slow
def test_a_run_is_locked_while_it_trains(tmp_path):
    seen = []

    class Look(training.callbacks.keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            with pytest.raises(locks.LockedError):
                training.resume(tmp_path / "run")
            seen.append(epoch)

    run = tiny_run(tmp_path)
    training.resume(run.folder, with_epochs(run.folder, 2), verbose=0, extra=[Look()])
    assert seen == [1]
    training.resume(run.folder, verbose=0)


# --- files that are read back

STATES = {
    "fewer than no epochs": {"epochs": -5},
    "half an epoch": {"epochs": 2.5},
    "no number": {"epochs": None},
    "a text": {"epochs": "1"},
    "a truth value": {"epochs": True},
    "a billion": {"epochs": 10**9},
    "more than its history": {"epochs": 2},
    "no history": {"history": []},
    "a history of texts": {"history": [{"epoch": 1, "loss": "low"}]},
    "a history of another epoch": {"history": [{"epoch": 2, "loss": 1.0}]},
    "stopped is a number": {"stopped": 0},
    "unknown key": {"weights": "elsewhere"},
    "early stopping without values": {"early_stopping": {}},
    "early stopping without its weights": {"early_stopping": {"wait": 0, "best": 1.0, "best_epoch": 0}},
    "another file": {"files": {"model.keras": "0" * 64}},
    "a file outside": {"files": {"../config.json": "0" * 64}},
    "another configuration": {"config": {"model": {"latent_dim": 0}}},
}


@pytest.mark.parametrize("change", STATES.values(), ids=STATES)
@pytest.mark.parametrize("sealed_again", [True, False])
def test_a_state_that_kvae_did_not_write_is_refused_in_one_line(run, change, sealed_again, call):
    (run / "evaluation.json").unlink()
    path = next((run / "checkpoint").iterdir()) / "state.json"
    content = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps(sealed.seal(content) if sealed_again else content))
    status, _, error = call("train", "--resume", "--out", run)
    assert (status, error.count("\n")) == (2, 1), error
    assert "is damaged" in error or (sealed_again and "Expected" in error)


def test_every_changed_byte_of_a_state_is_refused(run):
    folder = next((run / "checkpoint").iterdir())
    content = (folder / "state.json").read_bytes()
    digits = [place for place, byte in enumerate(content) if chr(byte).isdigit()]
    for place in digits[:: max(1, len(digits) // 200)]:
        digit = b"1" if content[place : place + 1] != b"1" else b"2"
        (folder / "state.json").write_bytes(content[:place] + digit + content[place + 1 :])
        with pytest.raises(UserError, match="is damaged"):
            checkpoints.read_state(folder)


@pytest.mark.parametrize("name", ["model.keras", "best_weights.npz"])
def test_a_damaged_file_of_a_checkpoint_is_named(tmp_path, name):
    folder = tmp_path / "epoch-000001"
    folder.mkdir()
    (folder / name).write_bytes(b"content")
    digest = runs.files.digest(folder / name)
    state = {"epochs": 1, "stopped": False, "history": [{"epoch": 1}], "files": {name: digest}}
    sealed.write(folder / "state.json", state)
    assert checkpoints.read_state(folder).files == {name: digest}
    (folder / name).write_bytes(b"contenu")
    with pytest.raises(UserError, match=rf"epoch-000001 is damaged \({name} is not the file that state\.json states"):
        checkpoints.read_state(folder)


def test_the_newest_checkpoint_is_that_of_most_epochs(tmp_path):
    for name in ("epoch-000009", "epoch-1000000", "epoch-999999", "epoch-thesis", "notes"):
        (tmp_path / name).mkdir()
    assert checkpoints.latest_checkpoint(tmp_path).name == "epoch-1000000"


@pytest.mark.parametrize("key", ["data.batch_size", "seed", "model.latent_dim", "training.learning_rate"])
def test_a_configuration_that_was_edited_is_not_continued(run, key):
    """Also of a finished run, whose config.json would then claim what its weights are not."""
    path = run / "config.json"
    content = json.loads(path.read_text())
    section = content["config"]
    for name in key.split(".")[:-1]:
        section = section[name]
    section[key.split(".")[-1]] = 7
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"training began\. These differ: {re.escape(key)} \(run: .*, received: 7"):
        training.resume(run)


def test_data_that_have_changed_are_not_continued_with(run, tmp_path):
    data = Path(Run.open(run).config.data.source.removeprefix("npz:"))
    kept = data.read_bytes()
    try:
        images = np.zeros((30, 6, 5), np.uint8)
        np.savez(data, x_train=images, x_test=images)
        with pytest.raises(UserError, match=r"Their train was .*20 images.* and is now .*30 images"):
            training.resume(run, with_epochs(run, 2))
    finally:
        data.write_bytes(kept)


@pytest.mark.slow
@pytest.mark.parametrize("package", ["kvae", "tensorflow", "keras"])
def test_another_version_than_at_the_beginning_is_said(run, package):
    path = run / "config.json"
    content = json.loads(path.read_text())
    content["versions"][package] = "0.0.1"
    path.write_text(json.dumps(content))
    with pytest.warns(KvaeWarning, match=rf"This training began with {package} 0\.0\.1 \(now \d"):
        training.resume(run, with_epochs(run, 2), verbose=0)
    assert json.loads(path.read_text())["versions"][package] == "0.0.1"  # that of the beginning


HISTORIES = {
    "one column": "epoch\n1\n",
    "no epochs": "loss,elbo,reconstruction,kl\n1,1,1,1\n",
    "texts": "epoch,loss,elbo,reconstruction,kl\n1,a,b,c,d\n",
    "too few cells": "epoch,loss,elbo,reconstruction,kl\n1,2\n",
    "too many cells": "epoch,loss,elbo,reconstruction,kl\n1,2,3,4,5,6\n",
    "epochs in another order": "epoch,loss,elbo,reconstruction,kl\n2,2,3,4,5\n1,2,3,4,5\n",
    "an open quote": 'epoch,loss,elbo,reconstruction,kl\n1,"2,3,4,5\n',
    "no text": "\0\1\2",
    "a picture": "\x89PNG\r\n",
}


@pytest.mark.parametrize("content", HISTORIES.values(), ids=HISTORIES)
def test_a_history_that_kvae_did_not_write_is_refused(tmp_path, content):
    (tmp_path / "history.csv").write_text(content)
    with pytest.raises(UserError, match=r"history\.csv"):
        history.read(tmp_path / "history.csv")


def test_a_run_without_epochs_has_an_empty_history(tmp_path):
    history.write(tmp_path / "history.csv", [])
    assert history.read(tmp_path / "history.csv") == {}


EVALUATIONS = {
    "a list": [],
    "no protocol": {"elbo": -1.0},
    "a text": {"elbo": "low", "protocol": {}},
    "nothing": {"elbo": None, "protocol": {}},
    "a truth value": {"elbo": True, "protocol": {}},
    "a table": {"elbo": {"mean": 1.0}, "protocol": {}},
    "a list of texts": {"kl_per_dimension": ["a"], "protocol": {}},
}


@pytest.mark.parametrize("content", EVALUATIONS.values(), ids=EVALUATIONS)
def test_an_evaluation_that_kvae_did_not_write_is_refused(tmp_path, content):
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(sealed.seal(content) if isinstance(content, dict) else content))
    with pytest.raises(UserError, match=r"evaluation\.json|JSON object"):
        read_evaluation(path)


def test_a_killed_training_that_had_written_its_last_checkpoint_has_its_whole_history(run):
    """The checkpoint is written before the last row of history.csv."""
    expected = (run / "history.csv").read_text()
    (run / "history.csv").write_text(expected.splitlines()[0] + "\n")
    (run / "evaluation.json").unlink()
    training.resume(run, verbose=0)
    assert (run / "history.csv").read_text() == expected


@pytest.mark.slow
def test_an_evaluation_of_an_older_model_is_not_written(run, monkeypatch):
    """The run is lengthened by another process while it is evaluated."""

    def data_for(*arguments):
        training.resume(run, with_epochs(run, 2), verbose=0)
        return train_resume.data_for(*arguments)

    monkeypatch.setattr(results, "data_for", data_for)
    with pytest.raises(UserError, match="was trained further while it was evaluated"):
        results.evaluate(Run.open(run))


def test_strays_of_killed_commands_are_gone_after_the_next_one(run, call):
    """Wherever in the run they are, and whatever the next command is that opens it."""
    name = f".partial-{kills.DEAD}-{partials._machine()}-0123456789abcdef-a.png"
    for folder in ("", "plots", "checkpoint", "bundle"):
        (run / folder).mkdir(exist_ok=True)
        (run / folder / name).touch()
    (run.parent / name).touch()
    assert call("evaluate", run)[0] == 0
    assert not kills.unfinished(run.parent)


def test_a_damaged_file_does_not_fill_the_screen(tmp_path):
    folder = tmp_path / "epoch-000001"
    folder.mkdir()
    sealed.write(folder / "state.json", {"x" * 100_000: 1})
    (tmp_path / "history.csv").write_text("epoch,loss,elbo,reconstruction,kl\n1,2,3,4," + "x" * 100_000)
    sealed.write(tmp_path / "evaluation.json", {"x" * 100_000: "a", "protocol": {}})
    readers = (
        lambda: checkpoints.read_state(folder),
        lambda: history.read(tmp_path / "history.csv"),
        lambda: read_evaluation(tmp_path / "evaluation.json"),
    )
    for read in readers:
        with pytest.raises(UserError) as raised:
            read()
        assert len(str(raised.value)) < 1000


def test_the_name_of_a_run_in_the_default_place_is_answered_with_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "saved_models" / "demo").mkdir(parents=True)
    (tmp_path / "saved_models" / "demo" / "config.json").touch()
    with pytest.raises(UserError, match=f"Did you mean {re.escape(repr(str(Path('saved_models/demo'))))}"):
        Run.open("demo")


@pytest.mark.slow
def test_a_latent_size_that_does_not_suit_is_refused_before_the_data_are_loaded(tmp_path, monkeypatch):
    run = tiny_run(tmp_path, latent_dim=4)
    monkeypatch.setattr(results, "data_for", None)
    for refused in (
        lambda: list(results.draw(run, ["samples", "map(n=3)"])),
        lambda: results.complete(run, exact=True),
        lambda: results.complete(run, plain=True),
    ):
        with pytest.raises(UserError, match="This model has 4"):
            refused()
