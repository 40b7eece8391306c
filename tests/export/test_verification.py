"""`export.verify`: which claims of a run and its bundle it tests, and which changes it finds."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from small_models import built, tiny, tiny_built
from tiny_runs import tiny_run

from kvae import export
from kvae.export import claims, derivation, verification
from kvae.internal import files, sealed
from kvae.internal.errors import KvaeWarning, UserError
from kvae.runtime import cards

pytestmark = pytest.mark.usefixtures("quick_exports", "without_xla")


@pytest.mark.slow
def test_the_card_of_a_run_has_its_evaluation_and_its_files(trained):
    card = cards.read_card(trained / "bundle")
    assert card["name"] == "odd"
    assert card["metrics"] == sealed.read(trained / "evaluation.json")
    names = ("config.json", "model.keras")
    assert card["run"] == {name: {"sha256": files.digest(trained / name)} for name in names}


@pytest.mark.slow
def test_everything_holds_of_a_run_and_its_bundle(trained):
    checks = list(export.verify(trained))
    assert [check for check in checks if check.passed is False] == []
    terms = (*TERMS, "further numbers")
    assert [check.name for check in checks if "/" not in check.name and check.passed is not None] == [
        "README.md",
        "decoder.tflite",
        "preview.png",
        "sample.py",
        "config.json",
        "model.keras",
        "config.json builds",
        *[f"{source}: {term}" for source in ("evaluation.json", "model_card.json") for term in terms],
        "reference z",
        "saved_model parity",
        "float32 parity",
        "web_int8 parity",
        "model_card.json: further statements",
        "preview",
    ]


def test_without_evaluation_no_data_are_needed(copied):
    config = json.loads((copied / "config.json").read_text())
    config["config"]["data"]["source"] = "npz:nowhere.npz"
    (copied / "config.json").write_text(json.dumps(config))
    failed = [check.name for check in export.verify(copied, evaluate=False) if check.passed is False]
    assert failed == ["config.json"]
    with pytest.raises(UserError, match=r"nowhere\.npz"):
        list(export.verify(copied))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["whole", "lite"])
def test_a_bundle_alone_verifies(request, name):
    folder = request.getfixturevalue(name)
    checks = list(export.verify(folder if name == "lite" else folder[1]))
    assert [check for check in checks if check.passed is False] == []
    assert f"{'float32' if name == 'lite' else 'int8'} parity" in [check.name for check in checks]


@pytest.mark.slow
def test_a_bundle_of_large_images_verifies_but_not_with_another_tolerance_of_the_elbo(tmp_path):
    vae = built((32, 40, 1), latent_dim=2, hidden_units=(4,))  # more than 28 x 28 pixels, so it has a larger one
    card = export.bundle(vae, tmp_path / "bundle", formats=["tflite"], variants=["float32"])
    assert [check for check in export.verify(tmp_path / "bundle") if check.passed is False] == []
    card["tolerances"]["float32"]["elbo"] *= 2
    sealed.write(tmp_path / "bundle" / cards.CARD, card)
    (failed,) = [check for check in export.verify(tmp_path / "bundle") if check.passed is False]
    assert failed.name == "float32 parity"
    assert failed.detail.startswith("tolerances.float32.elbo")


@pytest.mark.slow
def test_a_weight_that_is_one_number_counts_as_one(tmp_path):
    folder = tiny_run(tmp_path, likelihood="gaussian").folder
    found = {check.name: check.detail for check in export.verify(folder)}["config.json builds"]
    assert re.fullmatch(r"it describes a model with (\d+) weights; model\.keras has \1", found)


@pytest.mark.parametrize("changed", [False, True])
def test_the_parity_of_a_decoder_alone_is_not_checked_but_the_rest_of_its_entry_is(lite_copy, changed):
    card = cards.read_card(lite_copy)
    if changed:
        card["variants"]["float32"]["pixels"] += 1
        sealed.write(lite_copy / cards.CARD, card)
    found = {check.name: check for check in export.verify(lite_copy)}
    parity = found["float32 parity"]
    assert parity.passed is (False if changed else None)
    assert parity.detail.startswith(
        "variants.float32.pixels: computed" if changed else "not computed again: without the run"
    )
    assert "variants.*.means_error_greatest" in found["model_card.json: not checked"].detail


def test_what_a_variant_is_compared_with_is_named(whole):
    found = {check.name: check for check in export.verify(whole[1])}
    assert [check.name for check in found.values() if check.name.endswith(" parity") and check.passed is None] == [
        "saved_model parity"
    ]
    assert "differ from those of saved_model by at most" in found["int8 parity"].detail


def test_a_missing_package_is_not_a_claim_that_fails(lite, monkeypatch):
    for module in ("ai_edge_litert", "ai_edge_litert.interpreter"):
        monkeypatch.setitem(sys.modules, module, None)
    found = {check.name: check for check in export.verify(lite)}
    assert found["float32 loads"].passed is None
    assert "pip install ai-edge-litert" in found["float32 loads"].detail
    assert all(check.passed is not False for check in found.values())


def failed_checks(path: Path) -> dict[str, str]:
    """The claims that do not hold, up to the one after which nothing can be loaded."""
    found = {}
    try:
        for check in export.verify(path):
            if check.passed is False:
                found[check.name] = check.detail
    except UserError:
        pass
    return found


def change(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


TERMS = ("elbo", "reconstruction", "kl")
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


@pytest.mark.slow
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
    if name in card["files"]:
        files_of[name]["bytes"] = (folder / name).stat().st_size
    sealed.write(copied / "bundle" / "model_card.json", card)


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
        (lambda card: card["variants"]["float32"].update(bytes=1), "float32 parity", "float32.bytes: computed"),
        (without_entry("variants", "float32", "means_error_greatest"), "float32 parity", "does not state it"),
        (without_entry("tolerances", "float32"), "float32 parity", "does not state it"),
        (lambda card: card["tolerances"]["float32"].update(means="x"), "float32 parity", "expected a number"),
        (lambda card: card["model"].update(latent_dim=99), "model", "describes another model"),
        (lambda card: card["reference"].update(seeds=[2**40]), "reference z", ""),
        (lambda card: card["reference"].update(z="x"), "reference z", ""),
        (lambda card: card.update(reference={}), "reference z", ""),
    ],
)
def test_a_wrong_or_incomplete_card_does_not_verify(copied, edit, claim, words):
    card = cards.read_card(copied / "bundle")
    edit(card)
    sealed.write(copied / "bundle" / "model_card.json", card)
    found = {check.name: check.detail for check in export.verify(copied, evaluate=False) if check.passed is False}
    assert words in found[claim]


def test_a_file_that_the_card_does_not_list_is_named(copied):
    for name in ("more.py", ".DS_Store"):  # the second of which macOS writes
        (copied / "bundle" / name).write_text("")
    found = {check.name: check.detail for check in export.verify(copied, evaluate=False) if check.passed is False}
    assert found == {"more.py": "model_card.json does not list it"}


def test_verification_reports_a_tolerance_wider_than_usual(copied):
    card = cards.read_card(copied / "bundle")
    card["tolerances"]["float32"]["means"] = 0.9
    sealed.write(copied / "bundle" / "model_card.json", card)
    found = {check.name: check for check in export.verify(copied, evaluate=False)}["float32 parity"]
    assert found.passed
    assert "larger than the default 0.0001" in found.detail


@pytest.mark.slow
@pytest.mark.parametrize("source", ["evaluation.json", "model_card.json"])
def test_a_wrong_elbo_does_not_verify(copied, source):
    path = copied / source if source == "evaluation.json" else copied / "bundle" / source
    values = json.loads(path.read_text())
    metrics = values if source == "evaluation.json" else values["metrics"]
    stated, metrics["elbo"] = metrics["elbo"], metrics["elbo"] + 0.5
    sealed.write(path, values)
    found = failed_checks(copied)
    assert list(found) == [f"{source}: elbo"]
    assert f"{stated:.3f} nats, stated {metrics['elbo']:.3f}" in found[f"{source}: elbo"]


@pytest.mark.slow
@pytest.mark.parametrize("content", ["{}", '{"protocol": 1}', '{"elbo": "high"}'])
def test_an_evaluation_of_something_else_is_a_claim_that_fails(copied, content):
    (copied / "evaluation.json").write_text(content)
    found = failed_checks(copied)
    assert list(found) == ["evaluation.json: evaluation"]
    assert "not an evaluation of kvae" in found["evaluation.json: evaluation"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"), [("elbow", "Did you mean 'elbo'"), ("mine:pixels", "Add --import mine.py")]
)
def test_an_evaluation_that_is_not_known_is_a_claim_that_fails(copied, name, message):
    values = json.loads((copied / "evaluation.json").read_text())
    values["protocol"]["evaluations"].append(name)
    sealed.write(copied / "evaluation.json", values)
    found = failed_checks(copied)
    assert list(found) == [f"evaluation.json: {name}"]
    assert message in found[f"evaluation.json: {name}"]


@pytest.mark.slow
def test_the_decoder_of_another_model_does_not_verify_although_the_card_fits(copied, tmp_path):
    vae = tiny_built(hidden_units=(4,), seed=9)
    export.bundle(vae, tmp_path / "other", formats=["tflite"], variants=["float32"])
    shutil.copy(tmp_path / "other" / "decoder.tflite", copied / "bundle" / "decoder.tflite")
    restate(copied, "decoder.tflite")
    found = failed_checks(copied)
    assert list(found) == ["float32 parity", "preview"]
    assert "its means differ by" in found["float32 parity"]


def test_a_decoder_that_is_not_the_file_of_its_card_is_not_opened(copied, monkeypatch):
    change(copied / "bundle" / "decoder.tflite", 5000)
    opened = []
    real = cards.open_variant
    monkeypatch.setattr(cards, "open_variant", lambda *given: opened.append(given[2]) or real(*given))
    found = {check.name: check.detail for check in export.verify(copied, evaluate=False) if check.passed is False}
    assert list(found) == ["decoder.tflite", "float32 loads"]
    assert opened == ["saved_model", "web_int8"]


# A run whose model does not fit


def other_units(copied):
    config = json.loads((copied / "config.json").read_text())
    config["config"]["model"]["network"]["hidden_units"] = [5]
    (copied / "config.json").write_text(json.dumps(config))


def unknown_likelihood(copied):
    text = (copied / "config.json").read_text()
    (copied / "config.json").write_text(text.replace('"bernoulli"', '"bernouli"'))


def no_json(copied):
    (copied / "config.json").write_text("{")


def no_model(copied):
    (copied / "model.keras").write_text("no model")


def not_built(copied):
    (copied / "model.keras").unlink()
    tiny().save(copied / "model.keras")


@pytest.mark.parametrize(
    ("damage", "claim", "words"),
    [
        (other_units, "config.json builds", "it describes a model with 374 weights; model.keras has 306"),
        (unknown_likelihood, "config.json builds", "its model cannot be built"),
        (no_json, "config.json", "not valid JSON"),
        (no_model, "model.keras loads", "damaged or not a model of kvae"),
        (not_built, "model.keras loads", "no weights"),
    ],
)
@pytest.mark.parametrize("bundled", [True, False])
def test_a_run_whose_model_cannot_be_built_or_loaded_does_not_verify(copied, damage, claim, words, bundled):
    if not bundled:
        shutil.rmtree(copied / "bundle")
    damage(copied)
    assert words in failed_checks(copied)[claim]


# Every value that a card states


CANNOT_BE_DERIVED = {
    "name", "description", "protocol.costs", "versions.kvae", "versions.tensorflow", "versions.keras",
    "versions.numpy", "versions.tensorflow-datasets", "variants.*.load_seconds", "variants.*.peak_memory_mb",
    "variants.*.latency_us", "variants.*.pixels_difference_greatest", "tolerances.means",
    "licence.model", "licence.data",
    "protocol.evaluations", "protocol.elbo_draws", "protocol.noise", "protocol.seed",
}  # fmt: skip


def altered(value):
    """Another value of the same type, further away than rounding."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return 3 * value + 100
    return "x" if value is None else f"{value}x"


def with_altered(tree, path):
    tree = json.loads(json.dumps(tree))
    place = tree
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = altered(place[path[-1]])
    return tree


def kind_of(path) -> str:
    """`variants.*.latency_us`, `tolerances.means`, `protocol.seed`."""
    if path[0] == "variants":
        return f"variants.*.{path[2]}"
    return f"tolerances.{path[2]}" if path[0] == "tolerances" else ".".join(map(str, path[:2]))


@pytest.mark.slow
def test_every_value_that_a_card_states_is_computed_again_or_listed_as_not_checked(trained, monkeypatch):
    derived = []
    real = claims.compare
    monkeypatch.setattr(verification, "compare", lambda *given: derived.append(given) or real(*given))
    list(export.verify(trained))
    card = cards.read_card(trained / "bundle")
    assert set().union(*(stated for stated, _ in derived[1:])) >= {*card, *card["metrics"]} - {
        "files",
        "run",
        "metrics",
    }
    open_ = set()
    for stated, expected in derived:
        for path, _ in claims.leaves(stated):
            results = {each.path: each for each in real(with_altered(stated, path), expected)}
            if not any(each.passed is False for each in results.values()):
                assert results[path].passed is None, path
                open_.add(kind_of(path))
    assert open_ <= CANNOT_BE_DERIVED
    for folder, name in ((trained / "bundle", "files"), (trained, "run")):
        for path, _ in claims.leaves(card[name]):
            stated = with_altered(card[name], path)
            assert any(check.passed is False for check in verification._files(folder, stated)), path


def test_no_byte_of_a_card_changes_without_notice(lite_copy):
    path = lite_copy / "model_card.json"
    content = path.read_bytes()
    card = json.loads(content)
    for place in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            cards.read_card(lite_copy)
        except UserError:
            continue
        assert json.loads(damaged) == card  # such as 1E-06 in place of 1e-06


def test_a_digest_of_a_damaged_name_is_not_taken_for_a_card_from_before(lite_copy):
    path = lite_copy / "model_card.json"
    path.write_text(path.read_text().replace('\n  "sha256"', '\n  "sha257"'))
    with pytest.raises(UserError, match="is not the file that kvae wrote"):
        cards.read_card(lite_copy)


def test_a_card_from_before_is_read_with_a_warning(lite_copy):
    path = lite_copy / "model_card.json"
    card = json.loads(path.read_text())
    del card["sha256"]
    path.write_text(json.dumps(card))
    with pytest.warns(KvaeWarning, match="has no digest"):
        assert cards.read_card(lite_copy) == card


def test_the_words_of_another_version_are_not_checked(copied):
    card = cards.read_card(copied / "bundle")
    card["guarantee"], card["versions"]["kvae"] = "Words of before.", "0.2.0"
    del card["model"]["prior"], card["variants"]["float32"]["file"]
    sealed.write(copied / "bundle" / "model_card.json", card)
    checks = list(export.verify(copied, evaluate=False))
    assert [check for check in checks if check.passed is False] == []
    assert any("guarantee" in check.detail for check in checks if check.passed is None)


@pytest.mark.slow
def test_wrong_reference_z_do_not_verify(copied):
    card = cards.read_card(copied / "bundle")
    card["reference"]["z"][0][0] += 2.0**-20  # one step of the sampler
    sealed.write(copied / "bundle" / "model_card.json", card)
    assert list(failed_checks(copied)) == ["reference z"]


def test_a_run_without_a_bundle_verifies_its_elbo(copied):
    shutil.rmtree(copied / "bundle")
    checks = list(export.verify(copied))
    names = ["config.json builds", *[f"evaluation.json: {term}" for term in (*TERMS, "further numbers")]]
    assert [(check.name, check.passed) for check in checks if check.passed is not None] == [(n, True) for n in names]
    (copied / "evaluation.json").unlink()
    assert [check.name for check in export.verify(copied) if not check.passed] == ["evaluation"]


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
    with pytest.raises(UserError, match=r"Expected a JSON object in .*model_card\.json"):
        list(export.verify(tmp_path))


@pytest.mark.slow
def test_a_bundle_verifies_with_its_variants_in_any_order(tmp_path):
    vae = tiny_built(hidden_units=(100, 110))  # 11,000 weights: a layer that int8 quantizes
    export.bundle(vae, tmp_path / "bundle", formats=["tflite"], variants=["int8", "float32"])
    assert [check for check in export.verify(tmp_path / "bundle") if check.passed is False] == []


@pytest.mark.parametrize("stated", ["analytic", "sampled"])
def test_a_file_that_says_analytic_of_a_sampled_kl_term_still_verifies(stated):
    vae = tiny_built(prior="mixture")
    for claim, expected in ((stated, stated), ("exact", "sampled")):
        tree = derivation.evaluation({"protocol": {"kl": claim}}, vae, {}, {}, None)
        assert tree["protocol"]["kl"] == expected
    vae = tiny_built()
    assert derivation.evaluation({"protocol": {"kl": "sampled"}}, vae, {}, {}, None)["protocol"]["kl"] == "analytic"
