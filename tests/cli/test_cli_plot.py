"""`kvae plot`: which pictures it draws, and which options reach which kind."""

from pathlib import Path

import pytest
from figure_cases import FILES
from PIL import Image

from kvae.plotting import figures
from kvae.training import results
from kvae.training.runs import Run

ALL_PICTURES = [name for names in FILES.values() for name in names]


@pytest.mark.exhaustive  # tests/plotting shows it in CI
def test_plot_draws_every_kind(call, run):
    status, out, _ = call("plot", run)
    assert status == 0
    assert out.splitlines() == [str(run / "plots" / f"{name}.png") for name in ALL_PICTURES]
    for line in out.splitlines():
        Image.open(line).verify()


@pytest.mark.slow
def test_plot_leaves_out_what_does_not_suit_and_says_why(call, odd):
    status, out, _ = call("plot", odd)
    assert status == 0
    reasons = dict(line.split(": not drawn. ") for line in out.splitlines() if ": not drawn. " in line)
    assert set(reasons) == set(results.OF_THE_PLANE) == {"lattice", "map", "posterior_contours"}
    assert reasons["lattice"].startswith("Expected a model with 2 latent dimensions, a plane. This model has 3.")
    assert "--latent-dim 2" in reasons["lattice"]
    assert {Path(line).name for line in out.splitlines() if ": not drawn. " not in line} == {
        "samples.png", "samples_grid.png", "samples_strip.png", "reconstructions.png", "reconstructions_draws.png",
        "latent_scatter.png", "interpolation.png", "outliers.png", "learning_curves.png", "completion.png",
    }  # fmt: skip


@pytest.mark.parametrize("suffix", ["svg", "pdf"])
def test_plot_writes_the_format_asked_for(call, run, suffix):
    status, out, _ = call("plot", run, "lattice", "-n", 5, "--format", suffix)
    assert status == 0
    assert out.splitlines() == [str(run / "plots" / f"lattice.{suffix}")]
    assert (run / "plots" / f"lattice.{suffix}").stat().st_size > 1000


def test_plot_draws_a_lattice_of_the_size_asked_for(call, run):
    assert call("plot", run, "lattice", "-n", 50, "--seamless")[0] == 0
    assert Image.open(run / "plots" / "lattice.png").size == (1400, 1400)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["lattice"], {"lattice": {}}),
        (["lattice", "-n", 7, "--extent", 3.5], {"lattice": {"n": 7, "extent": 3.5}}),
        (["lattice", "--quantiles"], {"lattice": {"quantiles": True}}),
        (["lattice", "map", "--seamless"], {"lattice": {"seamless": True}, "map": {}}),
        (["lattice(n=7, seamless=true)", "-n", 9], {"lattice": {"n": 9, "seamless": True}}),
        (["samples", "lattice", "-n", 7, "--seed", 3], {"samples": {"n": 7, "seed": 3}, "lattice": {"n": 7}}),
        (["reconstructions", "--seed", 0], {"reconstructions": {"seed": 0}}),
        (
            ["interpolation", "--pair", "0,5", "--pair", "cat, dog"],
            {"interpolation": {"pairs": [("0", "5"), ("cat", "dog")]}},
        ),
        (
            ["interpolation", "--between", "3,17", "--steps", 4, "--spherical"],
            {"interpolation": {"between": [(3, 17)], "steps": 4, "spherical": True}},
        ),
        (
            ["completion", "--observed", "left", "--index", 3, "--index", 4, "--plain"],
            {"completion": {"observed": "left", "places": (3, 4), "plain": True}},
        ),
        (["posterior_contours", "--index", 0], {"posterior_contours": {"places": (0,)}}),
        (["--extent", 3], {kind: {"extent": 3.0} if kind in ("lattice", "map") else {} for kind in figures.KINDS}),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_options_reach_the_kinds_that_take_them_and_no_other(call, run, monkeypatch, arguments, expected):
    asked = {}
    monkeypatch.setattr(figures, "draw", lambda kind, *_, suffix, **options: asked.update({kind: options}) or [])
    status, _, err = call("plot", run, *arguments)
    assert (status, err) == (0, "")
    assert asked == expected


@pytest.mark.slow
def test_options_of_the_recipe_are_those_of_the_plot_unless_others_are_given(call, run, monkeypatch):
    training = Run.open(run).config.training.model_copy(update={"plots": ("lattice(n=7, extent=3)",)})
    config = Run.open(run).config.model_copy(update={"training": training})
    monkeypatch.setattr(Run, "open", classmethod(lambda cls, folder: cls(folder, config)))
    asked = []
    monkeypatch.setattr(figures, "draw", lambda kind, *_, suffix, **options: asked.append((kind, options)) or [])
    for arguments in (["lattice"], ["lattice", "-n", 9], ["lattice(n=8)"]):
        status, _, err = call("plot", run, *arguments)
        assert (status, err) == (0, "")
    extent = {"extent": 3}
    assert asked == [("lattice", {"n": 7} | extent), ("lattice", {"n": 9} | extent), ("lattice", {"n": 8} | extent)]


def test_help_of_plot_names_every_kind(call):
    _, out, _ = call("plot", "--help")
    for kind in figures.KINDS:
        assert kind in out
