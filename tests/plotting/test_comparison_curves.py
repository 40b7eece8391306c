"""`kvae.plotting.comparison`: the curves of several runs in one figure."""

import numpy as np
import pytest

from kvae.internal.errors import UserError
from kvae.plotting import comparison
from kvae.plotting.comparison import Curve


def curve(name="a", values=(-3.0, -2.0, -1.0), images="test", kept=None):
    return Curve(name, np.arange(1, len(values) + 1), np.array(values), images, kept)


def axes_of(*curves):
    return comparison.elbo_curves(curves).axes[0]


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_every_run_has_its_line_in_one_frame():
    axes = axes_of(curve("a"), curve("_b", (-5.0, np.nan, -4.0)))
    assert [line.get_ydata().tolist() for line in axes.lines] == [[-3.0, -2.0, -1.0], [-5.0, -4.0]]
    assert axes.lines[1].get_xdata().tolist() == [1, 3]
    assert legend(axes) == ["a", "_b"]
    assert axes.get_title() == "ELBO of the test images by epoch; higher is better"


def test_sets_that_differ_are_named():
    axes = axes_of(curve("a"), curve("b", images="validation"))
    assert legend(axes) == ["a (test)", "b (validation)"]
    assert axes.get_title() == "ELBO by epoch; higher is better"


def test_the_epoch_whose_weights_were_kept_has_a_ring():
    axes = axes_of(curve("a", (-3.0, -1.0, -2.0), kept=2))
    assert axes.collections[0].get_offsets().tolist() == [[2.0, -1.0]]
    assert legend(axes) == ["a", "epoch whose weights were kept"]


def test_a_cut_of_the_first_epochs_is_said():
    falls = [-1000.0, *np.linspace(-20, -10, 39)]
    axes = axes_of(curve("a", falls))
    assert axes.get_ylim()[0] > -30
    assert axes.get_title().splitlines()[1:] == ["(epoch 1 is cut off)"]
    other = curve("b", [-30.0, *np.linspace(-20, -10, 9)])  # shorter, with a fall that can be shown
    assert axes_of(curve("a", [-500.0, *falls]), other).get_title().splitlines()[1:] == [
        "(epochs 1 to 2 are partly cut off)"
    ]


def test_forty_runs_can_be_told_apart_and_more_are_refused():
    curves = [curve(str(number)) for number in range(comparison.MOST)]
    styles = {(line.get_color(), line.get_linestyle()) for line in axes_of(*curves).lines}
    assert len(styles) == comparison.MOST == 40
    with pytest.raises(UserError, match="at most 40 runs"):
        comparison.elbo_curves([*curves, curve()])


def test_curves_without_a_value_are_refused():
    with pytest.raises(UserError, match="at least one epoch"):
        comparison.elbo_curves([curve(values=(np.nan,))])
