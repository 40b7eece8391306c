"""One tiny run per part of a model: every name in the tables of kvae, so that a new part is in the tests at once."""

import itertools
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kvae import training
from kvae.model.likelihoods import LIKELIHOODS
from kvae.training.build import TABLES
from kvae.training.config import RunConfig
from kvae.training.part_tables import KINDS
from kvae.training.runs import Run

# Sections [model] of parts whose defaults are too large for a few images of 6 x 5 pixels, or that need another part.
SMALLEST: dict[str, dict[str, Any]] = {
    "network=mlp": {"network": {"kind": "mlp", "hidden_units": [4]}},
    "network=conv": {"network": {"kind": "conv", "filters": [2, 2], "dense_units": 4}},
    "network=residual": {"network": {"kind": "residual", "filters": [2, 2], "dense_units": 4}},
    "prior=vamp": {"prior": {"kind": "vamp", "components": 3}},
}
# Objectives that are refused with other parts of a kind than these, or only with those.
ONLY_WITH = {
    "objective=beta_tc": ["posterior=diagonal_gaussian"],
    "objective=free_bits": ["posterior=diagonal_gaussian", "prior=standard_normal"],
    "objective=info": ["prior=standard_normal"],
}
NOT_WITH = {"objective=dreg": ["prior=vamp"]}

DEFAULT_PARTS = tuple(f"{part}={kind}" for part, kind in KINDS.items())
# Each case is the parts that are not the default: none of them, or one.
EACH = [(), *((f"{part}={kind}",) for part in KINDS for kind in TABLES[part][0] if kind != KINDS[part])]


def refused() -> list[tuple[str, str]]:
    """The pairs of parts of which no model can be made."""
    pairs = [(name, other) for name, others in NOT_WITH.items() for other in others]
    for name, partners in ONLY_WITH.items():
        for partner in partners:
            kinds = TABLES[partner.partition("=")[0]][0]
            others = [f"{partner.partition('=')[0]}={kind}" for kind in kinds]
            pairs += [(name, other) for other in others if other != partner]
    return pairs


def product() -> list[tuple[str, ...]]:
    """Every combination of one part of each kind that is not refused."""
    names = [[f"{part}={kind}" for kind in TABLES[part][0]] for part in KINDS]
    every = (tuple(sorted(set(parts) - set(DEFAULT_PARTS))) for parts in itertools.product(*names))
    pairs = [set(pair) for pair in refused()]
    return [parts for parts in every if len(parts) > 1 and not any(pair <= set(parts) for pair in pairs)]


def cases() -> list[Any]:
    """The cases of a parametrized test: the default parts, and as longer checks each other part.

    If KVAE_EVERY_COMBINATION is set, they are all of these and every combination. With `--dist loadgroup`, one worker
    has all tests of a case, which share its training.
    """
    on_request = os.environ.get("KVAE_EVERY_COMBINATION")
    marked = []
    for parts in EACH + product() if on_request else EACH:
        name = " ".join(parts) or "defaults"
        slow = [pytest.mark.slow] if parts and not on_request else []
        marked.append(pytest.param(parts, id=name, marks=[pytest.mark.xdist_group(name), *slow]))
    return marked


def model_of(parts: tuple[str, ...]) -> dict[str, Any]:
    """The section [model] of a configuration with these parts, and otherwise with the default ones."""
    model: dict[str, Any] = {"latent_dim": 2}
    for name in (*DEFAULT_PARTS, *parts):
        part, _, kind = name.partition("=")
        model.update(SMALLEST.get(name, {part: {"kind": kind}}))
    return model


def values_of(parts: tuple[str, ...], source: str) -> dict[str, Any]:
    """The configuration of a run with these parts: two epochs of three batches, the last of which has 4 images."""
    data: dict[str, Any] = {"source": source, "batch_size": 8}
    likelihood = model_of(parts)["likelihood"]["kind"]
    data["binarize"] = "threshold" if LIKELIHOODS[likelihood].support == (0.0, 1.0, True) else "none"
    return {
        "name": "run",
        "data": data,
        "model": model_of(parts),
        "training": {"epochs": 2, "learning_rate": 0.01, "checkpoint_seconds": 0.0},
    }


def settings_of(values: dict[str, Any]) -> list[str]:
    """The configuration as options `--set` of `kvae train`; TOML writes texts, numbers and lists as JSON does."""
    flat = []
    for section in ("data", "model", "training"):
        for key, value in values[section].items():
            options = value if isinstance(value, dict) else {"": value}
            flat += [(f"{section}.{key}.{name}".rstrip("."), option) for name, option in options.items()]
    return [f"--set={key}={json.dumps(value)}" for key, value in flat]


def is_named(name: str, message: str) -> bool:
    """Whether a message has the name of a part, in a recipe or in Python."""
    part, _, kind = name.partition("=")
    return kind in message or TABLES[part][0][kind].__name__ in message


def source_of_images(folder: Path) -> str:
    """A source of 20 + 12 images of 6 x 5 pixels in three classes, in a file within `folder`.

    Most pixels are dark, which a model learns in a few steps. They have four levels of grey, as `categorical` expects.
    """
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 20), ("test", 12)):
        arrays[f"x_{split}"] = 85 * np.rint(3 * rng.beta(0.5, 2.0, (count, 6, 5))).astype(np.uint8)
        arrays[f"y_{split}"] = np.arange(count) % 3
    np.savez(folder / "odd.npz", **arrays)
    return f"npz:{folder / 'odd.npz'}"


@contextmanager
def eagerly() -> Iterator[None]:
    """Nothing is compiled: `fit` takes its ordinary path, and no graph of a tiny model takes longer than its steps."""
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


class Watch(keras.callbacks.Callback):
    """Keeps the trained model, and copies the folder of the run after an epoch, as a killed process leaves it."""

    def __init__(self, folder: Path, copy: Path) -> None:
        super().__init__()
        self.folder, self.copy = folder, copy
        self.vae: Any = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            shutil.copytree(self.folder, self.copy)

    def on_train_end(self, logs: Any = None) -> None:
        self.vae = self.model


def trained(values: dict[str, Any], folder: Path) -> tuple[Run, Any, Path]:
    """The run of a configuration, its model as `fit` leaves it, and the folder of the run after its first epoch."""
    watch = Watch(folder / "run", folder / "interrupted")
    run = training.train(RunConfig.from_dict(values), watch.folder, verbose=0, extra=[watch])
    return run, watch.vae, watch.copy


def export_in_another_process(folder: str) -> None:
    """What a pool of processes calls: writes the bundle of a run, with its smallest file."""
    from exports import quick_parity

    from kvae import export
    from kvae.export import litert

    with quick_parity(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(litert, "BATCH_SIZES", (None,))  # a third of the time of a conversion
        export.bundle_of_run(Run.open(folder), formats=["tflite"], variants=["float32"])
