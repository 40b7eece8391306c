"""The figures of completions and of contours of the posterior."""

import numpy as np
import pytest
from figure_cases import first_places
from figure_parts import cells, shown, texts
from own_parts import Gumbel

import kvae
from kvae import completion
from kvae.internal.errors import UserError
from kvae.model.posteriors import Distribution, Gaussian
from kvae.plotting import completion_figures, drawing, figures

# --- completion


def test_completion_is_by_default_of_the_first_image_of_each_of_six_classes(digits_2d):
    figure = figures.completion(digits_2d)["completion"]
    with np.load(kvae.data.sources.MNIST5K) as archive:
        places = [first_places(archive["y_test"])[digit] for digit in range(6)]
        x = (archive["x_test"][places, ..., None] > 127.5).astype(np.float32)
    np.testing.assert_array_equal(cells(shown(figure), (28, 28))[:, 1], x.repeat(3, axis=-1))


@pytest.mark.slow
def test_completion_without_labels_is_of_the_first_six_images(subject_of):
    subject = subject_of("unlabelled")
    picture = cells(shown(figures.completion(subject)["completion"]), (3, 4))
    np.testing.assert_array_equal(picture[:, 1, ..., :1], subject.data.examples("test", 6)[0])


@pytest.mark.slow
def test_completion_has_one_column_per_draw_and_keeps_the_observed_pixels_in_each(tiny):
    mask = np.array([[1, 0, 1, 0]] * 3, bool)
    picture = cells(shown(figures.completion(tiny, observed=mask, draws=4, places=[7, 2])["completion"]), (3, 4))
    assert picture.shape[:2] == (2, 4 + 2 * 4)
    x = tiny.data.examples("test")[0][[7, 2]]
    for column in range(1, 12):
        np.testing.assert_array_equal(picture[:, column, :, ::2, :1], x[:, :, ::2])


def test_completion_says_the_score_of_every_row(tiny):
    figure = figures.completion(tiny, places=[7, 2], seed=3)["completion"]
    found = completion.complete(tiny.vae, tiny.data.images_at("test", [7, 2]), "top", seed=3)
    assert texts(figure)[-2:] == [f"{value:.1f}" for value in found.score.log_density]


@pytest.mark.parametrize(("effective", "title"), [(4.4, "unreliable"), (5.0, "-3.0")])
def test_a_score_for_which_few_draws_count_is_a_warning_that_a_note_explains(tiny, effective, title):
    x = tiny.data.images_at("test", [7])
    found = completion.complete(tiny.vae, x, "top")
    score = completion.Score(np.array([-3.0]), np.array([0.1]), np.array([effective]))
    shown_texts = texts(figures.completion_rows(x, found._replace(score=score)))
    assert title in shown_texts
    assert ("--samples" in shown_texts[-1]) == (title == "unreliable")


def test_completion_says_the_unit_of_its_scores(tiny):
    assert any("nats per image" in text for text in texts(figures.completion(tiny, places=[7])["completion"]))


def test_completion_rows_of_unknown_pixels_have_no_score(tiny):
    x = tiny.data.images_at("test", [0])
    x[:, 2] = np.nan
    figure = figures.completion_rows(x, completion.complete(tiny.vae, x, "top"))
    assert not [text for text in texts(figure) if "log p" in text]
    assert texts(figure)[-1] == ""


@pytest.mark.parametrize("kind", ["completion", "posterior_contours"])
def test_inference_with_the_options_of_the_article_needs_two_latent_dimensions(subject_of, kind):
    with pytest.raises(figures.Unsuitable, match="2 latent dimensions"):
        figures.KINDS[kind](subject_of("tiny", 3), plain=True)


def test_completion_with_the_options_of_the_article_differs(tiny):
    default, plain = (shown(figures.completion(tiny, places=[0], plain=plain)["completion"]) for plain in (False, True))
    assert not np.array_equal(default, plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"observed": "topp"}, "Unknown mask 'topp'. Did you mean 'top'"),
        ({"observed": np.ones((4, 4), bool)}, "Expected a mask of shape"),
        ({"places": [8]}, "Expected indices of test images from 0 to 7. Received 8"),
        ({"draws": 0}, "draws to be a whole number of at least 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_an_invalid_completion_is_refused(tiny, options, message):
    with pytest.raises(UserError, match=message):
        figures.completion(tiny, **options)


# --- posterior_contours


def centre_of_q(axes) -> np.ndarray:
    """The middle of the innermost contour of q, the last of the contours on the axes."""
    innermost = axes.collections[-1].get_paths()[-1].vertices
    return (innermost.min(axis=0) + innermost.max(axis=0)) / 2


def test_posterior_contours_with_the_options_of_the_article_begin_at_its_start(tiny):
    figure = figures.posterior_contours(tiny, plain=True)["posterior_contours"]
    titles = ["observed pixels", "q before the first step", "q after 200 steps"]
    assert [axes.get_title() for axes in figure.axes] == titles
    # The contour is at 0.14 standard deviations of 1.6 and 1, the grid at 0.04: half of a step.
    np.testing.assert_allclose(centre_of_q(figure.axes[1]), [2.0, -2.0], atol=0.02)
    assert np.linalg.norm(centre_of_q(figure.axes[2]) - [2.0, -2.0]) > 0.1
    explained = figure.legends[0].get_title().get_text()
    assert "stochastic variational inference" in explained
    widths = [np.ptp(axes.get_xlim()) for axes in figure.axes[1:]]
    assert ("differ in scale" in explained) == (max(widths) > 1.05 * min(widths))


def test_contour_panels_show_the_q_of_the_image_asked_for(tiny, monkeypatch):
    monkeypatch.setattr(completion_figures, "CONTOUR_POINTS", 101)
    start, end = np.array([[3.0, 3.0], [-1.0, 2.0]]), np.array([[3.0, 3.0], [1.5, -0.5]])
    log_var = np.full((2, 2), np.log(0.25))
    found = completion.Inferred(Gaussian(end, log_var), Gaussian(start, log_var), np.zeros((2, 1)), np.zeros(2))
    x = tiny.data.images_at("test", [1])[0]
    figure = figures.contour_panels(tiny.vae, x, np.arange(12).reshape(3, 4, 1) < 6, found, index=1)
    # Half a step of the grid of 0.08.
    np.testing.assert_allclose(centre_of_q(figure.axes[1]), [-1.0, 2.0], atol=0.04)
    np.testing.assert_allclose(centre_of_q(figure.axes[2]), [1.5, -0.5], atol=0.04)


@pytest.mark.usefixtures("few_contour_points")
def test_every_panel_is_a_square_around_q_and_the_posterior_that_is_hardly_larger(tiny):
    figure = figures.posterior_contours(tiny)["posterior_contours"]
    x = tiny.data.images_at("test", [0])
    found = completion.infer(tiny.vae, x, "top")
    for axes, q in zip(figure.axes[1:], (found.start, found.q), strict=True):
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        assert right - left == pytest.approx(high - low, rel=1e-5)  # float32 grids
        reach = 2 * np.sqrt(np.diag(np.asarray(q.covariance)[0]))
        assert (np.asarray(q.mean)[0] - reach > [left, low]).all()
        assert (np.asarray(q.mean)[0] + reach < [right, high]).all()
        drawn = np.concatenate([path.vertices for part in axes.collections[1:] for path in part.get_paths()])
        assert np.ptp(drawn, axis=0).max() > 0.75 * (right - left)  # a near-empty panel has little in its middle


class Tilted(Distribution):
    """A q of which only mean and covariance are known."""

    def __init__(self, mean, covariance):
        self._moments = np.asarray(mean), np.asarray(covariance)

    @property
    def mean(self):
        return self._moments[0]

    @property
    def covariance(self):
        return self._moments[1]


def inferred_as(q) -> completion.Inferred:
    """Inferences of three images that began at the standard normal and ended at q."""
    return completion.Inferred(q, Gaussian(*np.zeros((2, 3, 2), np.float32)), np.zeros((3, 1)), np.zeros(3))


def test_contour_panels_show_a_tilted_q_as_it_is(tiny, monkeypatch):
    monkeypatch.setattr(completion_figures, "CONTOUR_POINTS", 101)
    covariances = [np.eye(2), [[1.0, -0.6], [-0.6, 0.8]], np.eye(2)]
    found = inferred_as(Tilted([[0.0, 0.0], [0.5, -1.0], [0.0, 0.0]], covariances))
    x = tiny.data.images_at("test", [1])[0]
    figure = figures.contour_panels(tiny.vae, x, np.arange(12).reshape(3, 4, 1) < 6, found, index=1)
    for axes in figure.axes[2:]:
        for share, path in zip(drawing.CONTOURS, axes.collections[-1].get_paths(), strict=True):
            away = path.vertices - [0.5, -1.0]
            distance = np.sqrt(np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariances[1]), away))
            # The grid is at 0.08, a seventh of the least deviation of 0.54: between its points the height errs by
            # (1/7)^2 / 8 = 3e-3, which is 0.02 deviations at the innermost contour, where the slope is 0.14.
            np.testing.assert_allclose(distance, np.sqrt(-2 * np.log(share)), atol=0.02)


@pytest.mark.usefixtures("few_contour_points")
def test_a_panel_holds_two_deviations_of_a_tilted_q(tiny):
    covariance = np.array([[4.0, 1.9], [1.9, 1.0]])
    found = inferred_as(Tilted(np.zeros((3, 2)), [covariance] * 3))
    x = tiny.data.images_at("test", [0])[0]
    after = figures.contour_panels(tiny.vae, x, np.arange(12).reshape(3, 4, 1) < 6, found).axes[2]
    assert (np.array(after.get_xlim()) * [-1, 1] >= 4).all()
    assert (np.array(after.get_ylim()) * [-1, 1] >= 2).all()


@pytest.mark.parametrize(("far", "caption"), [(False, ""), (True, "q misses a mode of the true posterior: 100% of")])
@pytest.mark.usefixtures("few_contour_points")
def test_a_caption_says_that_q_misses_a_mode(tiny, far, caption):
    x, mask = tiny.data.images_at("test", [0])[0], np.arange(12).reshape(3, 4, 1) < 6
    q = completion.infer(tiny.vae, x[None], mask).q
    mean = np.repeat(np.asarray(q.mean) + 3 * far, 3, axis=0)
    found = inferred_as(Gaussian(mean, np.full((3, 2), np.log(0.25 if far else 1.0), np.float32)))
    text = figures.contour_panels(tiny.vae, x, mask, found).get_suptitle()
    assert text.startswith(caption)
    assert bool(text) == far


def test_contours_are_unsuitable_for_a_q_whose_covariance_is_not_known(tiny):
    found = inferred_as(Gumbel(np.zeros((3, 2), np.float32), np.zeros((3, 2), np.float32)))
    x = tiny.data.images_at("test", [0])[0]
    with pytest.raises(figures.Unsuitable, match=r"q with a known covariance.*This q has none"):
        figures.contour_panels(tiny.vae, x, np.arange(12).reshape(3, 4, 1) < 6, found)


def test_posterior_contours_of_a_place_out_of_range_are_refused(tiny):
    with pytest.raises(UserError, match="test images from 0 to 7"):
        figures.posterior_contours(tiny, places=(8,))


def test_posterior_contours_of_several_images_are_unsuitable(tiny):
    with pytest.raises(figures.Unsuitable, match=r"Expected one test image .* Received 2"):
        figures.posterior_contours(tiny, places=(1, 2))


# --- images without channels


@pytest.fixture(scope="module")
def without_channels():
    """A model of images (3, 4), one image of it and its completion."""
    vae = kvae.VAE(2, hidden_units=(8,), seed=1)
    vae.build((None, 3, 4))
    x = vae.generate(1, seed=3).numpy()
    return vae, x, completion.complete(vae, x, "top", draws=2)


def test_completion_rows_show_images_without_channels(without_channels):
    _, x, found = without_channels
    picture = cells(shown(figures.completion_rows(x, found, x)), (3, 4))
    np.testing.assert_array_equal(picture[0, :2], np.repeat(x, 2, axis=0)[..., None].repeat(3, axis=-1))
    assert picture.shape[1] == 2 + 2 + 2 * 2


@pytest.mark.usefixtures("few_contour_points")
def test_contour_panels_show_an_image_without_channels(without_channels):
    vae, x, found = without_channels
    picture = shown(figures.contour_panels(vae, x[0], found.observed[0], found.inferred))
    seen = found.observed[0]
    np.testing.assert_array_equal(picture[seen], x[0][seen][:, None].repeat(3, axis=-1))
