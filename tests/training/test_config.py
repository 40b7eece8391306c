"""The configuration: what it accepts, what it refuses, and that it survives being written."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvae.internal.errors import UserError
from kvae.training.config import RunConfig, keys, load_values, override, parse_setting, recipes
from kvae.training.part_tables import SHORT

WHOLE = st.integers(1, 10**6)
SEED = st.integers(0, 2**31 - 1)
NOT_NEGATIVE = st.floats(0, 1e6)
POSITIVE = st.floats(1e-6, 1e6)
SLICE = st.sampled_from(["train", "train[:90%]", "train[90%:]"])


def some(**options: st.SearchStrategy) -> st.SearchStrategy:
    return st.fixed_dictionaries({}, optional=options)


DATA = some(
    source=st.text(),
    train=SLICE,
    binarize=st.sampled_from(["threshold", "stochastic", "fixed", "none"]),
    threshold=st.floats(0, 1, exclude_max=True),
    batch_size=WHOLE,
    drop_remainder=st.booleans(),
    streaming=st.booleans() | st.just("decoded"),
    evaluation_seed=SEED,
)
MODEL = some(
    latent_dim=WHOLE,
    network=st.sampled_from(["mlp", "conv"]),
    hidden_units=st.lists(WHOLE, max_size=3),
    filters=st.lists(WHOLE, max_size=3),
    dense_units=WHOLE,
    activation=st.sampled_from(["tanh", "relu"]),
    initialization=st.sampled_from(["glorot", "fan_in"]),
    output_bias=st.sampled_from(["zero", "data"]),
    encoder_l2=NOT_NEGATIVE,
    decoder_l2=NOT_NEGATIVE,
    likelihood=st.sampled_from(["bernoulli", "continuous_bernoulli", "gaussian", "squared_error"]),
    variance=POSITIVE | st.just("learned"),
    beta=NOT_NEGATIVE,
    samples=WHOLE,
    kl=st.sampled_from(["analytic", "sampled"]),
)
TRAINING = some(
    epochs=st.integers(2, 10**6),
    optimizer=st.sampled_from(["adam", "adamw", "adamax", "rmsprop", "sgd"]),
    learning_rate=POSITIVE,
    warmup_epochs=st.floats(0, 1),
    beta_warmup_epochs=NOT_NEGATIVE,
    monitor_every=WHOLE,
    show_batch_seconds=NOT_NEGATIVE,
    plots=st.lists(st.text(), max_size=3),
    plots_every=WHOLE,
    precision=st.sampled_from(["float32", "mixed_float16", "mixed_bfloat16"]),
    jit_compile=st.booleans() | st.just("auto"),
    steps_per_execution=WHOLE | st.just("auto"),
    checkpoint_seconds=NOT_NEGATIVE,
    tensorboard=st.booleans(),
)
SCHEDULES = st.just({"schedule": "constant"}) | st.fixed_dictionaries(
    {"schedule": st.sampled_from(["cosine", "exponential"]), "final_learning_rate": POSITIVE}
)
CHOSEN_BY = st.sampled_from(
    [
        ({}, {}),
        ({}, {"monitor_test": True}),
        ({"validation": "train[90%:]"}, {"early_stopping": 3, "monitor_every": 1}),
    ]
)


@st.composite
def configurations(draw: st.DrawFn) -> RunConfig:
    data, training = draw(CHOSEN_BY)
    values = draw(some(name=st.text(), description=st.text(), seed=SEED))
    sections = {
        "data": draw(DATA) | data,
        "model": draw(MODEL),
        "training": draw(TRAINING) | draw(SCHEDULES) | training,
    }
    return RunConfig.from_dict(values | sections)


def configured(**settings: object) -> RunConfig:
    """The default configuration with dotted keys set; a dot is written as two underscores."""
    return RunConfig.from_dict(override({}, {key.replace("__", "."): value for key, value in settings.items()}))


# --- round trips


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=100)
@given(config=configurations())
def test_json_round_trip(config):
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict(), allow_nan=False))) == config


@pytest.mark.parametrize("name", recipes())
def test_recipes_round_trip(name):
    config = RunConfig.from_dict(load_values(name))
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_defaults_are_a_configuration():
    assert RunConfig.from_dict({}) == RunConfig()


def test_a_configuration_does_not_change():
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().model.latent_dim = 2


# --- single keys


@pytest.mark.parametrize(
    ("values", "nearest"),
    [
        ({"model": {"latentdim": 2}}, "model.latent_dim"),
        ({"training": {"epoch": 2}}, "training.epochs"),
        ({"data": {"batchsize": 2}}, "data.batch_size"),
        ({"sed": 1}, "seed"),
        ({"model": {"latent_dims": 2}}, "model.latent_dim"),
    ],
)
def test_an_unknown_key_names_the_nearest_match(values, nearest):
    with pytest.raises(UserError, match=rf"Unknown key .*Did you mean '{nearest}'\?"):
        RunConfig.from_dict(values)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", 5),
        ("seed", -1),
        ("seed", 2**31),
        ("seed", 1.5),
        ("data.source", ["mnist"]),
        ("data.binarize", "foo"),
        ("data.threshold", 1.0),
        ("data.threshold", -0.1),
        ("data.batch_size", 0),
        ("data.drop_remainder", "perhaps"),
        ("data.evaluation_seed", 2**31),
        ("model.latent_dim", 0),
        ("model.latent_dim", "two"),
        ("training.epochs", 0),
        ("training.epochs", 1.5),
        ("training.epochs", True),
        ("training.learning_rate", 0),
        ("training.learning_rate", True),
        ("training.optimizer", "adm"),
        ("training.early_stopping", 0),
        ("training.monitor_every", 0),
        ("training.monitor_every", 1.5),
        ("training.show_batch_seconds", -1),
        ("training.show_batch_seconds", True),
        ("training.show_batch_seconds", float("inf")),
        ("training.plots", "samples"),
        ("training.plots", 3),
        ("training.plots_every", 0),
        ("training.plots_every", True),
        ("model", 5),
        ("model.prior", 5),
        ("model.prior", ["mixture"]),
    ],
)
def test_a_bad_value_is_refused_with_its_key(key, value):
    section, _, name = key.rpartition(".")
    with pytest.raises(UserError, match=f"^{re.escape(key)}.*Received"):
        RunConfig.from_dict({section: {name: value}} if section else {key: value})


def test_every_mistake_is_named_at_once():
    with pytest.raises(UserError, match=r"model\.latent_dim.*; training\.epochs"):
        RunConfig.from_dict({"model": {"latent_dim": -1}, "training": {"epochs": 0}})


# --- keys that must agree


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training__early_stopping": 3}, "early_stopping needs data.validation"),
        (
            {"training__early_stopping": 3, "data__validation": "train[90%:]", "training__monitor_every": 2},
            "early_stopping needs training.monitor_every=1",
        ),
        ({"training__schedule": "exponential"}, "final_learning_rate above 0"),
        ({"training__final_learning_rate": 1e-4}, "needs training.schedule"),
        ({"training__beta_warmup_epochs": 2, "model__objective": "iwae"}, "needs model.objective='elbo'"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        configured(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"training__early_stopping": 3, "data__train": "train[:90%]", "data__validation": "train[90%:]"},
        {"training__early_stopping": 3, "data__validation": "train[90%:]", "training__monitor_every": 1},
        {"training__monitor_every": 2, "training__monitor_test": True},
        {"training__monitor_every": 2, "data__validation": "train[90%:]"},
        {"training__show_batch_seconds": 0},
        {"training__plots": ("samples", "lattice"), "training__plots_every": 3},
        {"data__validation": "test"},
        {"training__monitor_test": True},
        {"training__schedule": "exponential", "training__final_learning_rate": 1e-4},
        {"training__schedule": "cosine"},
        {"training__schedule": "cosine", "training__final_learning_rate": 1e-4},
        {"training__warmup_epochs": 9.5, "training__epochs": 10},
        {"training__epochs": 1},
    ],
)
def test_keys_that_agree_are_accepted(settings):
    for key, value in settings.items():
        section, name = key.split("__")
        assert getattr(getattr(configured(**settings), section), name) == value


# --- overrides


@pytest.mark.parametrize(
    ("values", "settings", "expected"),
    [
        ({}, {}, {}),
        ({}, {"seed": 3}, {"seed": 3}),
        ({"seed": 1}, {"seed": 3}, {"seed": 3}),
        ({}, {"model.beta": 1.5}, {"model": {"objective": {"beta": 1.5}}}),
        (
            {"model": {"latent_dim": 1, "prior": "mixture"}},
            {"model.latent_dim": 2},
            {"model": {"latent_dim": 2, "prior": {"kind": "mixture"}}},
        ),
        ({"seed": 1}, {"data.source": "mnist"}, {"seed": 1, "data": {"source": "mnist"}}),
    ],
)
def test_override(values, settings, expected):
    assert override(values, settings) == expected


def test_override_leaves_its_argument_as_it_was():
    values = {"model": {"beta": 1}}
    override(values, {"model.beta": 2})
    assert values == {"model": {"beta": 1}}


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("beta", "model.beta"), ("model.bta", "model.beta"), ("training.batch_size", "data.batch_size"), ("sead", "seed")],
)
def test_override_of_an_unknown_key_names_the_nearest_match(key, nearest):
    with pytest.raises(UserError, match=f"Unknown key '{key}'. Did you mean '{nearest}'"):
        override({}, {key: 1})


def test_override_within_what_is_no_section_is_refused():
    with pytest.raises(UserError, match="model"):
        RunConfig.from_dict(override({"model": 5}, {"model.beta": 1}))


def test_keys_are_those_of_a_whole_configuration_and_the_short_ones():
    values = RunConfig().model_dump()
    sections = {name: [f"{name}.{key}" for key in value] for name, value in values.items() if isinstance(value, dict)}
    short = [f"model.{name}" for name in SHORT]
    first = [name for name in values if name not in sections]
    assert keys() == [*first, *sections["data"], *sections["model"], *short, *sections["training"]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model.beta=1.5", ("model.beta", 1.5)),
        ("training.epochs=3", ("training.epochs", 3)),
        ("data.streaming=true", ("data.streaming", True)),
        ("data.streaming=decoded", ("data.streaming", "decoded")),
        ("model.hidden_units=[500, 500]", ("model.hidden_units", [500, 500])),
        ("training.learning_rate=1e-3", ("training.learning_rate", 1e-3)),
        ("data.source=mnist", ("data.source", "mnist")),
        ('data.source="mnist"', ("data.source", "mnist")),
        ("data.train=train[:90%]", ("data.train", "train[:90%]")),
        ("data.source=csv:a=b.csv", ("data.source", "csv:a=b.csv")),
        (" name = my run ", ("name", "my run")),
        ("name=", ("name", "")),
    ],
)
def test_parse_setting(text, expected):
    key, value = parse_setting(text)
    assert (key, value) == expected
    assert type(value) is type(expected[1])


@pytest.mark.parametrize("text", ["", "model.beta", "=1.5", " = 1"])
def test_a_setting_without_key_or_equals_sign_is_refused(text):
    with pytest.raises(UserError, match="Expected key=value"):
        parse_setting(text)


def test_a_message_does_not_grow_with_what_was_received():
    with pytest.raises(UserError) as raised:
        override({}, {"model." + "x" * 100_000: 1})
    assert len(str(raised.value)) < 4000
    with pytest.raises(UserError, match="and 95 more mistakes") as raised:
        RunConfig.from_dict({f"key{number}": 1 for number in range(100)})
    assert len(str(raised.value)) < 8000
