"""README.md of a bundle: its metadata, its texts of users, and that it speaks only of the files of its bundle."""

import re

import pytest
import yaml
from markdown_it import MarkdownIt
from small_models import tiny_built

from kvae import export
from kvae.export import readme
from kvae.internal.visible import visible
from kvae.runtime import cards

pytestmark = pytest.mark.usefixtures("quick_exports")

Z = [0.5, -0.25]
OTHERS = ("saved_model", "decoder_float16", "decoder_int8", "decoder.onnx", "web/")


def metadata_of(text: str) -> dict:
    """The block of metadata, which ends at the first line of three hyphens, as model hubs read it."""
    assert text.startswith("---\n")
    return yaml.safe_load(text[4 : text.index("\n---\n", 3)])


def html_of(text: str) -> str:
    """The rest as HTML, by a reader of Markdown that passes HTML through."""
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(text[text.index("\n---\n", 3) + 5 :])


@pytest.mark.slow
def test_the_metadata_are_those_that_model_hubs_read(whole):
    card = whole[2]
    metrics = {
        "elbo": -20.0,
        "elbo_standard_error": 0.25,
        "protocol": {"dataset": "mnist", "examples": 1000, "units": "nats per example", "validation": None,
                     "evaluations": ["elbo", "gaps"], "gap_steps": 9, "bound_sizes": [1, 5], "importance_samples": 50},
    }  # fmt: skip
    data = {"dataset": "mnist", "licence": "CC-BY-SA-3.0", "source": "a page"}
    licence = {**card["licence"], "model": "Apache-2.0", "data": data}
    found = metadata_of(readme.render({**card, "metrics": metrics, "licence": licence}, Z))
    assert found["license"] == "apache-2.0"
    assert (found["library_name"], found["pipeline_tag"]) == ("kvae", "unconditional-image-generation")
    assert {"variational-autoencoder", "tflite", "saved-model"} <= set(found["tags"])
    assert "onnx" not in found["tags"]
    assert (found["datasets"], found["metrics"]) == (["ylecun/mnist"], ["elbo"])
    (index,) = found["model-index"]
    (result,) = index["results"]
    assert index["name"] == "tiny"
    assert result["dataset"] == {"name": "mnist", "type": "ylecun/mnist"}
    (metric,) = result["metrics"]
    assert (metric["type"], metric["value"]) == ("elbo", -20.0)
    # What belongs to evaluations that the card does not show is left out.
    assert metric["args"] == {"dataset": "mnist", "number of images": 1000, "units": "nats per image"}
    assert result["task"] == {"type": "unconditional-image-generation"}
    conditional = {**card["model"], "condition_shape": [3]}
    found = metadata_of(readme.render({**card, "metrics": metrics, "licence": licence, "model": conditional}, Z))
    assert "pipeline_tag" not in found
    assert found["model-index"][0]["results"][0]["task"] == {"type": "conditional-image-generation"}


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        (None, {"license": "unknown"}),
        ("MIT", {"license": "mit"}),
        ("My own: no use", {"license": "other", "license_name": "My own: no use"}),
    ],
)
def test_a_licence_that_hubs_do_not_know_is_another_one(lite, licence, expected):
    card = cards.read_card(lite)
    card["licence"]["model"] = licence
    found = metadata_of(readme.render(card, Z))
    assert {key: value for key, value in found.items() if key.startswith("license")} == expected
    assert "model-index" not in found


HOSTILE = [
    'a "quoted" name', "it's: a # mapping", "---", "...", "- item", "1. one", "yes", "null", "{a: [b", "%TAG &x *y !!z",
    "two\nlines\n---\n# of text", "<script>alert(1)</script><img src=x onerror=alert(1)>", "[a](javascript:b) ![c](d)",
    "&lt;b&gt; &amp;", "`code` *bold* _em_ ~~no~~ |cell|", "猫の絵 é ß \U0001f600", "tab\there",
    "\u202eright to left\x1b[31m", "a\\b\\", "$x^2$ #tag @name", "\ud83d alone", "x" * 500,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=[f"{number}" for number in range(len(HOSTILE))])
def test_texts_of_users_are_neither_markup_nor_metadata(lite, text):
    card = cards.read_card(lite)
    card |= {"name": text, "description": text, "metrics": {"elbo": -1.5, "protocol": {"dataset": text, text: text}}}
    card["licence"] = {"model": text, "data": {"dataset": text, "licence": text, "source": "x"}, "code": "x"}
    content = readme.render(card, Z).encode().decode()
    line = visible(" ".join(text.split()))
    found = metadata_of(content)
    assert set(found) == {
        "license", "license_name", "library_name", "pipeline_tag", "tags", "metrics", "model-index",
    }  # fmt: skip
    (index,) = found["model-index"]
    assert (index["name"], found["license_name"]) == (line, line)
    assert index["results"][0]["dataset"] == {"name": line, "type": line}
    assert index["results"][0]["metrics"][0]["args"][" ".join(line.replace("_", " ").split())] == line
    page = html_of(content)
    escaped = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    assert f"<h1>{escaped}</h1>" in page
    assert f"<p><em>{escaped}</em></p>" in page
    assert f"<li>the model: {escaped}</li>" in page
    assert "<script" not in page
    assert page.count("<img") == 1
    assert page.count("<h2") == html_of(readme.render(cards.read_card(lite), Z)).count("<h2") + 1  # that of the ELBO


def test_a_bundle_without_a_name_has_a_heading(lite):
    assert "\n# A decoder of kvae\n" in (lite / "README.md").read_text()


def test_only_the_files_of_the_bundle_are_named(lite, whole):
    text = (lite / "README.md").read_text()
    assert not [name for name in OTHERS if name in text.replace("SavedModel", "")]
    assert "`decoder.tflite`" in text
    for content, folder in ((text, lite), ((whole[1] / "README.md").read_text(), whole[1])):
        for name in re.findall(r"\]\(([^):]+)\)", content):
            assert (folder / name).is_file()
    assert "`decoder_int8.tflite`" in (whole[1] / "README.md").read_text()


def test_each_file_has_its_figures_in_a_row_of_the_table(whole):
    _, folder, card = whole
    text = (folder / "README.md").read_text()
    for report in card["variants"].values():
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{report['file']}` |")]
        for words in (report["purpose"], f"{report['means_error_greatest']:.1e}", f"{report['elbo_change']:+.4f}"):
            assert words in row
    assert "TensorFlow Lite 2.14.0 or LiteRT 1.0.1" in text
    assert card["guarantee"] in text


def test_the_programs_name_the_files_of_the_bundle_and_the_z_of_its_card(lite):
    card, text = cards.read_card(lite), (lite / "README.md").read_text()
    programs = dict(re.findall(r"### (\S+?)[,\n].*?```\w+\n(.*?)\n```", text, re.DOTALL))
    assert set(programs) >= {"Python", "Kotlin", "Swift", "C++", "JavaScript"}
    for program in programs.values():
        assert "decoder" in program
        assert str(card["reference"]["seeds"][0]) in program
    compile(programs["Python"], "README.md", "exec")
    assert f"{card['reference']['z'][0][0]:.4f}"[:6] in programs["Python"]


def test_a_page_alone_is_for_people(tmp_path):
    card = export.bundle(tiny_built(), tmp_path / "bundle", formats=["web"], name="page")
    assert card["interface"] == {}
    text = (tmp_path / "bundle" / "README.md").read_text()
    assert "[web/index.html](web/index.html)" in text
    assert "have no signatures for programs" in text
    assert "sample.py" not in text.partition("## Licence")[0]
    assert [check for check in export.verify(tmp_path / "bundle") if check.passed is False] == []


def test_a_format_of_a_user_needs_no_description(lite):
    card = cards.read_card(lite)
    report = card["variants"].pop("float32")
    for name in ("purpose", "least_runtime", "least_runtime_is", "signatures"):
        del report[name]
    card["variants"]["npz"] = report | {"file": "decoder.npz", "format": "mine:FORMAT"}
    text = readme.render(card, Z)
    assert "| `decoder.npz` |" in text
    assert "Least version" not in text


@pytest.mark.parametrize("shape", [[], [5]])
def test_a_conditional_model_has_no_command_that_lacks_its_condition(lite, shape):
    card = cards.read_card(lite)
    card["model"]["condition_shape"] = shape
    text = readme.render(card, Z)
    assert "kvae sample" not in text
    assert "python sample.py" not in text
    assert "and a condition" in text
    assert "pipeline_tag" not in metadata_of(text)


def test_the_classes_of_a_conditional_model_are_named_with_the_command_that_draws_one(lite):
    card = cards.read_card(lite)
    card["model"] |= {"condition_shape": [30], "class_names": ["<b>two\nlines</b>", *map(str, range(1, 30))]}
    text = readme.render(card, Z)
    assert "of 30: 0 is " in text
    assert "19 is 19, ... With" in text
    assert "`kvae sample DIR --label 0`" in text
    assert "<b>" not in text
    assert "two\n" not in text
