"""Priors as the priors of kvae's web page, and their weights as arrays of the page."""

from typing import Any

import numpy as np

from kvae.export.web_network import Arrays
from kvae.model import posteriors, priors
from kvae.model.priors.flow import Coupling, CouplingPrior
from kvae.model.priors.mixture import thresholds
from kvae.model.vae import VAE


def unknown_prior(vae: VAE) -> list[str]:
    """The prior of a model in words if the page does not know it, else nothing."""
    kind, name = type(vae.prior), f"the prior {priors.name_of(vae.prior)}"
    if kind is priors.VampPrior and type(vae.posterior) is not posteriors.DiagonalGaussian:
        return [f"{name} with the posterior {posteriors.name_of(vae.posterior)}"]
    known = (priors.StandardNormal, priors.Mixture, priors.VampPrior, priors.Flow, priors.Hierarchical)
    return [] if kind in known else [name]


def prior(vae: VAE, draws: np.ndarray, arrays: Arrays) -> dict[str, Any]:
    """The prior of a model for the page; nothing for the standard normal.

    Args:
        vae: a built model with a prior that the page knows.
        draws: examples of z, `[n, D]`.
        arrays: the arrays of the page, to which those of the prior are added.

    Returns:
        The key `prior` with what `kvae.runtime.plain_prior` and the page draw from, and where z is: nearly all of the
        probability is within `reach` of `middle` in each dimension; the draws have the mean `centre`, and no number of
        theirs is above `extent` in magnitude.
    """
    if type(vae.prior) is priors.StandardNormal:
        return {}
    low, high = vae.prior.region()
    facts = {
        "middle": ((low + high) / 2).tolist(),
        "reach": float((high - low).max() / 2),
        "centre": draws.mean(axis=0, dtype=np.float64).tolist(),
        "extent": float(np.abs(draws).max()),
    }
    described = _couplings if isinstance(vae.prior, CouplingPrior) else _mixture
    return {"prior": {**facts, **described(vae.prior, arrays)}}


def _mixture(learned: Any, arrays: Arrays) -> dict[str, Any]:
    """A mixture; the components of a VampPrior are the posteriors of its pseudo-inputs."""
    frozen = learned.frozen()
    if type(learned) is priors.VampPrior:
        ends, means = np.asarray(thresholds(np.zeros(learned.components))), frozen.q.mean
        deviations = np.exp(np.float32(0.5) * frozen.q.log_var)
    else:
        ends, means, deviations = frozen.constants
    found = {"ends": arrays.add(ends, "int32"), "means": arrays.add(means), "deviations": arrays.add(deviations)}
    return {"kind": "mixture", **found}


def _couplings(learned: CouplingPrior, arrays: Arrays) -> dict[str, Any]:
    return {"kind": "couplings", "couplings": [_coupling(coupling, arrays) for coupling in learned.couplings]}


def _coupling(coupling: Coupling, arrays: Arrays) -> dict[str, Any]:
    """A coupling: for each coordinate 1 if it is kept, else 0, and the two dense layers of the network."""
    layers = []
    weights = ((coupling.kernel, coupling.bias, "tanh"), (coupling.output, coupling.output_bias, "linear"))
    for kernel, bias, activation in weights:
        sides = [[int(side)] for side in kernel.shape]
        facts = {"kind": "dense", "input": sides[0], "output": sides[1], "activation": activation}
        weight = {"kernel": arrays.add(np.asarray(kernel).T), "bias": arrays.add(np.asarray(bias))}
        layers.append({**facts, **weight})
    return {"kept": coupling.kept.astype(int).tolist(), "layers": layers}
