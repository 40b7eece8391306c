"""Figures are saved in every format, and importing the module that draws them is cheap."""

import subprocess
import sys
from pathlib import Path

import pytest
from plot_cases import LOSSES, SHEET_SHAPES, VALIDATION_LOSSES, assert_is_saved

from kvae.internal.errors import UserError
from kvae.plotting import drawing

ROOT = Path(__file__).parents[2]


# --- every figure is saved


@pytest.mark.parametrize("suffix", ["png", "svg"])
@pytest.mark.parametrize("shape", SHEET_SHAPES, ids=str)
@pytest.mark.parametrize("plot", [drawing.samples, drawing.reconstructions], ids=lambda plot: plot.__name__)
def test_sheets_are_saved(tmp_path, rng, plot, shape, suffix):
    x = rng.uniform(size=(7, *shape))
    assert_is_saved(plot(x, x.round(), columns=4), tmp_path, suffix)


@pytest.mark.parametrize("suffix", ["png", "svg"])
@pytest.mark.parametrize("dimensions", [1, 2, 5])
def test_scatters_are_saved(tmp_path, scatter, dimensions, suffix):
    assert_is_saved(scatter(dimensions, title="posterior means"), tmp_path, suffix)


@pytest.mark.parametrize("suffix", ["png", "svg"])
@pytest.mark.parametrize("history", [LOSSES, LOSSES | VALIDATION_LOSSES], ids=["training", "validation"])
def test_learning_curves_are_saved(tmp_path, history, suffix):
    assert_is_saved(drawing.learning_curves(history), tmp_path, suffix)


@pytest.mark.parametrize("name", ["a", "a.txt", "png"])
def test_an_unknown_suffix_is_refused_and_nothing_is_left(tmp_path, name):
    with pytest.raises(UserError, match=r"Expected the suffix of a picture: .*png.*svg"):
        drawing.save(drawing.learning_curves(LOSSES), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


# --- what importing costs


def test_importing_plots_imports_neither_pyplot_nor_tensorflow():
    code = "import sys, kvae.plotting.drawing; print({'matplotlib.pyplot', 'tensorflow', 'keras'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "set()\n"
