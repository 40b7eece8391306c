"""`export.verify` computes the evaluations of a run again, also those that are named."""

import pytest
from tiny_runs import tiny_run

from kvae import export
from kvae.internal import files, sealed
from kvae.training import results

pytestmark = [pytest.mark.usefixtures("without_xla"), pytest.mark.slow]


def test_bounds_quadrature_and_samples_are_computed_again(tmp_path):
    run = tiny_run(tmp_path)
    names = ["elbo", "bounds", "quadrature", "sample_quality"]
    results.evaluate(run, only=names)
    checks = {check.name: check for check in export.verify(run.folder, only=names)}
    assert not [check for check in checks.values() if check.passed is False]
    assert checks["evaluation.json: quadrature"].passed
    stated = files.read_json(run.folder / "evaluation.json")
    stated["bounds"][3] += 0.1
    stated["sample_precision"] += 0.02
    stated["protocol"]["sample_images"] = "means"
    sealed.write(run.folder / "evaluation.json", stated)
    failed = {check.name: check.detail for check in export.verify(run.folder, only=names) if check.passed is False}
    for name in ("bounds", "sample_precision", "sample_images"):
        assert name in failed["evaluation.json: further numbers"]


@pytest.mark.exhaustive
def test_evaluations_of_some_images_are_computed_again_alone_and_together(tmp_path):
    run = tiny_run(tmp_path)
    results.evaluate(run, only=["elbo", "bounds(images=7, sample_sizes=[1, 3])", "bdmc(images=2, temperatures=3)"])
    stated = run.evaluation()["protocol"]
    assert (stated["examples"], stated["bound_images"], stated["bdmc_images"]) == (20, 7, 2)
    for only, claim in (
        (None, "elbo"),
        (["bounds"], "effective_samples"),
        (["bdmc"], "bdmc_gap"),
        (["elbo", "bounds", "bdmc"], "elbo"),
    ):
        checks = list(export.verify(run.folder, only=only))
        assert [check for check in checks if check.passed is False] == []
        assert any(check.passed for check in checks if check.name == f"evaluation.json: {claim}")
