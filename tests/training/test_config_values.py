"""Values of any type, size and depth are accepted, or refused in one line; and a key has one value."""

import datetime
import re

import pytest

from kvae.internal.errors import UserError
from kvae.training.config import RunConfig, collected, override, parse_setting, parse_toml


def nested(depth: int = 5000) -> dict:
    table: dict = {}
    for _ in range(depth):
        table = {"a": table}
    return table


REFUSED = {
    "a number as a name": ({"name": 5}, "name"),
    "a number as a section": ({"model": 3}, "model: expected a table of keys. Received 3"),
    "a list as a section": ({"data": []}, "data: expected a table of keys"),
    "a list of tables as a section": ({"model": [{}]}, "model: expected a table of keys"),
    "a list as a part": ({"model": {"prior": []}}, "model.prior: expected a table"),
    "a number as a kind": ({"model": {"prior": {"kind": 5}}}, "model.prior.kind"),
    "a table as a text": ({"data": {"train": {"a": 1}}}, "data.train"),
    "a list as a text": ({"description": ["x"]}, "description"),
    "a null character": ({"data": {"source": "csv:a\0b"}}, "data.source: expected a text without null"),
    "a date as a number": ({"seed": datetime.date(2020, 1, 1)}, "seed"),
    "a date as an option": ({"model": {"beta": datetime.date(2020, 1, 1)}}, "model.objective"),
    "a time as a text": ({"data": {"source": datetime.time(1)}}, "data.source"),
    "a truth value as a number": ({"training": {"epochs": True}}, "training.epochs: expected a number"),
    "infinity as a whole number": ({"training": {"epochs": float("inf")}}, "training.epochs"),
    "no number": ({"training": {"learning_rate": float("nan")}}, "training.learning_rate"),
    "no number as an option": ({"model": {"beta": float("nan")}}, "model.objective: expected a finite number"),
    "more than 32 bits": ({"training": {"epochs": 2**31}}, "training.epochs"),
    "more than 64 bits": ({"model": {"latent_dim": 2**64}}, "model.latent_dim"),
    "more than 64 bits as an option": ({"model": {"beta": 2**64}}, "model.objective: expected a number of at most 64"),
    "more than a float": ({"training": {"learning_rate": 10**400}}, "training.learning_rate"),
    "5,000 digits": ({"seed": 16**5000}, "seed: .*a number with too many digits"),
    "5,000 digits as an option": ({"model": {"hidden_units": [16**5000]}}, "model.network: .*too many digits"),
    "a deep table": ({"training": nested()}, "Unknown key 'training.a'"),
    "a deep option": ({"model": {"prior": nested()}}, "nested too deeply"),
    "one of two types": ({"training": {"jit_compile": 5}}, "training.jit_compile: "),
    "a number of one of two types": ({"training": {"steps_per_execution": 10**12}}, "training.steps_per_execution: "),
    "a key of several lines": ({"a\nb": 1}, "Unknown key"),
    "no table": ([], "expected a table of keys"),
    "nothing": (None, "expected a table of keys"),
}


@pytest.mark.parametrize(("values", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_configuration_is_refused(values, message):
    with pytest.raises(UserError, match=message) as caught:
        RunConfig.from_dict(values)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "9" * 5000,
        "a = " + "[" * 5000,
        "a = " + "{a=" * 3000,
        "a = 1\na = 2",
        "a = \0",
        "a = 1e",
        "[a]\n[a]",
        "\ud800",
    ],
    ids=lambda text: text[:10],
)
def test_what_is_no_toml_is_refused(text):
    with pytest.raises(UserError, match=r"^mine\.toml is not valid TOML: "):
        parse_toml(text, "mine.toml")


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 5000, "{a=" * 3000], ids=lambda text: text[:5])
def test_a_setting_that_cannot_be_read_is_refused(value):
    with pytest.raises(UserError, match=r"^Could not read the value of 'seed': "):
        parse_setting(f"seed={value}")


# --- one value for a key

TWICE = {
    "the same key": [("--set seed=1", "seed", 1), ("--set seed=2", "seed", 2)],
    "an option and --set": [("--epochs 3", "training.epochs", 3), ("--set training.epochs=5", "training.epochs", 5)],
    "a short key": [("--beta 2.0", "model.beta", 2.0), ("--set model.objective.beta=3", "model.objective.beta", 3)],
    "two kinds": [("--set model.prior=a", "model.prior", "a"), ("--set model.prior.kind=b", "model.prior.kind", "b")],
    "a table and a key of it": [
        ("--set model.prior={components=3}", "model.prior", {"components": 3}),
        ("--set model.prior.components=4", "model.prior.components", 4),
    ],
    "a table and a short key": [
        ("--set model.objective={beta=3}", "model.objective", {"beta": 3}),
        ("--beta 2.0", "model.beta", 2.0),
    ],
}


@pytest.mark.parametrize("given", TWICE.values(), ids=TWICE)
def test_two_values_for_one_key_are_refused_and_named(given):
    first, second = (re.escape(origin) for origin, _, _ in given)
    with pytest.raises(UserError, match=rf"^Expected one value for .*\. Received two: {first} and {second}\.$"):
        collected(given)


def test_two_names_of_one_key_are_refused_in_python_too():
    with pytest.raises(UserError, match=r"one value for model\.objective\.beta"):
        override({}, {"model.beta": 1, "model.objective.beta": 2})


def test_different_keys_are_collected():
    given = [("a", "model.prior", "mixture"), ("b", "model.prior.components", 3), ("c", "model.beta", 2.0)]
    assert collected(given) == {key: value for _, key, value in given}
