"""Classification by log p(x|y), against the same by quadrature."""

import numpy as np
import pytest

import kvae
from kvae import evaluation
from kvae.evaluation import evidence
from kvae.internal.errors import UserError

CLASSES = 3
pytestmark = pytest.mark.usefixtures("without_xla")


@pytest.fixture(scope="module")
def vae():
    """An untrained model whose images depend strongly on z and on the class."""
    vae = kvae.VAE(2, hidden_units=(6,), condition=CLASSES, seed=3)
    vae.build((None, 4, 3, 1))
    vae.decoder.set_weights([2 * weight for weight in vae.decoder.get_weights()])
    return vae


@pytest.mark.slow
def test_it_finds_the_class_with_the_largest_evidence(vae):
    x = vae.generate(24, 0, np.arange(24) % CLASSES).numpy()
    log_evidence = np.stack(
        [evidence.log_evidence(vae, x, condition=np.full(len(x), label)).log_value for label in range(CLASSES)]
    )
    ordered = np.sort(log_evidence, axis=0)
    # With 500 draws the bound is closer than 0.1 nats to the evidence of this model, so a class that is ahead by more
    # than twice this is found.
    clear = ordered[-1] - ordered[-2] > 0.2
    assert clear.sum() > 12
    best = log_evidence.argmax(axis=0)[clear]
    assert len(set(best)) == CLASSES
    assert evaluation.classification(vae, (x[clear], best), samples=500).accuracy.mean == 1
    wrong = (best + 1) % CLASSES
    assert evaluation.classification(vae, (x[clear], wrong), samples=500).accuracy.mean == 0


def test_it_is_stated_with_its_error_and_its_number_of_draws(vae):
    x, y = vae.generate(30, 0, np.arange(30) % CLASSES).numpy(), np.arange(30) % CLASSES
    stated = evaluation.evaluate(vae, (x, y), only=["classification"], samples=7)
    share = stated["accuracy"]
    assert 0 < share < 1
    assert stated["accuracy_standard_error"] == pytest.approx(np.sqrt(share * (1 - share) / 29))
    assert stated["protocol"]["classification_samples"] == 7
    assert stated["protocol"]["examples"] == 30


@pytest.mark.parametrize("options", [{}, {"condition": (2, 2)}], ids=["none", "a matrix"])
def test_a_model_without_classes_cannot_classify(options):
    vae = kvae.VAE(2, hidden_units=(4,), seed=0, **options)
    vae.build((None, 4, 3, 1))
    with pytest.raises(UserError, match="Expected a conditional model of classes"):
        evaluation.classification(vae, (np.zeros((2, 4, 3, 1)), np.zeros(2, int)))
