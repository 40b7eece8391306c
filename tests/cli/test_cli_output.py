"""--json, --quiet and --out, the protocol as a list, and options that contradict a setting."""

import json
import shutil
from pathlib import Path

import pytest

from kvae.cli import shared
from kvae.internal.errors import UserError

TINY = ["--set=data.batch_size=10", "--set=model.hidden_units=[4]", "--set=training.jit_compile=false"]


@pytest.fixture
def trained(tiny_run, tmp_path) -> Path:
    """A copy of a tiny run."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def source_of(run: Path) -> str:
    return json.loads((run / "config.json").read_text())["config"]["data"]["source"]


@pytest.mark.slow
@pytest.mark.usefixtures("without_xla")
def test_train_prints_one_json_object(call, trained):
    status, out, err = call("train", "--dataset", source_of(trained), *TINY, "--epochs", 1, "--out", "new", "--json")
    assert status == 0, err
    result = json.loads(out)
    assert result["run"] == "new"
    assert result["evaluation"]["protocol"]["split"] == "test"


@pytest.mark.slow
@pytest.mark.usefixtures("without_xla")
def test_a_quiet_training_prints_the_result_and_no_progress(call, trained):
    arguments = ["train", "--dataset", source_of(trained), *TINY, "--epochs", 1]
    _, loud, _ = call(*arguments, "--out", "loud")
    _, quiet, _ = call(*arguments, "--out", "quiet", "--quiet")
    assert loud.startswith("Chosen for ")
    assert "\nepoch 1/1: ELBO " in loud
    assert quiet.startswith("┏")
    assert loud[loud.index("┏") : loud.index("loud: ")] == quiet[: quiet.index("quiet: ")]


@pytest.mark.slow
def test_plot_writes_into_another_folder_and_says_so_in_json(call, trained):
    status, out, err = call("plot", trained, "samples", "--out", "pictures", "--json")
    assert status == 0, err
    names = ["samples", "samples_grid", "samples_strip"]
    assert json.loads(out) == {"files": [f"pictures/{name}.png" for name in names], "left_out": {}}
    assert sorted(path.stem for path in Path("pictures").iterdir()) == names
    assert not (trained / "plots").exists()


def test_plot_tells_in_json_what_it_left_out(call, trained, monkeypatch):
    monkeypatch.setattr(
        "kvae.training.results.draw", lambda *_, **__: iter([Path("a.png"), "lattice: not drawn. Expected: 2."])
    )
    assert json.loads(call("plot", trained, "--json")[1]) == {
        "files": ["a.png"],
        "left_out": {"lattice": "Expected: 2."},
    }


def test_sample_prints_one_json_object(call, trained):
    status, out, _ = call("sample", trained, "-n", 3, "--seed", 5, "-o", "x.png", "--json")
    assert status == 0
    assert json.loads(out) == {"file": "x.png", "images": 3, "seed": 5}


@pytest.mark.slow
@pytest.mark.usefixtures("quick_exports")
def test_verify_prints_its_claims_as_json_and_fails_with_them(call, copied):
    _, out, _ = call("verify", copied / "bundle", "--no-evaluation", "--json")
    result = json.loads(out)
    assert result["failed"] == 0
    assert {claim["passed"] for claim in result["claims"]} <= {True, None}
    file = next((copied / "bundle").glob("*.tflite"))
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    status, out, _ = call("verify", copied / "bundle", "--no-evaluation", "--json")
    assert status == 1
    assert json.loads(out)["failed"] > 0


@pytest.mark.slow
@pytest.mark.usefixtures("quick_exports")
def test_export_prints_the_model_card_as_json(call, trained):
    status, out, err = call("export", trained, "--formats", "tflite", "--no-evaluation", "--json")
    assert status == 0, err
    result = json.loads(out)
    assert result["bundle"] == str(trained / "bundle")
    assert set(result["model_card"]["variants"]) == {"float32", "float16", "int8"}


def test_a_protocol_is_an_indented_list_without_what_is_missing(capsys):
    shared.print_protocol({"dataset": "mnist5k", "validation": None, "my_own": 8})
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.startswith("protocol")
    assert lines == ["  dataset: mnist5k", "  my own: 8"]


def test_a_protocol_speaks_of_images_also_if_its_file_speaks_of_examples(capsys):
    shared.print_protocol({"examples": 60, "units": "nats per example"})
    assert capsys.readouterr().out.splitlines()[1:] == ["  number of images: 60", "  units: nats per image"]


def test_an_evaluation_has_its_terms_in_words_and_says_how_they_belong_together(capsys):
    terms = {"elbo": -3.0, "reconstruction": 2.0, "kl": 1.0, "own": 4.0}
    shared.print_evaluation({**terms, **{f"{name}_standard_error": 0.1 for name in terms}, "protocol": {}})
    out = capsys.readouterr().out
    assert all(words in out for words in ("│ ELBO ", "│ reconstruction error ", "│ KL term ", "│ own "))
    assert "ELBO = -(reconstruction error + KL term)" in out
    shared.print_evaluation({"own": -3.0, "own_standard_error": 0.1, "protocol": {}})
    assert "ELBO" not in capsys.readouterr().out


@pytest.mark.parametrize(("latent_dim", "exact"), [(2, True), (10, False)])
def test_an_evaluation_says_in_words_how_many_images_are_unreliable(capsys, latent_dim, exact):
    result = {"unreliable": 0.0297, "latent_dim": latent_dim, "protocol": {}}
    shared.print_evaluation(result)
    out = " ".join(capsys.readouterr().out.split())
    assert "may be wrong for 3.0% of the images" in out
    assert ("quadrature is exact" in out) == exact
    shared.print_evaluation(result | {"unreliable": 0.0})
    assert "may be wrong" not in capsys.readouterr().out


# --- options of train that are short for a key


def test_the_commonest_settings_have_options(call, monkeypatch):
    seen = []

    def train(config, *_, **__):
        seen.append(config)
        raise UserError("This is enough.")

    monkeypatch.setattr("kvae.training.train", train)
    call(
        "train", "--binarize", "none", "--likelihood", "gaussian", "--network", "conv", "--early-stopping", 2,
        "--tensorboard", "--set=data.train=train[:10]", "--set=data.validation=train[10:]",
    )  # fmt: skip
    (config,) = seen
    assert config.data.binarize == "none"
    assert config.model.likelihood.kind == "gaussian"
    assert config.model.network.kind == "conv"
    assert config.training.early_stopping == 2
    assert config.training.tensorboard is True


@pytest.mark.parametrize(
    ("option", "setting", "key"),
    [
        (["--likelihood", "gaussian"], "model.likelihood=bernoulli", "model.likelihood.kind"),
        (["--likelihood", "gaussian"], "model.likelihood.kind=bernoulli", "model.likelihood.kind"),
        (["--network", "conv"], "model.network=mlp", "model.network.kind"),
        (["--binarize", "none"], "data.binarize=threshold", "data.binarize"),
        (["--tensorboard"], "training.tensorboard=false", "training.tensorboard"),
        (["--early-stopping", "3"], "training.early_stopping=4", "training.early_stopping"),
    ],
)
def test_an_option_that_contradicts_a_setting_is_a_mistake(call, option, setting, key):
    status, out, err = call("train", *option, "--set", setting)
    assert (status, out) == (2, "")
    expected = f"Expected one value for {key}. Received two: {' '.join(option)} and --set {setting}."
    assert err == f"kvae: {expected}\n"


def test_a_protocol_has_its_notes_as_words_and_nothing_that_only_files_need(capsys):
    shared.print_protocol({"dataset": "mine", "notes": ["one note", "another"], "noise": 2, "validation": None})
    assert capsys.readouterr().out.splitlines()[1:] == ["  dataset: mine", "  notes: one note; another"]
