"""Trains the classifier whose features `kvae evaluate RUN --only sample_quality` compares.

It learns from the 4,000 embedded training digits, grey and with pixels drawn as 0 or 1 in equal parts, so that its
features serve both kinds of images. Its weights are written as float16, and its accuracy on the 1,000 embedded test
digits is printed. It takes about a minute.
"""

import hashlib
from pathlib import Path

import click
import numpy as np

from kvae import cli
from kvae.evaluation import digit_features
from kvae.internal.files import atomic_file
from kvae.internal.tensorflow import keras, tf

SHIFT = 2  # pixels, the largest in each direction
BATCH, LEARNING_RATE = 100, 2e-3


def digits(part: str) -> tuple[np.ndarray, np.ndarray]:
    """The grey embedded digits of a split, `[N, 28, 28, 1]` in [0, 1], and their labels."""
    from kvae.data import open_source

    split = open_source("mnist5k").splits[part]
    return split.images.astype(np.float32) / 255, split.labels


def drawn(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Images whose pixels are 0 or 1, with their grey values as the probabilities of 1."""
    return (rng.random(x.shape, np.float32) < x).astype(np.float32)


def varied(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The images, each moved by up to `SHIFT` pixels, and half of them with pixels that are 0 or 1."""
    padded = np.pad(x, [(0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)])
    rows, columns = (rng.integers(0, 2 * SHIFT + 1, (len(x), 1)) + np.arange(28) for _ in range(2))
    moved = padded[np.arange(len(x))[:, None, None], rows[:, :, None], columns[:, None, :]]
    return np.where(rng.random((len(x), 1, 1, 1)) < 0.5, moved, drawn(moved, rng))


def trained(epochs: int, seed: int) -> keras.Model:
    """The classifier, as `digit_features` computes it, with a layer of logits on top."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    convolutions = [
        keras.layers.Conv2D(filters, size, strides=2, padding="same", activation="relu")
        for filters, size in ((16, 5), (32, 5), (32, 3))
    ]
    dense = [keras.layers.Flatten(), keras.layers.Dense(64, "relu"), keras.layers.Dropout(0.3), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input(digit_features.IMAGE_SHAPES[0]), *convolutions, *dense])
    x, y = digits("train")
    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, epochs * len(x) // BATCH)
    model.compile(
        keras.optimizers.Adam(schedule), keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False
    )
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        model.fit(varied(x, rng), y, batch_size=BATCH, verbose=0)
    return model


def weights_of(model: keras.Model) -> dict[str, np.ndarray]:
    """The arrays of the file. The features are scaled, so that the mean of their squares is 1 over the grey digits."""
    *convolutions, kernel, bias, logits, logits_bias = model.get_weights()
    to_features = keras.Model(model.inputs, model.layers[-3].output)
    scale = np.sqrt(np.mean(np.square(to_features.predict(digits("train")[0], verbose=0))))
    arrays = {
        **{f"convolution{n // 2}{'_bias' * (n % 2)}": each for n, each in enumerate(convolutions)},
        "features": kernel / scale,
        "features_bias": bias / scale,
        "logits": logits * scale,
        "logits_bias": logits_bias,
    }
    return {name: array.astype(np.float16) for name, array in arrays.items()}


def accuracy(path: Path, x: np.ndarray, y: np.ndarray) -> float:
    """The share of images whose class the classifier of a file finds."""
    with np.load(path) as archive:
        logits, bias = (archive[name].astype(np.float32) for name in ("logits", "logits_bias"))
    return float(np.mean(np.argmax(digit_features.features(x, path) @ logits + bias, axis=1) == y))


@click.command(help=__doc__)
@click.option(
    "--out",
    "path",
    default=digit_features.WEIGHTS,
    metavar="FILE.npz",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file of the weights.  [default: that of the package]",
)
@click.option("--epochs", default=40, show_default=True, type=click.IntRange(1, 1000), help="Number of epochs.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31 - 1), help="Seed of all numbers.")
def main(path: Path, epochs: int, seed: int) -> None:
    arrays = weights_of(trained(epochs, seed))
    with atomic_file(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
    x, y = digits("test")
    checksum = hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest()
    click.echo(f"{path}: {path.stat().st_size:,} bytes, SHA-256 of the arrays {checksum}")
    click.echo(f"accuracy on {len(x):,} test digits: {accuracy(path, x, y):.1%}, grey")
    click.echo(f"  {accuracy(path, drawn(x, np.random.default_rng(0)), y):.1%}, with pixels drawn as 0 or 1")


if __name__ == "__main__":
    cli.run(main, "train_features.py")
