"""tools/reproduce.py at work, with --quick: a page whose numbers are those of its runs and whose pictures exist."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image
from reproduce import main

from kvae.training.config import recipes

ROOT = Path(__file__).parents[2]
OURS = (
    "digits_2d",
    "mnist_2d",
    "fashion_2d",
    "mnist_10d",
    "own_colour",
    "own_grey",
    "colour_64",
    "mnist_conditional",
)
LIKELIHOODS = ("iwae_vae", "iwae_5", "iwae_50", "dreg_50")  # the recipes of the other page
EXPERIMENTS = [name for name in recipes() if name not in OURS + LIKELIHOODS]  # those of others' write-ups


def reproduce(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "tools" / "reproduce.py", "--runs", "runs", "--out", "out", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ},
        check=False,
    )


def reproduce_here(folder: Path, *arguments: str) -> Result:
    """As `reproduce`, in this process, which already has TensorFlow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return CliRunner().invoke(main, ["--runs", "runs", "--out", "out", *arguments])


def page(folder: Path) -> str:
    return (folder / "out" / "REPRODUCTION.md").read_text(encoding="utf-8")


def sections(folder: Path) -> dict[str, str]:
    """The part of the page that is about each recipe."""
    _, *parts = re.split(r"^## `(\w+)`$", page(folder), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def pictures(text: str) -> list[str]:
    return re.findall(r'<img src="([^"]+)"', text)


def elbo_of(folder: Path, run: str) -> float:
    return json.loads((folder / "runs" / run / "evaluation.json").read_text())["elbo"]


def assert_pictures_open(folder: Path) -> None:
    for picture in pictures(page(folder)):
        with Image.open(folder / "out" / picture) as image:
            image.load()


@pytest.mark.slow
def test_an_unknown_recipe_ends_in_status_2_and_the_nearest_match(tmp_path):
    result = reproduce_here(tmp_path, "flux_bta", "--quick")
    assert result.exit_code == 2
    assert "Unknown recipe 'flux_bta'. Did you mean 'flux_beta'?" in " ".join(result.stderr.split())
    assert isinstance(result.exception, SystemExit)  # and no traceback
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """Where two of the experiments were run: one of one seed, one of several."""
    folder = tmp_path_factory.mktemp("two")
    result = reproduce(folder, "flux_beta", "fashion_mlp", "--quick")
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.splitlines()[-1] == "out/REPRODUCTION.md"
    return folder


@pytest.mark.slow
def test_the_page_has_one_section_and_one_row_per_experiment(two):
    assert list(sections(two)) == ["flux_beta", "fashion_mlp"]
    for name in sections(two):
        assert f"| [`{name}`](#{name}) |" in page(two)


@pytest.mark.slow
def test_a_quick_page_says_that_it_is_one_and_names_its_data(two):
    assert "**A quick run** on 1,000 embedded digits" in page(two)
    for text in sections(two).values():
        assert "- Data: dataset: mnist5k; train: train[:1000] (1000 images); test: test[:100] (100 images)" in text


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "row"), [("flux_beta", "test negative ELBO"), ("fashion_mlp", "test loss")])
def test_the_value_on_the_page_is_that_of_the_run(two, recipe, row):
    found = re.search(rf"^\| {row} \| ([\d.]+) ± [\d.]+ \| 100 test images", sections(two)[recipe], re.MULTILINE)
    assert float(found[1]) == pytest.approx(-elbo_of(two, f"{recipe}_seed0"), abs=0.0051)  # printed to two digits


@pytest.mark.slow
def test_the_page_gives_the_value_of_every_seed_and_their_mean(two):
    row = re.search(r"^\| the whole test set, every seed \| (.*) \| seeds 0, 1 \|$", page(two), re.MULTILINE)
    losses = [-elbo_of(two, f"fashion_mlp_seed{seed}") for seed in (0, 1)]
    assert row[1] == f"{losses[0]:.2f}, {losses[1]:.2f}; mean {sum(losses) / 2:.2f}"


@pytest.mark.slow
def test_the_pictures_of_the_page_exist_and_no_others(two):
    assert_pictures_open(two)
    shown = pictures(page(two))
    drawn = [path.relative_to(two / "out").as_posix() for path in (two / "out").rglob("*.png")]
    assert sorted(shown) == sorted(drawn)
    for recipe, text in sections(two).items():
        assert f"reproduction/{recipe}/samples_grid.png" in pictures(text)


@pytest.mark.slow
def test_another_call_does_not_train_again_and_keeps_what_was_measured_of_the_others(two):
    models = sorted((two / "runs").glob("*/model.keras"))
    assert [path.parent.name for path in models] == ["fashion_mlp_seed0", "fashion_mlp_seed1", "flux_beta_seed0"]
    before, times = page(two), [path.stat().st_mtime_ns for path in models]
    result = reproduce_here(two, "flux_beta", "--quick")
    assert result.exit_code == 0, result.output
    assert [path.stat().st_mtime_ns for path in models] == times
    assert page(two) == before


@pytest.mark.slow
def test_a_run_of_other_settings_is_left_alone_and_named(two):
    times = [path.stat().st_mtime_ns for path in sorted((two / "runs").glob("*/model.keras"))]
    result = reproduce_here(two, "flux_beta", "--out", "elsewhere")  # without --quick: there is a quick run
    assert result.exit_code == 2
    assert "training.epochs (run: 2, received: 10)" in " ".join(result.stderr.split())
    assert [path.stat().st_mtime_ns for path in sorted((two / "runs").glob("*/model.keras"))] == times


@pytest.mark.exhaustive
def test_all_experiments_run_and_are_on_the_page(tmp_path):
    result = reproduce(tmp_path, "--quick")
    assert result.returncode == 0, result.stderr[-2000:]
    assert sorted(sections(tmp_path)) == sorted(EXPERIMENTS)
    assert_pictures_open(tmp_path)
    with Image.open(tmp_path / "out" / "reproduction" / "assignment_2d" / "lattice.png") as image:
        assert image.size == (1400, 1400)
    completed = sections(tmp_path)["article_2d"]
    for row in (r"log p(lower half \| top half)", "... exact, by quadrature", "... baseline: encoding zeros"):
        assert re.search(rf"^\| {re.escape(row)} \| -[\d.]+ ± [\d.]+ \|", completed, re.MULTILINE), row
