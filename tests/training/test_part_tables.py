"""The section [model] of a configuration: a table for each part, short keys for some options, and settings."""

import pytest

from kvae.internal.errors import UserError
from kvae.model.likelihoods import LIKELIHOODS
from kvae.training import build, part_tables, wording
from kvae.training.config import RunConfig, override
from kvae.training.part_tables import with_tables


@pytest.mark.parametrize(
    ("model", "part", "expected"),
    [
        ({}, "prior", {"kind": "standard_normal"}),
        ({"prior": "mixture"}, "prior", {"kind": "mixture"}),
        ({"prior": {"kind": "mixture", "components": 3}}, "prior", {"kind": "mixture", "components": 3}),
        ({"prior": {"components": 3}}, "prior", {"kind": "standard_normal", "components": 3}),
        ({"hidden_units": (5, 3)}, "network", {"kind": "mlp", "hidden_units": [5, 3]}),
        ({"network": "conv", "filters": [4]}, "network", {"kind": "conv", "filters": [4]}),
        ({"network": "mine:Net", "hidden_units": [5]}, "network", {"kind": "mine:Net", "hidden_units": [5]}),
        ({"beta": 2.0, "samples": 3}, "objective", {"kind": "elbo", "beta": 2.0, "samples": 3}),
        ({"beta": 2.0, "objective": {"kl": "sampled"}}, "objective", {"kind": "elbo", "kl": "sampled", "beta": 2.0}),
        ({"likelihood": "gaussian", "variance": "learned"}, "likelihood", {"kind": "gaussian", "variance": "learned"}),
        ({"likelihood": "bernoulli", "variance": 1.0}, "likelihood", {"kind": "bernoulli", "variance": 1.0}),
        ({"activation": None}, "network", {"kind": "mlp"}),
    ],
)
def test_short_keys_and_names_stand_for_tables(model, part, expected):
    assert RunConfig.from_dict({"model": model}).to_dict()["model"][part] == expected


def test_short_keys_that_the_kinds_do_not_have_are_left_out_of_a_configuration_of_version_0_2():
    found = with_tables({"network": "conv", "hidden_units": [5], "filters": [4], "variance": 1.0}, of_version_0_2=True)
    assert found == {"network": {"kind": "conv", "filters": [4]}}


@pytest.mark.parametrize("part", build.TABLES)
def test_the_options_that_a_shell_completes_are_those_of_the_classes(part):
    kinds, _ = build.TABLES[part]
    expected = {(kind, option) for kind, cls in kinds.items() for option in build.options_of(cls)}
    expected |= {(kind, option) for kind in kinds for option in build.NETWORK_DEFAULTS if part == "network"}
    stated = [*part_tables.OPTIONS.items(), *part_tables.OF_ANOTHER_PART.items()]
    found = {(kind, option) for option, (of, kinds_of) in stated if of == part for kind in kinds_of or kinds}
    assert found == expected


def test_the_likelihoods_that_tables_call_densities_are_those_of_a_normalized_density():
    expected = {
        name for name, cls in LIKELIHOODS.items() if cls.normalized and not cls().discrete and name != "bernoulli"
    }
    assert set(wording.DENSITIES) == expected


def test_an_option_that_is_given_twice_is_refused():
    with pytest.raises(UserError, match=r"model\.beta is short for model\.objective\.beta"):
        RunConfig.from_dict({"model": {"beta": 2.0, "objective": {"beta": 3.0}}})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1.0, float("nan")], {"a": object()}])
def test_an_option_that_json_cannot_hold_is_refused(value):
    with pytest.raises(UserError, match=r"model\.prior"):
        RunConfig.from_dict({"model": {"prior": {"kind": "mixture", "spread": value}}})


TABLED = {
    "model": {"network": {"kind": "mlp", "hidden_units": [500], "activation": "tanh"}, "objective": {"beta": 1.5}}
}


@pytest.mark.parametrize(
    ("settings", "part", "expected"),
    [
        ({"model.beta": 4}, "objective", {"kind": "elbo", "beta": 4}),
        ({"model.objective.beta": 4}, "objective", {"kind": "elbo", "beta": 4}),
        ({"model.samples": 4}, "objective", {"kind": "elbo", "beta": 1.5, "samples": 4}),
        ({"model.network": "conv"}, "network", {"kind": "conv"}),
        ({"model.filters": [8], "model.network": "conv"}, "network", {"kind": "conv", "filters": [8]}),
        ({"model.network": "mlp"}, "network", {"kind": "mlp", "hidden_units": [500], "activation": "tanh"}),
        ({"model.network.kind": "conv"}, "network", {"kind": "conv"}),
        ({"model.network.kind": "conv", "model.network.filters": [8]}, "network", {"kind": "conv", "filters": [8]}),
        ({"model.prior.components": 3, "model.prior": "mixture"}, "prior", {"kind": "mixture", "components": 3}),
        ({"model.prior.kind": "mixture"}, "prior", {"kind": "mixture"}),
    ],
)
def test_settings_reach_the_tables(settings, part, expected):
    assert RunConfig.from_dict(override(TABLED, settings)).to_dict()["model"][part] == expected


def test_a_short_setting_replaces_a_short_key_of_a_recipe():
    assert override({"model": {"beta": 1.0}}, {"model.beta": 2}) == {
        "model": {"objective": {"kind": "elbo", "beta": 2}}
    }


@pytest.mark.parametrize("key", ["model.prior.", "model.prior.a.b", "data.source.kind", "model.latent_dim.x"])
def test_only_parts_have_keys_of_their_own(key):
    with pytest.raises(UserError, match="Unknown key"):
        override({}, {key: 1})
