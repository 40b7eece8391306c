"""`kvae.internal.xla_cache`: what XLA compiled is kept, and no damaged file of it is used."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import tensorflow as tf

from kvae.internal import caches, xla_cache

FLAGS = "import os; from kvae.internal import xla_cache; xla_cache.begin(); print(os.environ.get('TF_XLA_FLAGS', ''))"
TRAINING = """
import hashlib, sys
from pathlib import Path
import keras, numpy as np, kvae
keras.utils.set_random_seed(0)
x = np.random.default_rng(0).integers(0, 2, (40, 8, 8, 1)).astype("float32")
vae = kvae.VAE(2, hidden_units=(4,))
vae.compile(optimizer="adam")
for program in Path(sys.argv[1]).rglob("*.pb") if sys.argv[1] else ():
    program.write_bytes(program.read_bytes()[:1000])
vae.fit(x, epochs=1, batch_size=10, verbose=0)
print(hashlib.sha256(b"".join(weight.tobytes() for weight in vae.get_weights())).hexdigest())
"""


def python(code, *arguments, cache, **environment):
    """What a new process prints."""
    environment = {**os.environ, "TF_XLA_FLAGS": "", caches.VARIABLE: str(cache), **environment}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip(), done.stderr


def program(folder, name="a", content=b"program", age=0, digest=True):
    """A file like those of TensorFlow."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.pb"
    path.write_bytes(content)
    if digest:
        xla_cache.record(folder)
    os.utime(path, (path.stat().st_mtime - age,) * 2)
    return path


def test_tensorflow_is_told_the_folder(tmp_path):
    flags, _ = python(FLAGS, cache=tmp_path / "cache", TF_XLA_FLAGS="--tf_xla_clustering_debug=false")
    assert flags.startswith("--tf_xla_clustering_debug=false --tf_xla_persistent_cache_directory=")
    (folder,) = (tmp_path / "cache" / "xla").iterdir()
    assert f"={folder} " in flags


@pytest.mark.parametrize(
    ("cache", "environment"),
    [
        ("", {}),
        ("a file", {}),
        ("a_file", {}),
        ("cache", {"TF_XLA_FLAGS": "--tf_xla_persistent_cache_directory=mine"}),
    ],
)
def test_a_cache_that_nobody_asked_for_or_that_cannot_be_is_none(tmp_path, cache, environment):
    (tmp_path / "a_file").write_text("")
    flags, _ = python(FLAGS, cache=cache and tmp_path / cache, **environment)
    assert flags == environment.get("TF_XLA_FLAGS", "")


def test_other_threads_or_flags_of_xla_have_programs_of_their_own(tmp_path):
    for environment in ({}, {"XLA_FLAGS": "--xla_cpu_enable_fast_math=true"}, {"TF_NUM_INTRAOP_THREADS": "1"}):
        python(FLAGS, cache=tmp_path, **environment)
    assert len(list((tmp_path / "xla").iterdir())) == 3


def test_whole_programs_stay(tmp_path):
    kept = program(tmp_path / "key")
    xla_cache.clean(tmp_path)
    assert kept.read_bytes() == b"program"


@pytest.mark.parametrize("content", [b"", b"progra", b"Program", b"program "])
def test_damaged_programs_are_deleted(tmp_path, content):
    whole, damaged = program(tmp_path / "key", "a"), program(tmp_path / "key", "b")
    damaged.write_bytes(content)
    xla_cache.clean(tmp_path)
    assert sorted(path.name for path in whole.parent.iterdir()) == ["a.pb", "a.sha256"]


def test_a_digest_that_is_no_text_ends_nothing(tmp_path):
    damaged = program(tmp_path / "key")
    damaged.with_suffix(".sha256").write_bytes(b"\xff\xfe")
    xla_cache.clean(tmp_path)
    assert not damaged.exists()


def test_programs_without_a_digest_are_deleted(tmp_path):
    unfinished = program(tmp_path / "key", digest=False)
    xla_cache.clean(tmp_path)
    assert not unfinished.exists()


def test_the_oldest_programs_are_deleted_if_there_are_too_many(tmp_path, monkeypatch):
    monkeypatch.setattr(xla_cache, "MOST_BYTES", 20)
    for name, age in (("new", 0), ("old", 300), ("older", 600)):
        program(tmp_path / f"of_{name}", name, b"10 bytes..", age)
    xla_cache.clean(tmp_path)
    assert sorted(path.stem for path in tmp_path.rglob("*.pb")) == ["new", "old"]


@pytest.mark.parametrize(("age", "stays"), [(100, True), (100_000, False)])
def test_what_a_killed_process_left_is_deleted_after_a_day(tmp_path, age, stays):
    partial = program(tmp_path / "key", age=age, digest=False).rename(tmp_path / "key" / "a.pb.tmp")
    xla_cache.clean(tmp_path)
    assert partial.exists() == stays


def test_a_program_has_the_same_names_whatever_was_traced_before():
    def count(last):
        return tf.while_loop(lambda i: i < last, lambda i: tf.cond(i > 3, lambda: i + 1, lambda: i + 2), [0])

    def names(traced_before):
        for number in range(traced_before):
            tf.function(lambda last, number=number: count(last + number)).get_concrete_function(tf.constant(1))
        concrete = tf.function(xla_cache.named_alike(count)).get_concrete_function(tf.constant(9))
        inner = [each.signature.name for each in concrete.graph.as_graph_def().library.function]
        assert len(inner) > 1
        # Another trace in the same process begins at the next round number.
        rounded = [re.sub(r"\d+", lambda number: str(int(number[0]) % xla_cache.NAMES), name) for name in inner]
        return [int(concrete.name.rsplit(b"_", 1)[1]) % xla_cache.NAMES, *sorted(rounded)]

    assert names(0) == names(1) == names(7)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A cache that four trainings have used, and what each of them printed."""
    cache = tmp_path_factory.mktemp("filled") / "cache"
    # TensorFlow writes a program in one of a few orders.
    return cache, [python(TRAINING, "", cache=cache) for _ in range(4)]


@pytest.fixture
def copied(filled, tmp_path):
    return shutil.copytree(filled[0], tmp_path / "cache")  # with the times of the files


@pytest.mark.slow
def test_trainings_with_kept_programs_and_with_damaged_ones_give_the_same_weights(filled, copied):
    cache = copied
    expected, _ = python(TRAINING, "", cache="")
    programs = list(cache.rglob("*.pb"))
    assert programs
    assert all(path.with_suffix(".sha256").is_file() for path in programs)
    for weights, messages in filled[1]:
        assert weights == expected
        assert "without XLA" not in messages
    for path in programs:
        path.write_bytes(b"damaged")
    again, messages = python(TRAINING, "", cache=cache)
    assert again == expected
    assert "without XLA" not in messages


@pytest.mark.slow
def test_a_program_that_is_damaged_while_it_is_used_ends_no_training(copied):
    weights, messages = python(TRAINING, str(copied), cache=copied)
    assert len(weights) == 64
    assert "This model runs without XLA" in messages
