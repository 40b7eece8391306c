"""The evaluations by name. A new one is a function and a line in `EVALUATIONS`."""

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from kvae.evaluation.annealed import ais, bdmc
from kvae.evaluation.classifier import classification
from kvae.evaluation.code_use import information
from kvae.evaluation.defensive_estimate import defensive
from kvae.evaluation.elbo_terms import elbo, kl_kind
from kvae.evaluation.estimate import Estimate
from kvae.evaluation.evidence import quadrature
from kvae.evaluation.importance_weighted import bounds, log_likelihood
from kvae.evaluation.inference_gaps import gaps
from kvae.evaluation.lossless_compression import compression
from kvae.evaluation.over_batches import Keep
from kvae.evaluation.probes import representation
from kvae.evaluation.samples import sample_quality
from kvae.internal import user_files, with_options
from kvae.internal.errors import UserError, unknown
from kvae.model import likelihoods, posteriors, priors
from kvae.model.vae import VAE


class Evaluation(NamedTuple):
    """An evaluation of a model on a set, as the table of evaluations describes it."""

    function: Callable[..., Any]  # (vae, data, *, seed=0, ...) -> Estimate, or a named tuple of estimates and numbers
    options: Mapping[str, str] = {}  # for each option of the function, the key of the protocol for its value
    # For each result, its title in a table, with keys of the protocol in braces. A list of results has a title for each
    # element of the list that the protocol has.
    labels: Mapping[str, str] = {}
    slow: bool = False  # whether it runs only if it is named
    unit: str = "nats"  # of its estimates; empty for shares
    of_images: bool = True  # whether its estimates are of the images of the set, and not of images that are drawn
    labelled: bool = False  # whether its data are (x, label) also for a model without a condition


EVALUATIONS: dict[str, Evaluation] = {
    "elbo": Evaluation(elbo, {"draws": "elbo_draws", "noise": "noise"}),
    "log_likelihood": Evaluation(
        log_likelihood,
        {"images": "importance_images", "samples": "importance_samples"},
        {"log_likelihood": "bound of log p(x), with {importance_samples} draws of z"},
        slow=True,
    ),
    "bounds": Evaluation(
        bounds,
        {"images": "bound_images", "sample_sizes": "bound_sizes"},
        {
            "bounds": "bound of log p(x), K = {bound_sizes}",
            "effective_samples": "effective number of draws for the largest K",
            "bounds_monte_carlo_error": "Monte-Carlo error of the bound for the largest K",
        },
        slow=True,
    ),
    "defensive": Evaluation(
        defensive,
        {"images": "defensive_images", "samples": "defensive_samples", "steps": "defensive_steps"},
        {
            "defensive": "log p(x) by defensive proposals, K = {defensive_samples}",
            "defensive_effective_samples": "its effective number of draws",
            "pareto_k": "k of its weights, no nats",
            "defensive_monte_carlo_error": "its Monte-Carlo error",
            "unreliable": "share of images for which it is unreliable",
        },
        slow=True,
    ),
    "quadrature": Evaluation(
        quadrature,
        {"images": "quadrature_images", "tolerance": "quadrature_tolerance"},
        {
            "quadrature": "log p(x) by quadrature",
            "quadrature_error": "largest error of the quadrature",
            "quadrature_failures": "share of images with a larger error",
        },
        slow=True,
    ),
    "ais": Evaluation(
        ais,
        {
            "images": "ais_images",
            "temperatures": "ais_temperatures",
            "chains": "ais_chains",
            "leapfrog_steps": "ais_leapfrog_steps",
            "betas": "ais_betas",
        },
        {
            "ais": "log p(x) by annealing, first {ais_images} images",
            "ais_effective_chains": "effective number of chains",
            "ais_acceptance": "acceptance of the transitions of annealing",
            "ais_monte_carlo_error": "Monte-Carlo error of annealing",
            "ais_rates": "rate of the decoder at beta = {ais_betas}",
            "ais_distortions": "distortion of the decoder at beta = {ais_betas}",
        },
        slow=True,
    ),
    "bdmc": Evaluation(
        bdmc,
        {
            "images": "bdmc_images",
            "temperatures": "bdmc_temperatures",
            "chains": "bdmc_chains",
            "leapfrog_steps": "bdmc_leapfrog_steps",
        },
        {
            "bdmc_lower": "simulated images: lower bound of log p(x)",
            "bdmc_upper": "simulated images: upper bound of log p(x)",
            "bdmc_gap": "simulated images: gap of the bounds",
            "bdmc_acceptance": "simulated images: acceptance of the transitions",
        },
        slow=True,
        of_images=False,
    ),
    "gaps": Evaluation(
        gaps,
        {"images": "gap_images", "steps": "gap_steps", "draws": "gap_draws"},
        {
            "best_elbo": "ELBO of the best q of each image, first {gap_images} images",
            "approximation_gap": "approximation gap, log p(x) minus that ELBO",
            "amortization_gap": "amortization gap, that ELBO minus the encoder's",
        },
        slow=True,
    ),
    "information": Evaluation(
        information,
        {"samples": "information_samples"},
        {
            "mutual_information": "mutual information of z and the {examples} images, at most log {examples}",
            "mutual_information_upper": "upper bound of it for all images of this kind",
            "marginal_kl": "KL(q(z) || p(z)), the rest of the KL term",
            "total_correlation": "total correlation of q(z)",
        },
        slow=True,
    ),
    "representation": Evaluation(
        representation,
        {"neighbours": "neighbours"},
        {
            "linear_probe": "accuracy of a linear probe of z, a share and not nats",
            "nearest_neighbours": "accuracy of {neighbours} nearest neighbours in z, a share",
            "linear_probe_of_pixels": "accuracy of a linear probe of the pixels, a share",
            "nearest_neighbours_of_pixels": "accuracy of {neighbours} nearest neighbours in pixels, a share",
            "largest_class": "share of the largest class",
        },
        slow=True,
        unit="",
        labelled=True,
    ),
    "sample_quality": Evaluation(
        sample_quality,
        {"neighbours": "sample_neighbours"},
        {
            "kernel_distance_of_pixels_x1000": "kernel distance of samples x 1,000, of pixels, no nats",
            "kernel_distance_of_features_x1000": "kernel distance of samples x 1,000, of features",
            "sample_precision": "precision of samples, a share",
            "sample_recall": "recall of samples, a share",
            "ideal_sample_precision": "both of perfect samples, a share",
        },
        slow=True,
        of_images=False,
        unit="",
    ),
    "compression": Evaluation(
        compression,
        labels={
            "bits_per_image": "bits, not nats, by the ELBO",
            "coded_bits_per_image": "bits, coded and decoded",
            "coded_to_elbo": "coded bits divided by those of the ELBO",
            "initial_bits_per_image": "initial bits, divided by the number of images",
            "bz2_bits_per_image": "bits by bzip2, which knows no model",
            "decoded": "share of images that were decoded without any difference",
        },
        slow=True,
        unit="bits",
    ),
    "classification": Evaluation(
        classification,
        {"images": "classification_images", "samples": "classification_samples"},
        {"accuracy": "accuracy, a share and not nats: the class with the largest p(x|y)"},
        slow=True,
        unit="",
    ),
}


def find(name: str) -> Evaluation:
    """Finds an evaluation.

    Args:
        name: a name in `EVALUATIONS`, or `module:name` for an `Evaluation` or a function in an imported file.

    Raises:
        UserError: if there is no evaluation with this name.
    """
    if ":" in name:
        value = user_files.find(name)
        return value if isinstance(value, Evaluation) else Evaluation(value)
    if name not in EVALUATIONS:
        raise unknown("evaluation", name, EVALUATIONS)
    return EVALUATIONS[name]


def chosen(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The options of evaluations that are asked for as texts, such as `elbo` or `ais(images=100, chains=32)`, by name.

    Raises:
        UserError: if there is no such evaluation or option, or if an evaluation is asked for twice in different ways.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, _, given = text.partition("(")
        names = [name] if ":" in name else list(EVALUATIONS)
        name, options = with_options.parse(text, "evaluation", names, "ais(images=100)") if given else (name, {})
        valid = find(name).options
        for option in options:
            if option not in valid:
                raise unknown(f"option of {name}:", option, valid)
        if found.setdefault(name, options) != options:
            raise UserError(f"Expected each evaluation once. Received {name} with different options.")
    return found


def asked_for(only: Iterable[str] | None, samples: int | None = None) -> dict[str, dict[str, Any]]:
    """The evaluations that `evaluate` runs for these arguments, as `chosen` returns them.

    Raises:
        UserError: as `chosen`, or if none of them has the option `samples` that is given.
    """
    if only is None:
        only = [name for name, each in EVALUATIONS.items() if not each.slow]
        only += [] if samples is None else ["log_likelihood"]
    found = chosen(only)
    if samples is not None and not any("samples" in find(name).options for name in found):
        raise UserError(
            f"Expected an evaluation that draws {samples} samples per image, such as log_likelihood. Received "
            f"{', '.join(found)}. Add log_likelihood to them, or leave the samples out."
        )
    return found


def need_labels(names: Iterable[str] | None) -> bool:
    """Whether one of these evaluations needs labels also for a model without a condition; no default one does."""
    return any(find(name).labelled for name in chosen(names or ()))


def results_of(
    name: str, vae: VAE, data: Any, *, verbose: int = 0, keep: Keep = None, **options: Any
) -> dict[str, Any]:
    """Runs one evaluation.

    Args:
        name: the name of the evaluation, as in `find`.
        vae: a built model.
        data: a `tf.data.Dataset`, loader or generator of batches x, or an array `[N, *image]`. For a conditional model,
            batches (x, y) or the arrays (x, y).
        verbose: 1 for a progress bar, 2 for lines, if the evaluation has them. 0 by default.
        keep: a folder for the results of batches, if the evaluation keeps them. By default none are kept.
        **options: options of the evaluation's function.

    Returns:
        The results by name, each an `Estimate`, a list of estimates, a number, or a text for the protocol.

    Raises:
        UserError: if there is no such evaluation or option, or if the function does not accept a value.
    """
    function = find(name).function
    parameters = inspect.signature(function).parameters
    for option in options:
        if option not in parameters:
            valid = [parameter for parameter in parameters if parameter not in ("vae", "data")]
            raise unknown(f"option of {name}:", option, valid)
    shared = {"verbose": verbose, "keep": keep}
    result = function(vae, data, **options, **{key: value for key, value in shared.items() if key in parameters})
    if isinstance(result, Estimate):
        return {name.partition(":")[2] or name: result}
    return result._asdict()


class Measured(NamedTuple):
    """What several evaluations found."""

    results: dict[str, Any]  # by name, as in `results_of`
    of_images: dict[str, Any]  # those of them that are of the images of the set
    latent_dim: int
    protocol: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """One dictionary for JSON, see `evaluate`."""
        entries = [_as_json(name, value) for name, value in self.results.items()]
        merged = {name: value for part in entries for name, value in part.items()}
        return {**merged, "latent_dim": self.latent_dim, "protocol": self.protocol}

    def per_image(self) -> dict[str, np.ndarray]:
        """The result of each image, `[N]`, by the name of the result; those of a list have its index in their name."""
        columns = {}
        for name, value in self.of_images.items():
            parts = {f"{name}_{number}": each for number, each in enumerate(value)} if isinstance(value, list) else {}
            for column, each in {**parts, name: value}.items():
                if isinstance(each, Estimate):
                    columns[column] = each.per_example
        return columns


def evaluate(
    vae: VAE,
    data: Any,
    *,
    only: Iterable[str] | None = None,
    samples: int | None = None,
    seed: int = 0,
    protocol: Mapping[str, Any] | None = None,
    verbose: int = 0,
    keep: Keep = None,
) -> dict[str, Any]:
    """Runs several evaluations and returns one dictionary for JSON, the content of evaluation.json.

    Args:
        vae: a built model.
        data: the test set, as in `results_of`.
        only: names of evaluations, some with options, such as `ais(images=100)`. By default those that are not slow,
            and `log_likelihood` if `samples` is given.
        samples: the number of draws of z per image for `log_likelihood`, K. With `only`, that for each of these
            evaluations that has an option of this name.
        seed: the seed of all draws.
        protocol: the protocol of the data, e.g. `data.info.protocol`, to which that of the evaluations is added.
        verbose: 1 for a progress bar during slow evaluations, 2 for lines. 0 by default.
        keep: a folder for the results of batches, with which the same call continues after an interruption
            (`kvae.evaluation.over_batches`). By default none are kept.

    Returns:
        The results by name: the mean of each estimate, with its standard error as `<name>_standard_error`; lists of
        means and of standard errors; and numbers. Examples are `elbo`, `reconstruction`, `kl`, `kl_per_dimension`,
        `active_units` and `log_likelihood`. `latent_dim` and `protocol` are added.

    Raises:
        UserError: if there is no such evaluation, if none of them has the option `samples` that is given, if there are
            no data, if the images have another shape than the model's, or if a weight of the model or a result is NaN
            or infinite.
    """
    return measure(
        vae, data, only=only, samples=samples, seed=seed, protocol=protocol, verbose=verbose, keep=keep
    ).as_json()


def measure(
    vae: VAE,
    data: Any,
    *,
    only: Iterable[str] | None = None,
    samples: int | None = None,
    seed: int = 0,
    protocol: Mapping[str, Any] | None = None,
    verbose: int = 0,
    keep: Keep = None,
) -> Measured:
    """Runs several evaluations, as `evaluate` does, and keeps the results of the single images."""
    asked = asked_for(only, samples)
    if hasattr(data, "__next__") and len(asked) > 1:
        raise UserError(
            f"Expected data that can be read once for each of {len(asked)} evaluations. Received a generator, which "
            "can be read once. Pass arrays, a tf.data.Dataset or a loader."
        )
    found: dict[str, dict[str, Any]] = {}
    stated: dict[str, Any] = {"evaluations": list(asked)}
    for name, given in asked.items():
        evaluation = find(name)
        options = {**({"samples": samples} if samples is not None and "samples" in evaluation.options else {}), **given}
        found[name] = results_of(name, vae, data, seed=seed, verbose=verbose, keep=keep, **options)
        for key, value in found[name].items():
            _check_finite(key, value)
            if isinstance(value, str):
                stated[key] = value
        stated.update(_options_as_protocol(evaluation, options))
    results = {key: value for each in found.values() for key, value in each.items() if not isinstance(value, str)}
    of_images = {key: value for name, each in found.items() if find(name).of_images for key, value in each.items()}
    stated = {**(protocol or {}), **_protocol(vae, protocol or {}, examples_of(found)), **stated, "seed": seed}
    return Measured(results, of_images, vae.latent_dim, stated)


def examples_of(found: Mapping[str, Mapping[str, Any]]) -> int | None:
    """The number of images that were evaluated, from the results of evaluations by their names.

    It is that of the evaluation of most images. Images that a model draws count only if there are no others.
    """
    of_images = [results for name, results in found.items() if find(name).of_images] or list(found.values())
    values = [value for results in of_images for value in results.values() if isinstance(value, Estimate)]
    return max((len(value.per_example) for value in values), default=None)


def labels(protocol: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """The titles of results in a table, by the name of the result; a list of titles for a list of results.

    Args:
        protocol: the protocol of the results, whose values some titles contain.
    """
    texts = {name: text for each in EVALUATIONS.values() for name, text in each.labels.items()}
    return {name: _titles(text, protocol) for name, text in texts.items()}


def _titles(text: str, protocol: Mapping[str, Any]) -> str | list[str]:
    for key, value in protocol.items():
        if f"{{{key}}}" in text and isinstance(value, list | tuple):
            return [text.format_map({**protocol, key: each}) for each in value]
    return text.format_map(defaultdict(str, protocol))


def _as_json(name: str, value: Any) -> dict[str, Any]:
    """One result as entries of evaluation.json; none for a result that the model does not have."""
    if value is None:
        return {}
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


def _check_finite(name: str, value: Any) -> None:
    """Refuses a result that is NaN or infinite, which JSON cannot contain."""
    for part in value if isinstance(value, list) else [value]:
        numbers = part.per_example if isinstance(part, Estimate) else part
        if not isinstance(numbers, float | np.floating | np.ndarray) or np.isfinite(numbers).all():
            continue
        bad, count = np.flatnonzero(~np.isfinite(numbers)), np.size(numbers)
        images = f" of {len(bad)} of {count} images, the first with index {bad[0]}" if count > 1 else ""
        raise UserError(
            f"Expected a finite result of the evaluation. Received NaN or infinity as {name}{images}, although the "
            "weights of the model are finite. Look at these images, or train again with a lower learning rate."
        )


def options_of(evaluation: Evaluation, protocol: Mapping[str, Any]) -> dict[str, Any]:
    """The options of an evaluation that a protocol states.

    Raises:
        KeyError: if it lacks one, except for those that are None by default, which earlier versions did not have.
    """
    defaults = inspect.signature(evaluation.function).parameters
    return {
        option: protocol[key]
        for option, key in evaluation.options.items()
        if key in protocol or defaults[option].default is not None
    }


def _options_as_protocol(evaluation: Evaluation, options: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an evaluation's options, given or default, as entries of the protocol."""
    parameters = inspect.signature(evaluation.function).parameters
    return {key: options.get(option, parameters[option].default) for option, key in evaluation.options.items()}


def _protocol(vae: VAE, data: Mapping[str, Any], examples: int | None) -> dict[str, Any]:
    """The entries that every evaluation adds to the protocol of the data."""
    added: dict[str, Any] = {
        "examples": examples,
        "units": "nats per example",
        "likelihood": likelihoods.name_of(vae.likelihood),
        "prior": priors.name_of(vae.prior),
        "posterior": posteriors.name_of(vae.posterior),
        "kl": kl_kind(vae),
    }
    if vae.likelihood.levels is not None:
        added["levels"] = vae.likelihood.levels
    if vae.likelihood.binary and data.get("binarization") == "none":
        added["warning"] = "grey pixels under a Bernoulli likelihood: a cross entropy, no bound of log p(x)"
    if not vae.likelihood.normalized:
        added["likelihood"] += " (without the constant of its density: no bound of log p(x))"
    return added
