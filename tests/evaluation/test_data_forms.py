"""What evaluations take as data: every form that `fit` takes, but no weights."""

import numpy as np
import pytest
from small_models import SHAPE, tiny_built

import kvae
from kvae import completion, evaluation
from kvae.evaluation import EVALUATIONS, evidence
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import tf

pytestmark = pytest.mark.usefixtures("without_xla")

X = (np.random.default_rng(0).random((7, *SHAPE)) < 0.4).astype(np.float32)
LABELS = np.arange(7) % 2


class Loader:
    """Batches that can be read again and again, such as those of a PyTorch DataLoader."""

    def __iter__(self):
        return iter((X[:4], X[4:]))


class SizedLoader(Loader):
    def __len__(self):
        return 2


FORMS = {
    "(x,)": lambda: (X,),
    "(x, None)": lambda: (X, None),
    "(x, y)": lambda: (X, LABELS),
    "(x, y, None)": lambda: (X, LABELS, None),
    "list of images": lambda: list(X),
    "generator": lambda: (part for part in (X[:4], X[4:])),
    "generator of pairs": lambda: ((X[part], LABELS[part]) for part in (slice(4), slice(4, 7))),
    "loader": Loader,
    "loader of a known length": SizedLoader,
    "dataset": lambda: tf.data.Dataset.from_tensor_slices(X).batch(4),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_the_same_result(form):
    vae = tiny_built()
    expected, found = (evaluation.elbo(vae, data).elbo.per_example for data in (X, FORMS[form]()))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    expected, found = (
        evaluation.log_likelihood(vae, data, samples=3, verbose=2).per_example for data in (X, FORMS[form]())
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


WEIGHTED = {
    "arrays": lambda: (X, LABELS, np.ones(7)),
    "dataset": lambda: tf.data.Dataset.from_tensor_slices((X, LABELS, np.ones(7))).batch(4),
}


@pytest.mark.parametrize("form", WEIGHTED)
def test_weights_are_refused(form):
    with pytest.raises(UserError, match="no sample_weight"):
        evaluation.elbo(tiny_built(), WEIGHTED[form]())


@pytest.mark.parametrize("name", EVALUATIONS)
def test_every_evaluation_refuses_a_model_that_is_not_built(name):
    with pytest.raises(UserError, match="build"):
        evaluation.results_of(name, kvae.VAE(2, condition=2 if name == "classification" else None), (X, LABELS))


def test_so_do_integrals():
    for integral in (evidence.log_evidence, lambda vae, x: completion.quadrature_score(vae, x, "top")):
        with pytest.raises(UserError, match="build"):
            integral(kvae.VAE(2), X)


def test_a_generator_serves_one_evaluation():
    with pytest.raises(UserError, match=r"read once for each of 2 evaluations\. Received a generator"):
        evaluation.evaluate(tiny_built(), iter([X]), samples=3)
    assert np.isfinite(evaluation.evaluate(tiny_built(), iter([X]))["elbo"])
