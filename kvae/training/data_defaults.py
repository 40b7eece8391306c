"""Defaults that follow the data: what `kvae train --dataset SOURCE` uses for settings that the user does not give.

The defaults of a configuration (`config.py`) suit binary digits of 28 x 28. Here the images decide: black and white
ones get a Bernoulli, grey and coloured ones a Gaussian with a learned variance, and all but small images convolutional
networks. Exceptions are mnist5k and the TFDS datasets of grey 28 x 28 images, such as mnist and fashion_mnist: they
keep the defaults of `config.py`. Recipes are used as they are.

What is chosen becomes part of the configuration, so that config.json states it and a resumed run keeps it.
docs/OWN_IMAGES.md has the measurements behind the numbers.
"""

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from kvae.data.sources import absolute, is_of_user, open_source
from kvae.data.split import Source, Split
from kvae.training.config import RunConfig, override
from kvae.training.part_tables import SHORT

SMALLEST_FOR_CONVOLUTIONS = 16  # pixels of the shorter side
FIRST_FILTERS, MOST_FILTERS = 16, 128
SMALLEST_MAP = 6  # pixels: convolutions halve the shorter side as long as this many remain
STEPS = 2000  # of the optimizer, if the limits of the epochs allow it
FEWEST_EPOCHS, MOST_EPOCHS = 10, 100
LEARNING_RATE = 2e-3
RATE_OF_VARIANCE = 10.0
STREAMED = 200  # images of a stream that are looked at
BLOCK = 1000  # images that are looked at together
# Settings that belong together: if the user gives one of them, the others keep their defaults in `config.py`.
SCHEDULE = ("schedule", "final_learning_rate", "warmup_epochs")
# What matters most, in the order in which it is said.
MAIN = ("model.network.kind", "model.likelihood.kind", "model.latent_dim", "training.epochs")


class Facts(NamedTuple):
    """What the defaults depend on."""

    height: int
    width: int
    channels: int
    binary: bool  # whether all pixels are black or white
    images: int  # the number of training images

    def __str__(self) -> str:
        kind = "black-and-white" if self.binary else "grey" if self.channels == 1 else "colour"
        return f"{self.images:,} {kind} images of {self.width} x {self.height}"


class Followed(NamedTuple):
    """A configuration whose defaults follow its data."""

    config: RunConfig
    source: Source  # the opened data
    explanation: str | None  # what was chosen, in words; None if nothing was


def follow(values: dict[str, Any]) -> Followed:
    """Opens the data of a configuration, and chooses the settings that are not given.

    Args:
        values: the settings that the user gives, as nested values like those of a recipe.

    Raises:
        UserError: if a setting is not valid, or if the data cannot be opened.
    """
    config = RunConfig.from_dict(values)
    source = open_source(absolute(config.data.source), bool(config.data.streaming))
    if not (is_of_user(config.data.source) or source.splits["train"].image_shape != (28, 28, 1)):
        return Followed(config, source, None)
    facts = facts_of(source, config.data.train)
    others = {name: section for name, section in values.items() if name != "model"}
    values = override(others, {f"model.{key}": value for key, value in values.get("model", {}).items()})
    values, added = completed(values, facts)
    return Followed(RunConfig.from_dict(values), source, explanation(facts, added) if added else None)


def facts_of(source: Source, train: str = "train") -> Facts:
    """The facts about the training images of a source.

    Args:
        source: the opened dataset.
        train: the split or slice that is trained on.

    Raises:
        UserError: if there is no such split.
    """
    split = source.select(train)
    if split.images is None:  # only the first images are looked at
        split = source.shuffled().select(train)
    height, width, channels = split.image_shape
    return Facts(height, width, channels, all(map(_is_binary, _blocks(split))), split.count)


def _blocks(split: Split) -> Iterator[np.ndarray]:
    if split.images is None:
        for _, encoded in split.stream(split.start, split.start + min(split.count, STREAMED)):
            yield np.asarray(split.decode(encoded))
    else:
        for start in range(0, split.count, BLOCK):
            yield split.images[start : start + BLOCK]


def _is_binary(images: np.ndarray) -> bool:
    return bool(((images == 0) | (images == 255)).all())


def defaults_for(facts: Facts) -> dict[str, Any]:
    """The settings that suit the data, by dotted key. The kind of a part comes before its options."""
    batch = 20 if facts.images < 5_000 else 50 if facts.images < 20_000 else 100
    batch = min(batch, max(1, facts.images // 10))
    epochs = min(max(round(STEPS * batch / facts.images), FEWEST_EPOCHS), MOST_EPOCHS)
    return {
        "data.binarize": "threshold" if facts.binary else "none",
        "data.batch_size": batch,
        **_network(facts),
        "model.network.output_bias": "data",
        **_likelihood(facts.binary),
        "model.latent_dim": 16 if min(facts.height, facts.width) < 64 else 32,
        "training.epochs": epochs,
        "training.learning_rate": LEARNING_RATE,
        "training.schedule": "cosine",
        "training.warmup_epochs": 1,
        "training.monitor_test": True,
    }


def _network(facts: Facts) -> dict[str, Any]:
    side = min(facts.height, facts.width)
    if side < SMALLEST_FOR_CONVOLUTIONS:
        return {
            "model.network.kind": "mlp",
            "model.network.hidden_units": [200, 200],
            "model.network.initialization": "fan_in",
        }
    filters: list[int] = []
    while side >= 2 * SMALLEST_MAP:
        filters.append(min(FIRST_FILTERS * 2 ** len(filters), MOST_FILTERS))
        side = -(-side // 2)
    return {"model.network.kind": "conv", "model.network.filters": filters, "model.network.dense_units": 256}


def _likelihood(binary: bool) -> dict[str, Any]:
    if binary:
        return {"model.likelihood.kind": "bernoulli"}
    return {
        "model.likelihood.kind": "gaussian",
        "model.likelihood.variance": "learned",
        "model.likelihood.rate": RATE_OF_VARIANCE,
    }


def completed(values: dict[str, Any], facts: Facts) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of a configuration with the defaults for its data.

    Args:
        values: what the user gives, as `override` returns it. All of it stays as it is.
        facts: the facts about the data.

    Returns:
        The values with the defaults, and the defaults that were added, by dotted key.
    """
    given = {section: values.get(section, {}) for section in ("data", "model", "training")}
    chosen = defaults_for(facts)
    binarized = given["data"].get("binarize", "none") != "none"
    if binarized and not facts.binary:
        chosen = _without_part(chosen, "likelihood") | _likelihood(binary=True)
    for part in ("network", "likelihood"):
        chosen = _beside(chosen, part, given["model"].get(part, {}))
    if given["model"].get("likelihood", {}).get("kind") == "bernoulli":
        chosen["data.binarize"] = "threshold"
    if any(name in given["training"] for name in SCHEDULE):
        chosen = {key: value for key, value in chosen.items() if key.rpartition(".")[2] not in SCHEDULE}
    if "optimizer" in given["training"]:
        del chosen["training.learning_rate"]
    if "validation" in given["data"]:
        del chosen["training.monitor_test"]
    added = {key: value for key, value in chosen.items() if not _has(values, key)}
    result = copy.deepcopy(values)
    for key, value in added.items():
        *path, name = key.split(".")
        section = result
        for part in path:
            section = section.setdefault(part, {})
        section[name] = value
    return result, added


def _has(values: dict[str, Any], key: str) -> bool:
    """Whether nested values have a dotted key."""
    for name in key.split("."):
        if not isinstance(values, dict) or name not in values:
            return False
        values = values[name]
    return True


def _without_part(settings: dict[str, Any], part: str) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if not key.startswith(f"model.{part}.")}


def _beside(chosen: dict[str, Any], part: str, table: dict[str, Any]) -> dict[str, Any]:
    """The settings without those of a part for which the user has chosen another kind, or an option of another kind."""
    kind = table.get("kind", chosen[f"model.{part}.kind"])
    if kind != chosen[f"model.{part}.kind"] and not _has_options(kind, chosen, part):
        return _without_part(chosen, part)
    for option in table:
        kinds = SHORT[option][1] if option in SHORT else None
        if kinds is not None and kind not in kinds:
            return _without_part(chosen, part) | {f"model.{part}.kind": kinds[0]}
    if table.get("variance", "learned") != "learned":
        chosen = {key: value for key, value in chosen.items() if key != "model.likelihood.rate"}
    return chosen


def _has_options(kind: str, chosen: dict[str, Any], part: str) -> bool:
    """Whether another kind of a part has all options that were chosen for it, as `residual` has those of `conv`."""
    names = [key.rpartition(".")[2] for key in chosen if key.startswith(f"model.{part}.") and not key.endswith(".kind")]
    kinds = [SHORT[name][1] if name in SHORT else () for name in names]
    return all(each is None or kind in each for each in kinds)


def explanation(facts: Facts, added: dict[str, Any]) -> str:
    """What was chosen for the data, and how to change it, in up to three lines: what matters most is in the second."""
    first = [key for key in MAIN if key in added]
    others = [key for key in added if key not in MAIN]
    lines = (" ".join(f"{_short(key)}={_text(added[key])}" for key in keys) for keys in (first, others))
    header = f"Chosen for {facts} (change any with --set KEY=VALUE):"
    return "\n  ".join([header, *filter(None, lines)])


def _short(key: str) -> str:
    """The shortest key for a setting, such as `model.network` for `model.network.kind`."""
    *path, name = key.removesuffix(".kind").split(".")
    return f"{path[0]}.{name}" if name in SHORT else ".".join([*path, name])


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).replace(" ", "")
