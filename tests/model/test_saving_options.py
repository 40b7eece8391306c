"""The options of Keras's `save` and `save_weights` do what they do for any Keras model, and damage no file."""

import errno
import io
import os
import sys

import keras
import numpy as np
import pytest
from small_models import SHAPE, compiled, tiny, tiny_built

import kvae
from kvae.internal.errors import UserError

pytestmark = pytest.mark.usefixtures("without_xla")

OLD = b"the old file"


def tree(folder):
    """Every name below a folder, with the bytes of each file."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def ordinary():
    """A model of Keras alone."""
    return keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(3)])


def answers(monkeypatch, *lines):
    """Answers the questions in the terminal with these lines, one after another; an exception is raised."""
    left = list(lines)

    def answer(prompt=""):
        line = left.pop(0)
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr("builtins.input", answer)
    return left


def same_weights(first, second):
    pairs = zip(first.get_weights(), second.get_weights(), strict=True)
    return all(np.array_equal(ours, theirs) for ours, theirs in pairs)


# --- what works


def save_folder(model, path):
    model.save(path, zipped=False)


def save_with_keras(model, path):
    keras.saving.save_model(model, path)


@pytest.mark.parametrize("kind", [str, os.fspath, lambda path: path], ids=["str", "fspath", "Path"])
@pytest.mark.parametrize(
    ("save", "name"),
    [
        (lambda model, path: model.save(path), "m.keras"),
        (lambda model, path: model.save(path, zipped=True), "m.keras"),
        (lambda model, path: model.save(path, include_optimizer=False), "m.keras"),
        (save_folder, "m"),
        (save_folder, "m.1"),
        (save_with_keras, "m.keras"),
    ],
    ids=["save", "zipped", "without optimizer", "folder", "folder with a dot", "keras.saving"],
)
def test_a_saved_model_loads(vae, x, tmp_path, save, name, kind):
    save(vae, kind(tmp_path / name))
    loaded = keras.saving.load_model(tmp_path / name)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), vae.predict(x, verbose=0))
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("make", [tiny_built, lambda: tiny_built().encoder, ordinary], ids=["VAE", "encoder", "Keras"])
def test_a_file_object_takes_a_model_as_in_keras(make, tmp_path):
    model, buffer = make(), io.BytesIO()
    model.save(buffer, zipped=False)  # Keras takes a file object only so, whatever it says of zipped
    (tmp_path / "m.keras").write_bytes(buffer.getvalue())
    assert same_weights(keras.saving.load_model(tmp_path / "m.keras"), model)


@pytest.mark.parametrize(
    ("name", "options"),
    [("m.weights.h5", {}), (".weights.h5", {}), ("m.weights.json", {"max_shard_size": 1e-5})],
    ids=["one file", "no name before the ending", "shards"],
)
def test_saved_weights_load(x, tmp_path, name, options):
    vae, other = tiny_built(seed=1), tiny_built(seed=2)
    vae.save_weights(tmp_path / name, **options)
    other.load_weights(tmp_path / name)
    assert same_weights(other, vae)
    assert not [entry for entry in os.listdir(tmp_path) if entry.startswith(".partial")]


def test_a_folder_keeps_the_files_that_are_not_of_the_model(vae, tmp_path):
    (tmp_path / "notes.txt").write_bytes(b"mine")
    (tmp_path / "config.json").write_bytes(OLD)
    vae.save(tmp_path, zipped=False)
    assert (tmp_path / "notes.txt").read_bytes() == b"mine"
    assert same_weights(keras.saving.load_model(tmp_path), vae)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows needs a privilege for symbolic links")
@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5"])
def test_a_link_stays_a_link_and_its_file_is_replaced(vae, tmp_path, name):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / name).write_bytes(OLD)
    (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    (vae.save if name.endswith(".keras") else vae.save_weights)(tmp_path / name)
    assert (tmp_path / name).is_symlink()
    assert (tmp_path / "disk" / name).read_bytes() != OLD
    assert os.listdir(tmp_path / "disk") == [name]


# --- the question


SAVES = {
    "save": (lambda model, path: model.save(path, overwrite=False), "m.keras"),
    "save to a folder": (lambda model, path: model.save(path, overwrite=False, zipped=False), "m"),
    "keras.saving.save_model": (lambda model, path: keras.saving.save_model(model, path, overwrite=False), "m.keras"),
    "save_weights": (lambda model, path: model.save_weights(path, overwrite=False), "m.weights.h5"),
    "the encoder": (lambda model, path: model.encoder.save(path, overwrite=False), "m.keras"),
}
QUESTIONS = pytest.mark.parametrize(("save", "name"), SAVES.values(), ids=SAVES.keys())


def put_old(path):
    """An old file, or a folder with one, in the place of a save."""
    if path.suffix:
        path.write_bytes(OLD)
    else:
        path.mkdir()
        (path / "config.json").write_bytes(OLD)


@QUESTIONS
@pytest.mark.parametrize("lines", [["n"], ["", "what?", " N "]], ids=["n", "n at last"])
def test_an_answer_of_no_leaves_everything_as_it_was(vae, tmp_path, monkeypatch, save, name, lines):
    put_old(tmp_path / name)
    before, left = tree(tmp_path), answers(monkeypatch, *lines)
    save(vae, tmp_path / name)
    assert (tree(tmp_path), left) == (before, [])


@QUESTIONS
def test_an_answer_of_yes_replaces_the_old(vae, tmp_path, monkeypatch, save, name):
    put_old(tmp_path / name)
    answers(monkeypatch, "y")
    save(vae, tmp_path / name)
    assert OLD not in tree(tmp_path).values()
    assert os.listdir(tmp_path) == [name]


@QUESTIONS
def test_nothing_is_asked_where_nothing_is_replaced(vae, tmp_path, monkeypatch, save, name):
    answers(monkeypatch)  # any question would find no answer
    save(vae, tmp_path / name)
    assert os.listdir(tmp_path) == [name]


@QUESTIONS
@pytest.mark.parametrize("error", [EOFError(), KeyboardInterrupt()], ids=repr)
def test_without_an_answer_everything_is_as_it_was(vae, tmp_path, monkeypatch, save, name, error):
    put_old(tmp_path / name)
    before = tree(tmp_path)
    answers(monkeypatch, error)
    with pytest.raises((EOFError, KeyboardInterrupt, UserError)):
        save(vae, tmp_path / name)
    assert tree(tmp_path) == before


def test_the_question_and_the_error_name_the_file_of_the_user(vae, tmp_path, monkeypatch):
    (tmp_path / "m.keras").write_bytes(OLD)
    asked = []

    def answer(prompt):
        asked.append(prompt)
        raise EOFError

    monkeypatch.setattr("builtins.input", answer)
    with pytest.raises(UserError, match=r"whether to replace .*m\.keras.*no terminal.*overwrite=True"):
        vae.save(tmp_path / "m.keras", overwrite=False)
    assert asked == [f"{tmp_path / 'm.keras'} exists. Overwrite it? [y/n] "]


# --- what fails


WRITES = {
    "save": (lambda model, path: model.save(path), "m.keras"),
    "save to a folder": (save_folder, "m"),
    "save_weights": (lambda model, path: model.save_weights(path), "m.weights.h5"),
    "save_weights in shards": (lambda model, path: model.save_weights(path, max_shard_size=1e-5), "m.weights.json"),
    "save as HDF5": (lambda model, path: model.save(path), "m.h5"),
    "the encoder": (lambda model, path: model.encoder.save(path), "m.keras"),
}
FAULTS = [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device"), TypeError("cannot be serialized")]


@pytest.mark.parametrize(("save", "name"), WRITES.values(), ids=WRITES.keys())
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_a_save_that_breaks_off_leaves_everything_as_it_was(vae, tmp_path, monkeypatch, save, name, fault):
    put_old(tmp_path / name)
    before = tree(tmp_path)

    def fail(*_, **__):
        raise fault

    monkeypatch.setattr(keras.layers.Dense, "save_own_variables", fail)
    monkeypatch.setattr("keras.src.legacy.saving.legacy_h5_format.save_weights_to_hdf5_group", fail)
    with pytest.raises((KeyboardInterrupt, OSError, TypeError)):  # a full disk is a UserError and an OSError
        save(vae, tmp_path / name)
    assert tree(tmp_path) == before


def test_a_part_that_cannot_be_serialized_leaves_the_old_file(vae, tmp_path, monkeypatch):
    vae.save(tmp_path / "m.keras")
    before = tree(tmp_path)
    monkeypatch.setattr(kvae.priors.StandardNormal, "get_config", lambda _: {"made": object()})
    with pytest.raises(TypeError):
        vae.save(tmp_path / "m.keras")
    assert tree(tmp_path) == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of a process's files")
@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5", "m"])
def test_a_disk_that_is_full_leaves_the_old_file(tmp_path, name):
    import resource

    large = tiny_built(hidden_units=(4000,))
    put_old(tmp_path / name)
    before, limits = tree(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    save = {"m.keras": large.save, "m": lambda path: large.save(path, zipped=False)}.get(name, large.save_weights)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises((OSError, RuntimeError)):  # h5py raises either
            save(tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("save", "name"),
    [
        (lambda model, path: model.save(path), "m"),
        (lambda model, path: model.save(path), "m.txt"),
        (lambda model, path: model.save(path, zipped=False), "m.keras"),
        (lambda model, path: model.save(path, foo=1), "m.keras"),
        (lambda model, path: model.save(path, save_format="tf"), "m"),
        (lambda model, path: model.save_weights(path), "m.h5"),
        (lambda model, path: model.save_weights(path, max_shard_size=1), "m.h5"),
        (lambda model, path: model.save(io.BytesIO()), "m.keras"),
    ],
    ids=["no suffix", "a suffix", "zipped", "option", "format", "weights", "shards", "file object"],
)
def test_what_keras_refuses_has_the_message_of_keras(vae, tmp_path, save, name):
    (tmp_path / name).write_bytes(OLD)
    messages = []
    for model in (vae, ordinary()):
        with pytest.raises(ValueError) as refused:  # noqa: PT011 - compared below
            save(model, tmp_path / name)
        messages.append(str(refused.value).split(" object at 0x")[0])
    assert messages[0] == messages[1]
    assert tree(tmp_path) == {name: OLD}


@pytest.mark.parametrize("place", ["hf://a/b", "gs://bucket/m.keras", "s3://bucket/m.keras"])
def test_a_remote_place_is_left_to_keras(vae, tmp_path, monkeypatch, place):
    received = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(keras.Model, "save", lambda _, path, *rest, **__: received.append((path, *rest)))
    vae.save(place, zipped=False)
    assert received == [(place, True, False)]
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5", "m.weights.json"])
def test_a_folder_in_place_of_the_file_is_named(vae, tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine.txt").write_bytes(b"mine")
    save = {"m.keras": vae.save, "m.weights.h5": vae.save_weights}.get(
        name, lambda path: vae.save_weights(path, max_shard_size=1)
    )
    with pytest.raises(UserError, match=r"Could not write .*(Is a directory|is a folder there)"):
        save(tmp_path / name)
    assert tree(tmp_path) == {name: None, f"{name}/mine.txt": b"mine"}


def test_a_file_in_place_of_the_folder_is_named(vae, tmp_path):
    (tmp_path / "m").write_bytes(OLD)
    with pytest.raises(UserError, match=r"Could not write .*m: Not a directory"):
        vae.save(tmp_path / "m", zipped=False)
    assert tree(tmp_path) == {"m": OLD}


# --- the callbacks of Keras


def stop_in_epoch(number):
    def stop(epoch, logs):
        if epoch == number:
            raise KeyboardInterrupt

    return keras.callbacks.LambdaCallback(on_epoch_begin=stop)


@pytest.mark.parametrize("only_weights", [False, True])
def test_a_model_checkpoint_keeps_the_best_model(x, tmp_path, only_weights):
    name = "{epoch}.weights.h5" if only_weights else "{epoch}.keras"
    callback = keras.callbacks.ModelCheckpoint(str(tmp_path / name), save_weights_only=only_weights)
    vae = compiled(tiny())
    vae.fit(x, epochs=2, verbose=0, callbacks=[callback])
    assert sorted(os.listdir(tmp_path)) == [name.format(epoch=1), name.format(epoch=2)]
    other = tiny_built(seed=5)
    other.load_weights(tmp_path / name.format(epoch=2))
    assert same_weights(other, vae)


@pytest.mark.parametrize("only_weights", [False, True])
def test_a_model_checkpoint_that_is_a_folder_has_the_message_of_keras(x, tmp_path, only_weights):
    path = tmp_path / ("m.weights.h5" if only_weights else "m.keras")
    path.mkdir()
    callback = keras.callbacks.ModelCheckpoint(str(path), save_weights_only=only_weights)
    with pytest.raises(OSError, match="specify a non-directory filepath"):
        compiled(tiny()).fit(x, verbose=0, callbacks=[callback])


@pytest.mark.slow
def test_training_goes_on_from_the_backup_of_keras(x, tmp_path):
    def train(*callbacks):
        vae = compiled(tiny_built())
        vae.fit(x, epochs=4, verbose=0, shuffle=False, callbacks=[backup(), *callbacks])
        return vae

    def backup():
        return keras.callbacks.BackupAndRestore(str(tmp_path / "backup"), delete_checkpoint=False)

    with pytest.raises(KeyboardInterrupt):
        train(stop_in_epoch(2))
    resumed = train()
    assert sorted(os.listdir(tmp_path / "backup")) == ["latest.weights.h5", "training_metadata.json"]
    assert int(resumed.optimizer.iterations.numpy()) == 4
