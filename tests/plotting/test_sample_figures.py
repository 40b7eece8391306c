"""The figures of samples and of reconstructions."""

import re

import numpy as np
import pytest
from figure_cases import PIXEL_ROUNDING, first_places
from figure_parts import cells, shown, stacked, texts

import kvae
from kvae.internal.errors import UserError
from kvae.plotting import figures

# --- samples


@pytest.mark.parametrize("seed", [0, 3])
def test_samples_sheet_has_the_means_and_draws_of_the_seed(digits_2d, seed):
    figure, vae = figures.samples(digits_2d, n=20, seed=seed)["samples"], digits_2d.vae
    sheets = [cells(sheet, (28, 28)).reshape(20, 28, 28, 1) for sheet in stacked(figure, 2, 2 * 28 + 2)]
    np.testing.assert_array_equal(sheets[0], vae.generate_means(20, seed))
    np.testing.assert_array_equal(sheets[1], vae.generate(20, seed))


@pytest.mark.parametrize("seed", [0, 3])
def test_samples_grid_begins_each_row_with_the_mean_of_that_seed(digits_2d, seed):
    means = cells(shown(figures.samples(digits_2d, seed=seed)["samples_grid"]), (28, 28))[:, 0]
    np.testing.assert_allclose(means, digits_2d.vae.generate_means(10, seed), **PIXEL_ROUNDING)


def test_samples_grid_goes_on_with_three_binary_draws(digits_2d):
    drawn = cells(shown(figures.samples(digits_2d)["samples_grid"]), (28, 28))[:, 1:]
    assert drawn.shape == (10, 3, 28, 28, 1)
    assert set(np.unique(drawn)) == {0, 1}
    assert not any(np.array_equal(drawn[:, a], drawn[:, b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_samples_grid_draws_are_of_the_z_of_their_row(sources):
    data = kvae.data.load(sources["odd"], batch_size=10)
    vae = kvae.VAE(2, hidden_units=(8,), seed=1)
    vae.build((None, 9, 13, 1))
    vae.decoder.set_weights([100 * weight for weight in vae.decoder.get_weights()])
    rows = cells(shown(figures.samples(figures.Subject(vae, data))["samples_grid"]), (9, 13))
    mean = rows[:, :1]
    # Where a mean is this near to 0 or 1, one draw in 30,000 differs from it: about one seed in ten has such a pixel.
    decided = (np.abs(mean - 0.5) > 0.5 - 3e-5) & np.ones((1, 3, 1, 1, 1), bool)
    assert decided.mean() > 0.5
    np.testing.assert_array_equal(rows[:, 1:][decided], np.broadcast_to(mean.round(), decided.shape)[decided])
    assert len(np.unique(mean.round(), axis=0)) > 1


def test_samples_strip_is_ten_means_above_their_draws(digits_2d):
    means, draws = stacked(figures.samples(digits_2d, seed=3)["samples_strip"], 2, 28)
    np.testing.assert_array_equal(cells(means, (28, 28))[0], digits_2d.vae.generate_means(10, 3))
    np.testing.assert_array_equal(cells(draws, (28, 28))[0], digits_2d.vae.generate(10, 3))


def test_the_images_of_all_three_pictures_of_samples_have_one_size(subject_of):
    drawn = figures.samples(subject_of("odd"))
    scales = {name: figure.get_figwidth() / shown(figure).shape[1] for name, figure in drawn.items()}
    assert len(set(np.round(list(scales.values()), 9))) == 1, scales


@pytest.mark.parametrize("kind", ["samples", "completion"])
def test_means_stand_before_draws(subject_of, kind):
    for figure in figures.KINDS[kind](subject_of("odd")).values():
        titles = [text.get_text() for text in figure.axes[0].texts]
        mean = min(place for place, title in enumerate(titles) if "mean" in title)
        assert mean < min(place for place, title in enumerate(titles) if "draw" in title and "mean" not in title)


@pytest.mark.parametrize(("classes", "rows", "said"), [(21, 20, ["the first 20 of 21 classes"]), (20, 20, [])])
def test_samples_of_many_classes_say_that_only_the_first_are_shown(classes, rows, said):
    vae = kvae.VAE(2, hidden_units=(8,), condition=classes, seed=1)
    vae.build((None, 3, 4, 1))
    figure = figures.samples(figures.Subject(vae), n=3)["samples"]
    assert cells(shown(figure), (3, 4)).shape[:2] == (rows, 3)
    note = " ".join(texts(figure)[-1].split())
    assert re.findall(r"the first \d+ of \d+ classes", note) == said


def test_samples_of_none_are_refused(tiny):
    with pytest.raises(UserError, match="n to be a whole number of at least 1"):
        figures.samples(tiny, n=0)


# --- reconstructions


def test_reconstructions_show_the_first_test_images_above_means_at_draws(digits_2d):
    figure, x = figures.reconstructions(digits_2d, seed=2)["reconstructions"], digits_2d.data.examples("test", 40)[0]
    sheets = [cells(sheet, (28, 28)).reshape(40, 28, 28, 1) for sheet in stacked(figure, 3, 4 * 28 + 3 * 2)]
    with np.load(kvae.data.sources.MNIST5K) as archive:
        grey = archive["x_test"][:40, ..., None] / 255
    np.testing.assert_allclose(sheets[0], grey, **PIXEL_ROUNDING)
    np.testing.assert_array_equal(sheets[1], x)
    np.testing.assert_array_equal(sheets[2], digits_2d.vae.reconstruct(x, seed=2))
    assert texts(figure)[0] == "test images"
    assert "binarized" in texts(figure)[1]


def test_images_that_are_not_binarized_are_shown_once(sources):
    data = kvae.data.load(sources["odd"], batch_size=10, binarize="none")
    vae = kvae.VAE(2, hidden_units=(8,), likelihood="continuous_bernoulli", seed=1)
    vae.build((None, 9, 13, 1))
    drawn = figures.reconstructions(figures.Subject(vae, data))
    assert texts(drawn["reconstructions"])[0] == "test images: the model's input x"
    assert len(texts(drawn["reconstructions"])) == 2
    assert texts(drawn["reconstructions_draws"])[:3] == ["image", "mean of x", "draw of x"]


def test_reconstruction_draws_are_of_four_classes_twice(digits_2d):
    picture = cells(shown(figures.reconstructions(digits_2d)["reconstructions_draws"]), (28, 28))
    with np.load(kvae.data.sources.MNIST5K) as archive:
        x, labels = (archive["x_test"][:100, ..., None] > 127.5).astype(np.float32), archive["y_test"][:100]
    places = sorted(first_places(labels).values())[:4]
    assert picture.shape[:2] == (8, 4)
    np.testing.assert_array_equal(picture[:, 1], x[np.repeat(places, 2)])


def test_reconstruction_draws_of_one_image_have_means_of_their_own(digits_2d):
    means = cells(shown(figures.reconstructions(digits_2d)["reconstructions_draws"]), (28, 28))[:, 2]
    assert not any(np.array_equal(means[row], means[row + 1]) for row in range(0, 8, 2))


def test_reconstruction_draws_without_labels_are_of_the_first_images(subject_of):
    subject = subject_of("unlabelled")
    picture = cells(shown(figures.reconstructions(subject)["reconstructions_draws"]), (3, 4))
    np.testing.assert_array_equal(picture[::2, 1], subject.data.examples("test", 4)[0])
