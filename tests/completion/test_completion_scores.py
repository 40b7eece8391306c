"""`completion.evaluate`: the table of scores, with their standard errors, as JSON."""

import json

import numpy as np
import pytest
from completion_cases import SHORT, TOP, two_numbers
from scipy import stats

from kvae import completion
from kvae.completion import completions
from kvae.evaluation import evidence
from kvae.internal.errors import UserError


@pytest.mark.slow
def test_evaluate_leaves_out_the_pixel_means_where_they_determine_no_density(x):
    vae = two_numbers()
    found = completion.complete(vae, x[:1], TOP, samples=20, draws=1, **SHORT)
    assert set(evaluate(vae, x, found, 1)) == {"kvae", "zero_filled", "converged"}


SCORES = ("kvae", "pixel_means", "zero_filled", "quadrature")


PIXEL_MEAN = np.full((4, 4, 1), 0.3)


def evaluate(vae, x, found, count, **options):
    """The first `count` images evaluated."""
    first = found.head(count)
    return completion.evaluate(vae, x[:count], first, pixel_mean=PIXEL_MEAN, training_images=50, samples=40, **options)


@pytest.fixture(scope="module")
def evaluated(vae, x, short):
    return evaluate(vae, x, short, 3, exact=True)


@pytest.mark.slow
def test_evaluate_returns_every_score(evaluated):
    assert set(evaluated) == {*SCORES, "converged"}


def test_quadrature_is_left_out_unless_asked_for(vae, x, short):
    assert set(evaluate(vae, x, short, 1)) == {*SCORES, "converged"} - {"quadrature"}


@pytest.mark.parametrize("name", SCORES)
def test_every_score_has_its_mean_standard_error_and_images(evaluated, name):
    row = evaluated[name]
    assert row["mean"] == pytest.approx(np.mean(row["per_image"]), rel=1e-12)  # float64
    assert row["standard_error"] == pytest.approx(stats.sem(row["per_image"]), rel=1e-12)
    assert len(row["per_image"]) == 3


def test_only_the_score_of_kvae_states_its_monte_carlo(evaluated):
    common = {"mean", "standard_error", "per_image"}
    expected = dict.fromkeys(SCORES, common)
    expected["kvae"] = common | {"monte_carlo_standard_error", "effective_samples", "unreliable"}
    expected["quadrature"] = common | {"error"}
    assert {name: set(evaluated[name]) for name in SCORES} == expected


def test_monte_carlo_is_the_mean_error_and_the_median_of_the_effective_samples(evaluated, short):
    row = evaluated["kvae"]
    assert row["unreliable"] == (short.score.effective_samples[:3] < completion.LEAST_EFFECTIVE).sum()
    assert row["monte_carlo_standard_error"] == pytest.approx(short.score.standard_error[:3].mean())
    assert row["effective_samples"] == pytest.approx(np.median(short.score.effective_samples[:3]))


def test_evaluate_states_what_the_scores_are(vae, x, short, evaluated):
    expected = {
        "kvae": short.score.log_density[:3],
        "pixel_means": completion.pixel_mean_baseline(vae, x[:3], TOP, PIXEL_MEAN, 50),
        "zero_filled": completion.zero_filled_baseline(vae, x[:3], TOP, whole=short.head(3).whole, samples=40),
        "quadrature": completion.quadrature_score(vae, x[:3], TOP).log_value,
    }
    for name, values in expected.items():
        assert evaluated[name]["per_image"] == values.tolist()


def test_evaluate_counts_what_converged(vae, x, short):
    some = short.inferred._replace(predicted_decrease=np.array([0.05, 0.2, 0.01, np.nan, np.inf, 3]))
    assert evaluate(vae, x, short._replace(inferred=some), 6)["converged"] == 2


@pytest.mark.parametrize("count", [1, 6])
def test_evaluate_is_ready_for_json(vae, x, short, count):
    result = evaluate(vae, x, short, count)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@pytest.mark.parametrize(("errors", "expected"), [([1e-5, 2e-5], 2e-5), ([1e-5, np.inf], None)])
def test_an_infinite_error_of_the_quadrature_is_none(vae, x, short, monkeypatch, errors, expected):
    score = evidence.Integral(np.array([-3.0, -4.0]), np.array(errors))
    monkeypatch.setattr(completions, "quadrature_score", lambda *_: score)
    result = evaluate(vae, x, short, 2, exact=True)
    assert result["quadrature"]["error"] == expected
    json.dumps(result, allow_nan=False)


def test_evaluate_needs_a_score(vae, x, unknown):
    with pytest.raises(UserError, match=r"true values of all missing pixels.*NaN"):
        evaluate(vae, x, unknown, 1)
