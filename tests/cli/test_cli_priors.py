"""The commands with each prior and posterior, on a tiny run."""

import json

import pytest
from exports import quick_parity
from tiny_runs import tiny_run

from kvae.training.runs import Run

pytestmark = pytest.mark.slow

MODELS = {
    "mixture": {"prior": {"kind": "mixture", "components": 3}},
    "vamp": {"prior": {"kind": "vamp", "components": 3}, "posterior": "full_covariance"},
    "flow": {
        "prior": {"kind": "flow", "layers": 2, "layer_units": 4},
        "posterior": {"kind": "iaf", "steps": 1, "step_units": 4, "context": 5},
    },
}


@pytest.mark.exhaustive  # tests/test_part_contract.py and tests/plotting/test_parts.py show it in CI
@pytest.mark.parametrize("prior", MODELS)
def test_every_command_works_with_a_learned_prior(prior, call, tmp_path):
    run = tiny_run(tmp_path, latent_dim=2, **MODELS[prior]).folder
    config = Run.open(run).config.to_dict()["model"]
    assert config["prior"] == MODELS[prior]["prior"]
    if prior == "flow":
        assert config["posterior"] == MODELS[prior]["posterior"]
    commands = [
        ("evaluate", run, "--samples", "20", "--json"),
        ("complete", run, "--observed", "top", "-n", "3", "--samples", "20"),
        ("plot", run, "lattice", "samples", "posterior_contours"),
        ("encode", run, "--split", "test", "-o", tmp_path / "encoded.npz"),
        ("sample", run, "-n", "4", "--seed", "1", "-o", tmp_path / "images.png"),
    ]
    for command in commands:
        status, _, error = call(*command)
        assert status == 0, (command, error)
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["protocol"]["prior"] == prior
    assert ("kl_per_dimension" in evaluation) is False
    with quick_parity():
        status, _, error = call("export", run, "--formats", "tflite")
        assert status == 0, error
        status, out, error = call("verify", run)
        assert status == 0, (out, error)
        status, _, error = call("export", run, "--formats", "web", "--overwrite")
    if prior == "vamp":  # its components have covariances
        assert (status, "the prior vamp with the posterior full_covariance" in error) == (2, True), error
    else:
        assert status == 0, error
