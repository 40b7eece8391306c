"""`kvae recipes` and `kvae keys`: every key and recipe is listed with its meaning, and a listing can be filtered."""

import json
import re
from pathlib import Path

import pytest
from command_line import kvae

from kvae import cli
from kvae.training import build, config, keys
from kvae.training.config import RunConfig, load_values, override

RECIPES = Path(cli.__file__).parent.parent / "training" / "recipes"


def test_recipes_lists_every_recipe(call):
    status, out, _ = call("recipes")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == sorted(path.stem for path in RECIPES.glob("*.toml"))


def test_a_recipe_is_printed_as_the_file_that_it_is(call):
    status, out, err = call("recipes", "digits_2d")
    assert (status, out, err) == (0, (RECIPES / "digits_2d.toml").read_text(), "")


def test_a_printed_recipe_trains_the_same(call, tmp_path):
    (tmp_path / "digits_2d.toml").write_text(call("recipes", "digits_2d")[1])
    assert load_values("digits_2d.toml") == load_values("digits_2d")


def test_recipes_as_json(call):
    assert json.loads(call("recipes", "--json")[1])["digits_2d"].startswith("A beta-VAE")
    assert json.loads(call("recipes", "digits_2d", "--json")[1]) == load_values("digits_2d")


def test_a_wrong_recipe_names_the_nearest(call):
    status, out, err = call("recipes", "digit_2d")
    assert (status, out) == (2, "")
    assert "Unknown recipe 'digit_2d'. Did you mean 'digits_2d'?" in err


# --- keys


def listed(call, *words: str) -> list[dict]:
    status, out, err = call("keys", *words, "--json")
    assert status == 0, err
    return json.loads(out)["keys"]


def test_every_key_is_listed_with_type_and_meaning(call):
    found = listed(call)
    assert {key["name"] for key in found} >= set(config.keys()) - {f"model.{name}" for name in keys.SHORT}
    for key in found:
        assert key["type"], key
        assert key["meaning"].endswith((".", "]", ")")), key


def test_every_option_of_every_part_is_listed_with_its_default(call):
    found = {(key["name"], key["kind"]): key["default"] for key in listed(call, "model")}
    for part, (table, _) in build.TABLES.items():
        for kind, cls in table.items():
            for name, default in build.options_of(cls).items():
                assert found[f"model.{part}.{name}", kind] == json.loads(json.dumps(default))


def test_every_short_key_is_named_beside_the_option_that_it_stands_for(call):
    text = " ".join(key["meaning"] for key in listed(call, "model"))
    for name in keys.SHORT:
        assert f"Short key: model.{name}." in text


def test_the_defaults_are_accepted_as_values():
    for key in keys.of_sections():
        if keys.shown_default(key):
            _, value = config.parse_setting(f"{key.name}={keys.shown_default(key)}")
            RunConfig.from_dict(override({}, {key.name: value}))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data"], lambda key: key["section"] == "data"),
        (["training", "seconds"], lambda key: key["name"].startswith("training.") and "seconds" in str(key).lower()),
        (["learning", "RATE"], lambda key: "learning" in str(key).lower() and "rate" in str(key).lower()),
    ],
)
def test_keys_are_filtered_by_section_and_words(call, words, expected):
    everything = listed(call)
    assert listed(call, *words) == [key for key in everything if expected(key)]


def test_a_listing_has_a_line_for_each_kind_also_for_those_without_options(call):
    _, out, _ = call("keys", "model")
    for part, (table, _) in build.TABLES.items():
        for kind in table:
            assert f'[model.{part}]  kind = "{kind}": ' in out


def test_kinds_are_listed_with_their_papers_and_found_by_them(call):
    kinds = json.loads(call("keys", "model", "--json")[1])["kinds"]
    assert {(each["name"], each["kind"]) for each in kinds} == {
        (f"model.{part}", kind) for part, (table, _) in build.TABLES.items() for kind in table
    }
    for each in kinds:
        assert each["meaning"].endswith("."), each
        assert "(20" not in each["meaning"], each
        assert re.search(r"[A-Z][^.]* \((19|20)\d\d\)", each["paper"]), each
    _, out, _ = call("keys", "rainforth")
    assert [line.split('"')[1] for line in out.splitlines() if line.startswith("[")] == ["miwae", "ciwae", "piwae"]
    assert out.count('"Tighter Variational Bounds are Not Necessarily Better" (2018)') == 3
    assert {key["kind"] for key in listed(call, "beta_tc")} == {"beta_tc"}


def test_an_option_without_a_default_has_the_type_of_its_argument(call):
    types = {(key["kind"], key["name"]): key["type"] for key in listed(call, "model.objective")}
    assert (
        types["free_bits", "model.objective.groups"] == types["beta_tc", "model.objective.data_size"] == "whole number"
    )


def test_words_that_no_key_has_are_a_mistake(call):
    status, out, err = call("keys", "learning_rat", "seconds")
    assert (status, out) == (2, "")
    assert "No key has all of: learning_rat seconds." in err
    assert "Did you mean 'training.epochs'" in call("keys", "epoch_")[2]


@pytest.mark.slow
def test_a_section_without_parts_is_listed_without_tensorflow(tmp_path):
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("open('imported', 'w').close()\nraise SystemExit(1)")
    assert kvae("keys", "training", cwd=tmp_path).returncode == 0
    assert not (tmp_path / "imported").exists()
    assert kvae("keys", "model", cwd=tmp_path).returncode == 1
    assert (tmp_path / "imported").exists()


# --- typos


def test_an_unknown_key_is_told_the_nearest_and_no_list_of_all(call):
    _, _, err = call("train", "--set", "model.latent=3")
    assert "Unknown key 'model.latent'. Did you mean 'model.latent_dim'" in err
    assert "kvae keys" in err
    assert "training.optimizer" not in err
    assert len(err) < 200


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (["train", "--set", "training.optimizer=adan"], "adam"),
        (["train", "--binarize", "stochastc"], "stochastic"),
        (["train", "--likelihood", "gausian"], "gaussian"),
        (["train", "--network", "cnv"], "conv"),
        (["train", "--distribute", "mirorred"], "mirrored"),
        (["plot", "x", "--format", "pngg"], "png"),
        (["train", "--dataset", "imges:folder"], "images:folder"),
    ],
)
def test_a_typo_in_a_value_names_the_nearest(call, arguments, nearest):
    status, _, err = call(*arguments)
    assert status == 2
    assert f"Did you mean '{nearest}'?" in err
