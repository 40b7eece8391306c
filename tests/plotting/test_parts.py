"""The kinds of figures with the priors and posteriors of kvae that are not the standard ones."""

import pytest
from figure_cases import FILES, HISTORY
from PIL import Image

import kvae
from kvae.model import posteriors, priors
from kvae.plotting import figures

PARTS = {
    "mixture": lambda: {"prior": priors.Mixture(3), "posterior": "full_covariance"},
    "vamp": lambda: {"prior": priors.VampPrior(3), "posterior": posteriors.IAF(1, 8, 4)},
    "flow": lambda: {"prior": priors.Flow(2, 8), "likelihood": "discretized_logistic"},
    "hierarchical": lambda: {"prior": priors.Hierarchical(1, 8), "posterior": posteriors.BottomUp(1, 8)},
}
SAME = {"learning_curves", "interpolation", "outliers"}  # which do what others do with a prior and a posterior


@pytest.mark.every_case
@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
@pytest.mark.usefixtures("few_contour_points")
def test_figures_are_drawn_of_every_prior(sources, name, tmp_path):
    parts = PARTS[name]()
    grey = {"binarize": "none"} if "likelihood" in parts else {}
    data = kvae.data.load(sources["odd"], batch_size=10, **grey)
    vae = kvae.VAE(2, hidden_units=(8,), seed=1, **parts)
    vae.build((None, *data.info.image_shape))
    subject = figures.Subject(vae, data, HISTORY)
    for kind in sorted(figures.KINDS.keys() - SAME):
        paths = figures.draw(kind, subject, tmp_path)
        assert [path.name for path in paths] == [f"{file}.png" for file in FILES[kind]]
        for path in paths:
            with Image.open(path) as image:
                low, high = image.convert("L").getextrema()
                assert low < high, path.name


def test_they_are_all_priors_and_posteriors():
    made = [{"prior": "standard_normal", "posterior": "diagonal_gaussian"}, *(make() for make in PARTS.values())]
    vaes = [kvae.VAE(2, hidden_units=(8,), **parts) for parts in made]
    assert {type(vae.prior) for vae in vaes} == set(priors.PRIORS.values())
    assert {type(vae.posterior) for vae in vaes} == set(posteriors.POSTERIORS.values())
