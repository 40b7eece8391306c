"""The picture of the least likely test images."""

import numpy as np
import pytest
from figure_cases import PIXEL_ROUNDING
from figure_parts import cells, texts
from figure_parts import shown as picture_of

from kvae import evaluation
from kvae.internal.errors import UserError
from kvae.plotting import figures


@pytest.mark.slow
def test_the_least_likely_images_come_first(digits_2d):
    (figure,) = figures.outliers(digits_2d, n=4, samples=20, seed=3).values()
    x = digits_2d.data.examples("test", 100)[0]
    bound = evaluation.log_likelihood(digits_2d.vae, x, samples=20, seed=3).per_example
    lowest = np.argsort(bound)[:4]
    labels = digits_2d.data.labels_at("test", lowest)
    for place, label in zip(lowest, labels, strict=True):
        assert f"no. {place} ({label})\n{bound[place]:.1f} nats" in texts(figure)
    shown = cells(picture_of(figure), (28, 28)).reshape(4, 3, 28, 28, 1)
    np.testing.assert_array_equal(shown[:, 1], x[lowest])
    np.testing.assert_allclose(shown[:, 2], digits_2d.vae.reconstruct(x[lowest], seed=3), **PIXEL_ROUNDING)


def test_images_without_labels_have_their_number_alone(subject_of):
    (figure,) = figures.outliers(subject_of("unlabelled"), n=3).values()
    names = [text for text in texts(figure) if text.startswith("no. ")]
    assert len(names) == 3
    assert not any("(" in name for name in names)


def test_fewer_images_than_asked_for_are_all_shown(tiny):
    (figure,) = figures.outliers(tiny, n=50).values()
    assert len([text for text in texts(figure) if text.startswith("no. ")]) == 8


@pytest.mark.parametrize("options", [{"n": 0}, {"samples": 0}], ids=str)
def test_none_is_refused(tiny, options):
    with pytest.raises(UserError, match="to be a whole number of at least 1"):
        figures.outliers(tiny, **options)
