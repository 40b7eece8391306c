"""The evaluations by name. A new one is a function and a line in `EVALUATIONS`."""

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from kvae.evaluation.elbo_estimate import elbo
from kvae.evaluation.estimate import Estimate
from kvae.evaluation.importance_weighted import log_likelihood
from kvae.internal import imported
from kvae.internal.errors import unknown
from kvae.model import likelihoods, posteriors, priors
from kvae.model.vae import VAE


class Evaluation(NamedTuple):
    """A quantity that can be measured of a model and a set."""

    function: Callable[..., Any]  # (vae, data, *, seed=0, ...) -> Estimate, or a named tuple of estimates and numbers
    options: Mapping[str, str] = {}  # by option of the function, the name under which the protocol states its value
    labels: Mapping[str, str] = {}  # by result, how a table names it, with values of the protocol in braces
    slow: bool = False  # whether it runs only if it is asked for


EVALUATIONS: dict[str, Evaluation] = {
    "elbo": Evaluation(elbo, {"draws": "elbo_draws", "noise": "noise"}),
    "log_likelihood": Evaluation(
        log_likelihood,
        {"samples": "importance_samples"},
        {"log_likelihood": "log_likelihood (bound, K = {importance_samples})"},
        slow=True,
    ),
}


def find(name: str) -> Evaluation:
    """An evaluation by its name in `EVALUATIONS`, or a function of the user's as `module:name`.

    Raises:
        UserError: if there is none of this name.
    """
    if ":" in name:
        found = imported.find(name)
        return found if isinstance(found, Evaluation) else Evaluation(found)
    if name not in EVALUATIONS:
        raise unknown("evaluation", name, EVALUATIONS)
    return EVALUATIONS[name]


def results_of(name: str, vae: VAE, data: Any, *, verbose: int = 0, **options: Any) -> dict[str, Any]:
    """Runs one evaluation.

    Args:
        name: as in `find`.
        vae: a built model.
        data: a `tf.data.Dataset` of batches, or an array `[N, *image]`; for a model with a condition batches (x, y), or
            the arrays (x, y).
        verbose: 1 shows a progress bar, if the evaluation has one.
        **options: options of the evaluation's function.

    Returns:
        Its results by name: an `Estimate`, a list of them, or a number.

    Raises:
        UserError: if there is no such evaluation or option, or the function refuses something.
    """
    function = find(name).function
    known = inspect.signature(function).parameters
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}:", option, [each for each in known if each not in ("vae", "data")])
    found = function(vae, data, **options, **({"verbose": verbose} if "verbose" in known else {}))
    if isinstance(found, Estimate):
        return {name.partition(":")[2] or name: found}
    return found._asdict()


def evaluate(
    vae: VAE,
    data: Any,
    *,
    only: Iterable[str] | None = None,
    samples: int | None = None,
    seed: int = 0,
    protocol: Mapping[str, Any] | None = None,
    verbose: int = 0,
) -> dict[str, Any]:
    """Everything as one JSON-ready object: what `kvae evaluate` prints and evaluation.json holds.

    Args:
        vae: a built model.
        data: the test set, as in `results_of`.
        only: names of evaluations; by default those that are not slow, and `log_likelihood` if `samples` is given.
        samples: number of draws of the importance-weighted bound, K.
        seed: seed of all draws.
        protocol: protocol of the data, e.g. `data.info.protocol`; what is measured here is added to it.
        verbose: 1 shows a progress bar for what takes long; 0 by default.

    Returns:
        The results by name: the mean of each estimate with `..._standard_error`, lists of them, and numbers; for
        example `elbo`, `reconstruction`, `kl`, `kl_per_dimension`, `active_units`, `log_likelihood`. Further
        `latent_dim` and `protocol`.

    Raises:
        UserError: if there is no such evaluation, there are no data, or they have another shape.
    """
    if only is None:
        names = [name for name, each in EVALUATIONS.items() if not each.slow]
        names += [] if samples is None else ["log_likelihood"]
    else:
        names = list(dict.fromkeys(only))
    result: dict[str, Any] = {}
    stated: dict[str, Any] = {"evaluations": names}
    examples = None
    for name in names:
        evaluation = find(name)
        asked = {"samples": samples} if samples is not None and "samples" in evaluation.options else {}
        for key, value in results_of(name, vae, data, seed=seed, verbose=verbose, **asked).items():
            result.update(_plain(key, value))
            if isinstance(value, Estimate):
                examples = len(value.per_example)
        stated.update(_stated(evaluation, asked))
    result["latent_dim"] = vae.latent_dim
    result["protocol"] = {**(protocol or {}), **_protocol(vae, protocol or {}, examples), **stated, "seed": seed}
    return result


def labels(protocol: Mapping[str, Any]) -> dict[str, str]:
    """How a table names results, by result, with what the protocol states of them."""
    texts = {name: text for each in EVALUATIONS.values() for name, text in each.labels.items()}
    return {name: text.format_map(defaultdict(str, protocol)) for name, text in texts.items()}


def _plain(name: str, value: Any) -> dict[str, Any]:
    """A result as JSON holds it."""
    if isinstance(value, Estimate):
        return {name: value.mean, f"{name}_standard_error": value.standard_error}
    if isinstance(value, list):
        if not value:
            return {}
        return {
            name: [estimate.mean for estimate in value],
            f"{name}_standard_error": [estimate.standard_error for estimate in value],
        }
    return {name: value}


def _stated(evaluation: Evaluation, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The options of an evaluation as the protocol states them."""
    known = inspect.signature(evaluation.function).parameters
    return {key: asked.get(option, known[option].default) for option, key in evaluation.options.items()}


def _protocol(vae: VAE, data: Mapping[str, Any], examples: int | None) -> dict[str, Any]:
    """What an evaluation adds to the protocol of the data, beside its options."""
    added: dict[str, Any] = {
        "examples": examples,
        "units": "nats per example",
        "likelihood": likelihoods.name_of(vae.likelihood),
        "prior": priors.name_of(vae.prior),
        "posterior": posteriors.name_of(vae.posterior),
        "kl": vae.kl,
    }
    if vae.likelihood.binary and data.get("binarization") == "none":
        added["warning"] = "grey pixels under a Bernoulli likelihood: a cross entropy, no bound of log p(x)"
    if not vae.likelihood.normalized:
        added["likelihood"] += " (without the constant of its density: no bound of log p(x))"
    return added
