"""Scatters of the latent space, learning curves and contours."""

import numpy as np
import pytest
from matplotlib import patheffects
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from plot_cases import LOSSES, VALIDATION_LOSSES, assert_is_saved

from kvae.internal.errors import UserError
from kvae.plotting import colours, drawing

KEYS = ("loss", "reconstruction", "kl")  # of the three panels of learning curves


def legend(owner) -> list[str]:
    """The texts in the legend of axes, or in the one legend of a figure."""
    (made,) = owner.legends if hasattr(owner, "legends") else [owner.get_legend()]
    return [text.get_text() for text in made.get_texts()]


# --- latent_scatter


@pytest.mark.parametrize(("dimensions", "expected"), [(1, ("z₁", "label")), (2, ("z₁", "z₂"))])
def test_scatter_axes_are_latent_dimensions(scatter, dimensions, expected):
    axes = scatter(dimensions).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == expected


def test_scatter_axes_of_more_dimensions_are_principal_components_with_their_variance(scatter):
    axes = scatter(5).axes[0]
    assert axes.get_xlabel().startswith("principal component 1 of 5 latent dimensions")
    assert axes.get_ylabel().startswith("principal component 2")
    assert "%" in axes.get_xlabel()
    assert "%" in axes.get_ylabel()


def test_scatter_of_a_collapsed_posterior_says_no_nan():
    axes = drawing.latent_scatter(np.zeros((30, 5)), np.arange(30) % 3).axes[0]
    assert "nan" not in axes.get_xlabel() + axes.get_ylabel()


def test_scatter_puts_every_point_at_its_mean_under_its_label():
    mean = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    (points,) = drawing.latent_scatter(mean, [1, 0, 1]).axes[0].collections
    drawn = {tuple(offset): to_hex(colour) for offset, colour in zip(*parts_of(points)[:2], strict=True)}
    first, second = (colour.lower() for colour in drawing.COLOURS[:2])
    assert drawn == {(0, 1): second, (2, 3): first, (4, 5): second}


def parts_of(points) -> tuple:
    """The places, colours and outlines of the points of a scatter."""
    return points.get_offsets().tolist(), points.get_facecolor(), points.get_paths()


def test_no_class_is_drawn_over_another_because_of_its_number(rng):
    labels = np.repeat([0, 1], 500)
    (points,) = drawing.latent_scatter(np.stack([labels, labels], axis=1) * 1.0, labels).axes[0].collections
    order = np.array(parts_of(points)[0])[:, 0]
    # Of a random order of 500 zeros and ones each, the first half has 250 ones on average, with a deviation of 8.
    assert abs(order[:500].sum() - 250) < 48
    again = drawing.latent_scatter(np.stack([labels, labels], axis=1) * 1.0, labels).axes[0].collections[0]
    assert parts_of(again)[0] == parts_of(points)[0]


def test_every_class_has_its_name_where_it_is_dense(rng):
    """And not at its mean or its median, which would be between the groups of `cat`, among the points of `dog`."""
    groups = [([-3.0, 0.0], 60), ([3.0, 0.0], 40), ([0.0, 0.0], 50)]
    mean = np.concatenate([rng.normal(centre, 0.3, (count, 2)) for centre, count in groups])
    axes = drawing.latent_scatter(mean, [0] * 100 + [1] * 50, ["cat", "dog"]).axes[0]
    places = {text.get_text(): text.get_position() for text in axes.texts}
    # The densest point of a group is within about one of its standard deviations of 0.3.
    np.testing.assert_allclose([places["cat"], places["dog"]], [[-3, 0], [0, 0]], atol=0.4)
    assert [to_hex(text.get_color()) for text in axes.texts] == [colour.lower() for colour in drawing.COLOURS[:2]]
    assert all(isinstance(text.get_path_effects()[0], patheffects.withStroke) for text in axes.texts)


def test_the_name_of_a_class_keeps_away_from_another_class_that_covers_a_part_of_it(rng):
    covered, alone = rng.normal([0, 0], 0.3, (55, 2)), rng.normal([4, 0], 0.3, (50, 2))
    mean = np.concatenate([covered, alone, rng.normal([0, 0], 0.3, (200, 2))])
    axes = drawing.latent_scatter(mean, [0] * 105 + [1] * 200, ["cat", "dog"]).axes[0]
    assert axes.texts[0].get_position()[0] > 3


def test_names_of_classes_with_one_centre_do_not_lie_on_each_other():
    mean = np.array([[0.0, 0.0], [0.0, 0.0], [6.0, 6.0]])
    axes = drawing.latent_scatter(mean, [0, 1, 2], ["Pullover", "Coat", "Bag"]).axes[0]
    first, second, _ = (text.get_position() for text in axes.texts)
    assert abs(first[1] - second[1]) >= 0.16  # inches, of 6 for as many units


def test_data_without_labels_are_drawn_in_one_colour():
    axes = drawing.latent_scatter(np.arange(8.0).reshape(4, 2), None).axes[0]
    (points,) = axes.collections
    assert len(parts_of(points)[0]) == 4
    assert {to_hex(colour) for colour in parts_of(points)[1]} == {drawing.COLOURS[0].lower()}
    assert axes.get_legend() is None
    assert not axes.texts


@pytest.mark.parametrize("name", ["COLOURS", "UNLABELLED", "MISSING", "WARNING"])
def test_every_colour_has_a_contrast_of_three_on_white(name):
    value = getattr(colours, name)
    for colour in [value] if isinstance(value, str) else value:
        assert colours.contrast(colour) >= 3, colour


@pytest.mark.parametrize(
    ("colour", "other", "ratio"),
    [("black", "white", 21), ("white", "white", 1), ("#777777", "white", 4.48), ("red", "white", 4.0)],
)
def test_contrast_is_that_of_wcag(colour, other, ratio):
    assert colours.contrast(colour, other) == pytest.approx(ratio, abs=0.005)  # as published, to two digits


@pytest.mark.parametrize(("dimensions", "labelled"), [(1, True), (2, True), (5, True), (2, False)])
def test_points_are_opaque_so_that_their_colours_keep_their_contrast(scatter, dimensions, labelled):
    axes = scatter(dimensions, **({} if labelled else {"labels": None})).axes[0]
    for colour in axes.collections[0].get_facecolor():
        assert colour[3] == 1
        assert colours.contrast(to_hex(colour)) >= 3


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        ([0, 1, 2], ["cat", "dog", "cow"], ["cat", "dog", "cow"]),
        ([2, 2, 0], ["cat", "dog", "cow"], ["cat", "cow"]),
        ([3, 5, 7], None, ["3", "5", "7"]),
        ([0, 1, 7], ["cat", "dog"], ["cat", "dog", "7"]),
        ([0, 1, -1], ["cat", "dog"], ["unlabelled", "cat", "dog"]),
    ],
    ids=["names", "only those present", "no names", "label beyond the names", "label of the unlabelled"],
)
def test_scatter_legend_names_the_labels(labels, names, expected):
    assert legend(drawing.latent_scatter(np.zeros((3, 2)), labels, names).axes[0]) == expected


def test_ten_labels_have_ten_looks(rng):
    (points,) = drawing.latent_scatter(rng.normal(size=(10, 2)), np.arange(10)).axes[0].collections
    _, looks, outlines = parts_of(points)
    assert len({to_hex(colour) for colour in looks}) == 10
    assert len({outline.vertices.tobytes() for outline in outlines}) == 10


@pytest.mark.parametrize(
    ("labels", "message"),
    [(np.arange(29), "one label per mean"), (np.zeros((30, 1)), "one")],
)
def test_scatter_without_one_label_per_mean_is_refused(scatter, labels, message):
    with pytest.raises(UserError, match=message):
        scatter(2, labels=labels)


# --- learning_curves


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        (LOSSES, ["training"]),
        (LOSSES | VALIDATION_LOSSES, ["training", "test", "best epoch: 3, with the lowest loss of the test images"]),
    ],
    ids=["training", "validation"],
)
def test_learning_curves_show_the_loss_and_its_terms(history, expected):
    figure = drawing.learning_curves(history, held_out="test")
    assert legend(figure) == expected
    for axes, key, word in zip(figure.axes, KEYS, ("loss", "reconstruction error", "KL divergence"), strict=True):
        assert axes.get_title().startswith(word)
        columns = [key, f"val_{key}"][: len(expected)]
        assert [list(line.get_ydata()) for line in axes.lines[:2]] == [history[column] for column in columns]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"val_loss": [9.0, 7.0, 8.0]}, 2),
        ({"val_loss": [9.0, 7.0, 8.0], "val_elbo": [-9.0, -7.0, -6.0]}, 3),
        ({"val_loss": [np.nan, 9.0, np.nan]}, 2),
        ({"val_loss": [np.nan] * 3}, None),
        ({}, None),
    ],
    ids=["loss", "elbo wins", "gaps", "only gaps", "no held-out data"],
)
def test_the_best_epoch_of_the_held_out_data_is_marked(more, expected):
    figure = drawing.learning_curves(LOSSES | more)
    for axes in figure.axes:
        marked = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"]
        assert marked == ([] if expected is None else [expected])
    said = [text for text in legend(figure) if "best epoch" in text]
    measure = "highest ELBO" if "val_elbo" in more else "lowest loss"
    assert [(f"best epoch: {expected}," in text, measure in text) for text in said] == [(True, True)] * len(marked)


def test_learning_curves_say_which_epochs_are_cut():
    loss = [1000.0, 500.0, *np.linspace(110, 100, 58)]
    whole = np.tile([1.0, 2.0], 30)
    history = {"epoch": range(1, 61), "loss": loss, "reconstruction": [500.0, *whole[1:]], "kl": whole}
    titles = [axes.get_title().split("\n")[1] for axes in drawing.learning_curves(history).axes]
    assert titles == ["(epochs 1 to 2 are partly cut off)", "(epoch 1 is cut off)", ""]


def test_the_fall_of_the_first_epochs_does_not_flatten_the_rest():
    loss = [1000.0, *np.linspace(110, 100, 99)]
    axes = drawing.learning_curves({"epoch": range(1, 101), "loss": loss, "reconstruction": loss, "kl": loss}).axes[0]
    assert axes.get_ylim()[1] < 120


@pytest.mark.parametrize("history", [{}, {"epoch": []}])
def test_an_empty_history_is_refused(history):
    with pytest.raises(UserError, match="at least one epoch"):
        drawing.learning_curves(history)


def test_learning_curves_join_what_was_measured_over_the_gaps():
    gaps = {f"val_{name}": [np.nan, value, np.nan] for name, value in (("loss", 9.5), ("reconstruction", 7), ("kl", 2))}
    for axes, key in zip(drawing.learning_curves(LOSSES | gaps).axes, KEYS, strict=True):
        training, held_out, _ = axes.lines
        assert training.get_xdata().tolist() == [1, 2, 3]
        assert held_out.get_xdata().tolist() == [2]
        assert held_out.get_ydata().tolist() == [gaps[f"val_{key}"][1]]
        assert held_out.get_marker() == "o"  # one point makes no line


def test_learning_curves_without_gaps_have_no_markers():
    for axes in drawing.learning_curves(LOSSES | VALIDATION_LOSSES).axes:
        assert [line.get_marker() for line in axes.lines[:2]] == ["None", "None"]


@pytest.mark.parametrize("validation", [{}, VALIDATION_LOSSES])
def test_learning_curves_of_one_epoch_show_its_points(validation):
    history = {name: values[:1] for name, values in (LOSSES | validation).items()}
    for axes in drawing.learning_curves(history).axes:
        curves = [line for line in axes.lines if line.get_linestyle() != ":"]
        assert [line.get_marker() for line in curves] == ["o"] * (2 if validation else 1)
        assert all(tick == round(tick) for tick in axes.get_xticks())  # there is no epoch 0.96


def test_a_validation_set_without_measurements_leaves_the_training_curve(tmp_path):
    gaps = {f"val_{name}": [np.nan] * 3 for name in ("loss", "reconstruction", "kl")}
    figure = drawing.learning_curves(LOSSES | gaps)
    assert np.isfinite([axes.get_ylim() for axes in figure.axes]).all()
    assert_is_saved(figure, tmp_path, "png")


# --- posterior_contours

SEEN = np.full((4, 4, 3), 0.5)


SIDE = np.linspace(-4, 4, 401)
STANDARD_NORMAL = -0.5 * np.add.outer(SIDE**2, SIDE**2)


def panel(title="before", mean=(1.0, -1.0), sigma=(0.5, 0.8), shift=0.0) -> drawing.ContourPanel:
    """A posterior N(0, I), unnormalised by `shift` nats, and a q along the axes."""
    q = drawing.Ellipse(np.array(mean), np.diag(np.square(sigma)))
    return drawing.ContourPanel(title, (SIDE, SIDE, STANDARD_NORMAL + shift), q)


def radii(contours) -> list[float]:
    """The mean distance from 0 of each contour."""
    return [float(np.linalg.norm(path.vertices, axis=1).mean()) for path in contours.get_paths()]


# Contours are interpolated linearly between points h = 0.02 apart: of a Gaussian with sigma 0.5 or more the height errs
# by (h / sigma)^2 / 8 = 2e-4, which is 1.4e-3 sigma at the innermost contour, where the slope is least, 0.14.
CROSSING = 3e-3


@pytest.mark.parametrize("shift", [0.0, -2000.0, 2000.0])
def test_contours_of_the_posterior_lie_at_shares_of_its_maximum(shift):
    _, axes = drawing.posterior_contours(SEEN, [panel(shift=shift)]).axes
    shares = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99]
    assert list(axes.collections[1].levels) == shares
    np.testing.assert_allclose(radii(axes.collections[1]), np.sqrt(-2 * np.log(shares)), atol=CROSSING)


def test_contours_of_q_are_its_ellipses():
    _, axes = drawing.posterior_contours(SEEN, [panel()]).axes
    for share, path in zip(drawing.CONTOURS, axes.collections[2].get_paths(), strict=True):
        distance = np.linalg.norm((path.vertices - [1, -1]) / [0.5, 0.8], axis=1)
        np.testing.assert_allclose(distance, np.sqrt(-2 * np.log(share)), atol=CROSSING)


@pytest.mark.parametrize("degrees", [30, 45, 120, -10])
def test_contours_of_a_tilted_q_are_its_ellipses(degrees):
    turn = np.deg2rad(degrees)
    axes_of_q = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])  # in columns
    q = drawing.Ellipse(np.array([0.5, -1.0]), axes_of_q @ np.diag(np.square([1.1, 0.5])) @ axes_of_q.T)
    _, axes = drawing.posterior_contours(SEEN, [panel()._replace(q=q)]).axes
    for share, path in zip(drawing.CONTOURS, axes.collections[2].get_paths(), strict=True):
        along = (path.vertices - [0.5, -1.0]) @ axes_of_q / [1.1, 0.5]
        np.testing.assert_allclose(np.linalg.norm(along, axis=1), np.sqrt(-2 * np.log(share)), atol=CROSSING)


def test_standard_deviations_of_an_ellipse_are_those_along_the_axes_of_the_plane(rng):
    factor = rng.normal(size=(2, 2))
    draws = rng.normal(size=(100000, 2)) @ factor.T
    # A standard deviation is known from 100,000 draws to 1 / sqrt(200000) of it; four of those.
    np.testing.assert_allclose(drawing.Ellipse(np.zeros(2), factor @ factor.T).sigma, draws.std(axis=0), rtol=0.009)


def test_contours_are_read_as_the_plane_the_first_coordinate_to_the_right():
    first, second = np.linspace(-4, 4, 401), np.linspace(-1, 3, 201)
    window = (first, second, -2.0 * np.add.outer((second - 1) ** 2, (first - 2) ** 2))
    q = drawing.Ellipse(np.zeros(2), np.eye(2))
    _, axes = drawing.posterior_contours(SEEN, [drawing.ContourPanel("", window, q)]).axes
    innermost = axes.collections[1].get_paths()[-1].vertices
    np.testing.assert_allclose(innermost.mean(axis=0), [2, 1], atol=CROSSING)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("z₁", "z₂")
    assert axes.get_aspect() == 1


def test_every_panel_has_its_window_and_title_under_one_legend(tmp_path):
    figure = drawing.posterior_contours(SEEN, [panel("before"), panel("after", mean=(0.0, 0.0))])
    assert [axes.get_title() for axes in figure.axes] == ["observed pixels", "before", "after"]
    (key,) = figure.legends
    assert [text.get_text() for text in key.get_texts()] == ["true posterior p(z | observed)", "its approximation q(z)"]
    lines = [to_rgb(line.get_color()) for line in key.get_lines()]
    drawn = [tuple(contours.get_edgecolor()[0][:3]) for contours in figure.axes[1].collections[1:]]
    assert lines == drawn
    assert_is_saved(figure, tmp_path, "png")


def test_a_q_too_narrow_for_the_grid_is_still_a_picture(tmp_path):
    assert_is_saved(drawing.posterior_contours(SEEN, [panel(mean=(0.01, 0.01), sigma=(1e-5, 1e-5))]), tmp_path, "png")


@pytest.mark.parametrize(("height", "missed"), [(0.5, 1), (0.1, 0)])
def test_a_mode_that_the_contours_show_and_that_q_does_not_reach_is_missed(height, missed):
    first, second = np.meshgrid(SIDE, SIDE)
    near, far = (np.exp(-8 * ((first - x) ** 2 + (second - x) ** 2)) for x in (-1.5, 1.5))  # sigma 0.25 each
    q = drawing.Ellipse(np.array([-1.5, -1.5]), 0.0625 * np.eye(2))
    modes, share = drawing.missed_modes((SIDE, SIDE, np.log(near + height * far)), q)
    assert np.round(modes, 9).tolist() == [[1.5, 1.5]] * missed
    # Beyond 3 deviations of q lie the other mode, and exp(-4.5) of the one that q has.
    assert share == pytest.approx((height + np.exp(-4.5)) / (1 + height), abs=1e-3)


def test_a_caption_stands_above_the_panels(tmp_path):
    figure = drawing.posterior_contours(SEEN, [panel()], "q misses a mode")
    assert figure.get_suptitle() == "q misses a mode"
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    axes = figure.axes[1]
    caption, title = (text.get_window_extent(renderer) for text in (figure._suptitle, axes.title))
    label, key = axes.xaxis.label.get_window_extent(renderer), figure.legends[0].get_window_extent(renderer)
    assert caption.y0 > title.y1
    assert label.y0 > key.y1
    assert_is_saved(figure, tmp_path, "png")
