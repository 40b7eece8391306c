"""Names of runs and of files in a run folder: a name is a name, and two datasets have two."""

import pytest

from kvae.internal.errors import UserError
from kvae.internal.files import read_json
from kvae.training.config import RunConfig, collected, load_values, override
from kvae.training.names import check_name, distinct_name, name_of_source
from kvae.training.runs import Run

GOOD = ["mnist_2d", "my run", "v1.2", "β-VAE", "数字", "a" * 100, "a(b)", "conn", "x.con"]
BAD = [
    "", ".", "..", "../x", "a/b", "/a", "a\\b", "C:\\x", "C:", "-x", ".hidden", " a", "a ", "a.", "a\nb", "a\0b",
    "\x1b[2J", "a*", "a?", 'a"b', "a<b", "a|b", "con", "CON", "nul.txt", "com1", "lpt0", "a" * 101, "数" * 50, "\udcff",
    "\u202ea", 5, None, True, 1.5, ["a"], {"a": 1},
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_name_is_kept(name):
    assert check_name(name) == name


@pytest.mark.parametrize("name", BAD, ids=repr)
def test_what_is_no_name_is_refused_wherever_it_comes_from(name, tmp_path):
    with pytest.raises(UserError, match=r"^Expected a name such as 'mnist_2d' for the run and its folder\. Received "):
        check_name(name)
    with pytest.raises(UserError, match="Expected a name"):
        override({}, {"name": name})
    with pytest.raises(UserError, match="Expected a name"):
        collected([("--set name=...", "name", name)])


@pytest.mark.parametrize(
    ("file", "text"),
    [("good.toml", 'name = "../x"'), ("good.toml", "name = 5"), ("-x.toml", ""), ("con.toml", ""), ("a .toml", "")],
)
def test_the_name_of_a_recipe_and_of_its_file_is_one(tmp_path, monkeypatch, file, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match="Expected a name"):
        load_values(file)


def test_a_name_in_a_recipe_replaces_that_of_its_file(tmp_path):
    (tmp_path / "-x.toml").write_text('name = "good"')
    assert load_values(str(tmp_path / "-x.toml"))["name"] == "good"


SOURCES = [
    "npz:/a/b-c.npz", "npz:/a/b_c.npz", "npz:a/b_c.npz", "csv:a,b.csv", 'csv:a"b".csv', "csv:a\nb.csv", "idx:/", ":",
    "csv:" + "x" * 300 + "1.csv", "csv:" + "x" * 300 + "2.csv", "csv:\udcff.csv", "csv:\udcfe.csv", "con", "数" * 90,
]  # fmt: skip


@pytest.mark.parametrize("source", [*SOURCES, "mnist", "mnist5k"])
def test_the_default_name_of_a_run_is_a_name(source):
    assert check_name(name_of_source(source))
    assert check_name(distinct_name(source))


def test_two_datasets_have_two_files():
    names = [distinct_name(source) for source in SOURCES]
    assert len({name.lower() for name in names}) == len(SOURCES)
    assert distinct_name("fashion_mnist") == "fashion_mnist"
    assert distinct_name("npz:/data/mine.npz").startswith("npz_data_mine_npz-")


def test_plain_sources_have_plain_names():
    assert name_of_source("npz:mine.npz") == "npz_mine_npz"


def test_the_evaluations_of_two_datasets_do_not_replace_each_other(tmp_path):
    run = Run(tmp_path, RunConfig())
    for source in SOURCES:
        run.write_evaluation({"dataset": ascii(source)}, source)
    files = sorted(tmp_path.glob("evaluation-*.json"))
    assert {read_json(file)["dataset"] for file in files} == {ascii(source) for source in SOURCES}
