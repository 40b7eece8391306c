"""`export.verify`: which claims of a run and its bundle it tests, and which changes it finds."""

import json
import shutil
from pathlib import Path

import pytest
from small_models import tiny_built

from kvae import export
from kvae.internal import files
from kvae.internal.errors import UserError
from kvae.runtime import cards

pytestmark = pytest.mark.usefixtures("quick_exports")


def test_the_card_of_a_run_has_its_evaluation_and_its_files(trained):
    card = cards.read_card(trained / "bundle")
    assert card["name"] == "odd"
    assert card["metrics"] == json.loads((trained / "evaluation.json").read_text())
    names = ("config.json", "model.keras")
    assert card["run"] == {name: {"sha256": files.digest(trained / name)} for name in names}


def test_everything_holds_of_a_run_and_its_bundle(trained):
    checks = list(export.verify(trained))
    assert [check for check in checks if not check.passed] == []
    terms = ("elbo", "reconstruction", "kl")
    assert [check.name for check in checks if "/" not in check.name] == [
        "decoder.tflite",
        "sample.py",
        "config.json",
        "model.keras",
        *[f"{source}: {term}" for source in ("evaluation.json", "model_card.json") for term in terms],
        "reference z",
        "saved_model parity",
        "float32 parity",
    ]


def test_without_evaluation_no_data_are_needed(copied):
    config = json.loads((copied / "config.json").read_text())
    config["config"]["data"]["source"] = "npz:nowhere.npz"
    (copied / "config.json").write_text(json.dumps(config))
    failed = [check.name for check in export.verify(copied, evaluate=False) if not check.passed]
    assert failed == ["config.json"]
    with pytest.raises(UserError, match=r"nowhere\.npz"):
        list(export.verify(copied))


@pytest.mark.parametrize("name", ["whole", "lite"])
def test_a_bundle_alone_verifies(request, name):
    folder = request.getfixturevalue(name)
    checks = list(export.verify(folder if name == "lite" else folder[1]))
    assert [check for check in checks if not check.passed] == []
    assert f"{'float32' if name == 'lite' else 'int8'} parity" in [check.name for check in checks]


def failed_checks(path: Path) -> dict[str, str]:
    """The claims that do not hold, up to the one after which nothing can be loaded."""
    found = {}
    try:
        for check in export.verify(path):
            if not check.passed:
                found[check.name] = check.detail
    except UserError:
        pass
    return found


def change(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


VALUES = "saved_model/variables/variables.data-00000-of-00001"


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("bundle/decoder.tflite", "middle"),
        ("bundle/sample.py", "end"),
        (f"bundle/{VALUES}", "middle"),
        ("bundle/saved_model/saved_model.pb", "end"),
        ("model.keras", "middle"),
        ("config.json", "end"),
    ],
)
def test_a_file_of_which_one_bit_has_changed_is_named(copied, name, place):
    path = copied / name
    if place == "end":  # where JSON and Python have a line feed, and a space does as well
        path.write_bytes(path.read_bytes() + b" ")
    else:
        change(path, path.stat().st_size // 2)
    found = failed_checks(copied)
    stated = name.removeprefix("bundle/")
    assert stated in found
    assert "was changed or damaged" in found[stated]


@pytest.mark.parametrize("name", ["decoder.tflite", "sample.py", VALUES])
def test_a_file_that_is_missing_is_named(copied, name):
    (copied / "bundle" / name).unlink()
    found = failed_checks(copied)
    assert "No such file" in found[name]


def restate(copied: Path, name: str) -> None:
    """Writes the SHA-256 of a changed file into the card."""
    card = cards.read_card(copied / "bundle")
    files_of = card["files"] if name in card["files"] else card["run"]
    folder = copied / "bundle" if name in card["files"] else copied
    files_of[name]["sha256"] = files.digest(folder / name)
    (copied / "bundle" / "model_card.json").write_text(json.dumps(card))


def overstate(card: dict) -> None:
    card["variants"]["float32"]["means_error_greatest"] = -1.0


def without_entry(*names: str):
    def edit(card: dict) -> None:
        for name in names[:-1]:
            card = card[name]
        del card[names[-1]]

    return edit


@pytest.mark.parametrize(
    ("edit", "claim", "words"),
    [
        (lambda card: card.update(files={}), "sample.py", "does not list it"),
        (lambda card: card.update(files={}), "float32", "does not list decoder.tflite"),
        (lambda card: card.update(variants={}), "variants", "lists none"),
        (without_entry("run", "model.keras"), "run", "does not state the SHA-256 of model.keras"),
        (overstate, "float32 parity", "too small"),
        (lambda card: card["variants"]["float32"].update(bytes=1), "float32 parity", "bytes, stated 1"),
        (without_entry("variants", "float32", "means_error_greatest"), "float32 parity", "does not state it"),
        (without_entry("tolerances", "float32"), "float32 parity", "does not state it"),
        (lambda card: card["tolerances"]["float32"].update(means="x"), "float32 parity", "does not state it"),
        (lambda card: card["model"].update(latent_dim=99), "model", "describes another model"),
        (lambda card: card["reference"].update(seeds=[2**40]), "reference z", ""),
        (lambda card: card["reference"].update(z="x"), "reference z", ""),
        (lambda card: card.update(reference={}), "reference z", ""),
    ],
)
def test_a_wrong_or_incomplete_card_does_not_verify(copied, edit, claim, words):
    card = cards.read_card(copied / "bundle")
    edit(card)
    (copied / "bundle" / "model_card.json").write_text(json.dumps(card))
    found = {check.name: check.detail for check in export.verify(copied, evaluate=False) if not check.passed}
    assert words in found[claim]


def test_a_file_that_the_card_does_not_list_is_named(copied):
    (copied / "bundle" / "more.py").write_text("")
    found = {check.name: check.detail for check in export.verify(copied, evaluate=False) if not check.passed}
    assert found == {"more.py": "model_card.json does not list it"}


def test_verification_reports_a_tolerance_wider_than_usual(copied):
    card = cards.read_card(copied / "bundle")
    card["tolerances"]["float32"]["means"] = 0.9
    (copied / "bundle" / "model_card.json").write_text(json.dumps(card))
    found = {check.name: check for check in export.verify(copied, evaluate=False)}["float32 parity"]
    assert found.passed
    assert "larger than the default 0.0001" in found.detail


@pytest.mark.parametrize("source", ["evaluation.json", "model_card.json"])
def test_a_wrong_elbo_does_not_verify(copied, source):
    path = copied / source if source == "evaluation.json" else copied / "bundle" / source
    values = json.loads(path.read_text())
    metrics = values if source == "evaluation.json" else values["metrics"]
    stated, metrics["elbo"] = metrics["elbo"], metrics["elbo"] + 0.5
    path.write_text(json.dumps(values))
    found = failed_checks(copied)
    assert list(found) == [f"{source}: elbo"]
    assert f"{stated:.3f} nats, stated {metrics['elbo']:.3f}" in found[f"{source}: elbo"]


@pytest.mark.parametrize("content", ["{}", "[]", '{"protocol": 1}', '{"elbo": "high"}'])
def test_an_evaluation_of_something_else_is_a_claim_that_fails(copied, content):
    (copied / "evaluation.json").write_text(content)
    found = failed_checks(copied)
    assert list(found) == ["evaluation.json: evaluation"]
    assert "not an evaluation of kvae" in found["evaluation.json: evaluation"]


@pytest.mark.parametrize(
    ("name", "message"), [("elbow", "Did you mean 'elbo'"), ("mine:pixels", "Add --import mine.py")]
)
def test_an_evaluation_that_is_not_known_is_a_claim_that_fails(copied, name, message):
    values = json.loads((copied / "evaluation.json").read_text())
    values["protocol"]["evaluations"].append(name)
    (copied / "evaluation.json").write_text(json.dumps(values))
    found = failed_checks(copied)
    assert list(found) == [f"evaluation.json: {name}"]
    assert message in found[f"evaluation.json: {name}"]


def test_the_decoder_of_another_model_does_not_verify_although_the_card_fits(copied, tmp_path):
    vae = tiny_built(hidden_units=(4,), seed=9)
    export.bundle(vae, tmp_path / "other", formats=["tflite"], variants=["float32"])
    shutil.copy(tmp_path / "other" / "decoder.tflite", copied / "bundle" / "decoder.tflite")
    restate(copied, "decoder.tflite")
    found = failed_checks(copied)
    assert list(found) == ["float32 parity"]
    assert "its means differ by" in found["float32 parity"]


def test_wrong_reference_z_do_not_verify(copied):
    card = cards.read_card(copied / "bundle")
    card["reference"]["z"][0][0] += 2.0**-20  # one step of the sampler
    (copied / "bundle" / "model_card.json").write_text(json.dumps(card))
    assert list(failed_checks(copied)) == ["reference z"]


def test_a_run_without_a_bundle_verifies_its_elbo(copied):
    shutil.rmtree(copied / "bundle")
    checks = list(export.verify(copied))
    names = [f"evaluation.json: {term}" for term in ("elbo", "reconstruction", "kl")]
    assert [(check.name, check.passed) for check in checks] == [(name, True) for name in names]
    (copied / "evaluation.json").unlink()
    assert [check.passed for check in export.verify(copied)] == [False]


@pytest.mark.parametrize("kind", ["nowhere", "empty", "file"])
def test_what_is_neither_run_nor_bundle_is_refused(tmp_path, kind):
    path = tmp_path / kind
    if kind == "empty":
        path.mkdir()
    elif kind == "file":
        path.write_text("")
    with pytest.raises(UserError, match="Expected a run or a bundle"):
        list(export.verify(path))


def test_a_card_of_something_else_is_refused(tmp_path):
    (tmp_path / "model_card.json").write_text("[]")
    with pytest.raises(UserError, match="not the model card of a bundle"):
        list(export.verify(tmp_path))


def test_a_bundle_verifies_with_its_variants_in_any_order(tmp_path):
    vae = tiny_built(hidden_units=(100, 110))  # 11,000 weights: a layer that int8 quantizes
    export.bundle(vae, tmp_path / "bundle", formats=["tflite"], variants=["int8", "float32"])
    assert [check for check in export.verify(tmp_path / "bundle") if not check.passed] == []
