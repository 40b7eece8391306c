"""Numbers to publish: means over a whole set with their standard errors, in nats per example.

Every draw is a function of (seed, place of the example in the set, number of the draw), so a result depends neither
on the batch size nor on how the draws are cut into chunks. All of it is made of `VAE.draw`.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from kvae.internal.errors import UserError, check_seed, check_whole
from kvae.internal.tensorflow import keras, tf
from kvae.model import likelihoods, objectives, posteriors, priors
from kvae.model.compiled import compiled
from kvae.model.vae import VAE
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream

ELBO_DRAWS = 8  # draws of z an example for the reconstruction term; unbiased for any number
BATCH = 100  # examples at a time where an array came in
ACTIVE_VARIANCE = 0.01  # Burda et al. (2016), section 5.2

CACHED = 4  # the bound is fastest with a quarter of `images_at_once`: 3 MB of logits stay near the processor
LOG_ZERO = -1e300  # log 0, but finite: -inf - -inf is no number
NOISE = 2  # which draws `elbo` makes; files of version 0.1 do not state it, and are of 1


class Estimate(NamedTuple):
    """A quantity of every example, in nats, and its mean over the set."""

    per_example: np.ndarray  # [N]

    @property
    def mean(self) -> float:
        """The mean over the examples."""
        return float(self.per_example.mean(dtype=np.float64))

    @property
    def standard_error(self) -> float | None:
        """Standard deviation over the examples / sqrt(N): how far another test set of this size would lie.

        None for a single example, which tells nothing of it.
        """
        if len(self.per_example) < 2:
            return None
        return float(self.per_example.std(dtype=np.float64, ddof=1) / math.sqrt(len(self.per_example)))


class ElboTerms(NamedTuple):
    """The ELBO of every example and what it is made of."""

    elbo: Estimate  # [N]
    reconstruction: Estimate  # [N]
    kl: Estimate  # [N]
    kl_per_dimension: list[Estimate]  # D times [N], in closed form; none where q and the prior have none
    active_units: int  # latent dimensions whose posterior mean varies over the set by more than 0.01


def elbo(vae: VAE, data: Any, *, draws: int = ELBO_DRAWS, seed: int = 0, use: Stream = Stream.TEST_ELBO) -> ElboTerms:
    """The ELBO with beta = 1; its KL is what the model's `kl` says, analytic by default.

    Args:
        vae: a built model.
        data: a `tf.data.Dataset` of batches, or an array `[N, *image]`; for a model with a condition batches (x, y), or
            the arrays (x, y).
        draws: of z an example; more make the estimate less noisy, not larger.
        seed: of the draws.
        use: which numbers they are made of: `Stream.TEST_ELBO_BEFORE_0_2` are those of kvae 0.1.

    Raises:
        UserError: no data, or data of another shape.
    """
    check_whole("draws", draws)
    check_seed("seed", seed)
    seed_ = tf.constant(seed)
    parts = [
        [None if part is None else part.numpy() for part in _elbo_of_batch(vae, x, condition, index, seed_, draws, use)]
        for x, condition, index in batches(vae, data)
    ]
    columns = list(zip(*parts, strict=True))
    mean, elbo_, reconstruction, kl = (np.concatenate(part) for part in columns[:4])
    per_dimension: Any = () if columns[4][0] is None else np.concatenate(columns[4]).T
    return ElboTerms(
        Estimate(elbo_),
        Estimate(reconstruction),
        Estimate(kl),
        [Estimate(column) for column in per_dimension],
        int((mean.var(axis=0) > ACTIVE_VARIANCE).sum()),
    )


@compiled
def _elbo_of_batch(
    vae: VAE, x: tf.Tensor, condition: Any, index: tf.Tensor, seed: tf.Tensor, samples: int, use: Stream
) -> tuple[Any, ...]:
    draws = vae.draw(x, Keyed(seed, use, index), samples, condition)
    return draws.q.mean, draws.elbo, draws.reconstruction, draws.kl, draws.kl_per_dimension


def log_likelihood(vae: VAE, data: Any, *, samples: int = 5000, seed: int = 0, verbose: int = 0) -> Estimate:
    """The importance-weighted lower bound of log p(x), in memory that does not grow with `samples` or the set.

    log 1/K sum_k p(x, z_k) / q(z_k|x), z_k ~ q(z|x); Burda, Grosse and Salakhutdinov, "Importance Weighted
    Autoencoders" (2016), equation 8. For K = 1 it is the ELBO; for large K it approaches log p(x) from below.

    Args:
        vae: a built model.
        data: as in `elbo`.
        samples: K.
        seed: of the draws.
        verbose: 1 shows a progress bar, counted in batches.

    Raises:
        UserError: K below 1, no data, or data of another shape.
    """
    check_whole("samples", samples)
    check_seed("seed", seed)
    seed_ = tf.constant(seed)
    progress = keras.utils.Progbar(_count(data), unit_name="batch") if verbose else None
    results = []
    for x, condition, index in batches(vae, data):
        count = min(max(vae.images_at_once // (CACHED * int(x.shape[0])), 1), samples)
        whole, rest = divmod(samples, count)
        total = _log_weight_sum(vae, x, condition, index, seed_, tf.constant(0), tf.constant(whole), count).numpy()
        if rest:
            first, once = tf.constant(whole * count), tf.constant(1)
            last = _log_weight_sum(vae, x, condition, index, seed_, first, once, rest).numpy()
            total = np.logaddexp(total, last)
        results.append(total - math.log(samples))
        if progress:
            progress.add(1)
    return Estimate(np.concatenate(results))


@compiled(xla=True)
def _log_weight_sum(
    vae: VAE,
    x: tf.Tensor,
    condition: Any,
    index: tf.Tensor,
    seed: tf.Tensor,
    first: tf.Tensor,
    chunks: tf.Tensor,
    count: int,
) -> tf.Tensor:
    """log sum_k w_k over the draws first .. first + chunks * count - 1, `[B]` float64."""
    q = vae.encode(x, condition)
    noise = Keyed(seed, Stream.BOUND, index)

    def add(done: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        numbers = first + done * count + tf.range(count)
        draws = vae.draw(x, noise.numbered(numbers), count, condition, q=q)
        bound = tf.cast(objectives.importance_weighted_bound(draws.log_weights), tf.float64) + math.log(count)
        return done + 1, tf.reduce_logsumexp(tf.stack([total, bound]), axis=0)

    nothing = tf.fill([tf.shape(x)[0]], tf.constant(LOG_ZERO, tf.float64))
    loop = tf.while_loop(lambda done, _: done < chunks, add, (tf.constant(0), nothing), parallel_iterations=1)
    return loop[1]


def evaluate(
    vae: VAE, data: Any, *, samples: int | None = None, seed: int = 0, protocol: Any = None, verbose: int = 0
) -> dict[str, Any]:
    """Everything as one JSON-ready object: what `kvae evaluate` prints and `evaluation.json` holds.

    Args:
        vae: a built model.
        data: the test set.
        samples: K of the importance-weighted bound; left out where it is None.
        seed: of all draws.
        protocol: of the data, e.g. `data.info.protocol`; what is measured here is added to it.
        verbose: 1 shows a progress bar for the bound.

    Returns:
        `elbo`, `reconstruction`, `kl`, `kl_per_dimension` where it is known, `log_likelihood` where asked for, each
        with `..._standard_error`; `active_units`; `latent_dim`; `protocol`.
    """
    terms = elbo(vae, data, seed=seed)
    bound = None if samples is None else log_likelihood(vae, data, samples=samples, seed=seed, verbose=verbose)
    result: dict[str, Any] = {}
    named = {"elbo": terms.elbo, "reconstruction": terms.reconstruction, "kl": terms.kl, "log_likelihood": bound}
    for name, estimate in named.items():
        if estimate is not None:
            result[name] = estimate.mean
            result[f"{name}_standard_error"] = estimate.standard_error
    if terms.kl_per_dimension:
        result["kl_per_dimension"] = [estimate.mean for estimate in terms.kl_per_dimension]
        result["kl_per_dimension_standard_error"] = [estimate.standard_error for estimate in terms.kl_per_dimension]
    result["active_units"] = terms.active_units
    result["latent_dim"] = vae.latent_dim
    result["protocol"] = {
        **(protocol or {}),
        "examples": len(terms.elbo.per_example),
        "units": "nats per example",
        "likelihood": likelihoods.name_of(vae.likelihood),
        "prior": priors.name_of(vae.prior),
        "posterior": posteriors.name_of(vae.posterior),
        "kl": vae.kl,
        "elbo_draws": ELBO_DRAWS,
        "noise": NOISE,
        "importance_samples": samples,
        "seed": seed,
    }
    if vae.likelihood.binary and (protocol or {}).get("binarization") == "none":
        result["protocol"]["warning"] = (
            "grey pixels under a Bernoulli likelihood: a cross entropy, no bound of log p(x)"
        )
    if not vae.likelihood.normalized:
        result["protocol"]["likelihood"] += " (without the constant of its density: no bound of log p(x))"
    return result


def _count(data: Any) -> int | None:
    """Batches in `data`, where that is known."""
    if isinstance(data, tf.data.Dataset):
        count = int(data.cardinality())
        return count if count >= 0 else None
    return -(-len(data[0] if isinstance(data, tuple) else data) // BATCH)


def batches(vae: VAE, data: Any) -> Iterator[tuple[tf.Tensor, Any, tf.Tensor]]:
    """x `[B, *image]`, the condition `[B, ...]` or None, and the places of the examples in the set, `[B]`."""
    if vae.image_shape is None:
        raise UserError("Expected a model that was trained, or built with build((None, 28, 28, 1)). Received neither.")
    place = 0
    for batch in _pieces(data):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
        x = tf.cast(tf.convert_to_tensor(x), tf.float32)
        if tuple(x.shape[1:]) != vae.image_shape:
            raise UserError(
                f"Expected images of shape {vae.image_shape}, those that the model was trained on. "
                f"Received {tuple(x.shape[1:])}."
            )
        vae.check_pixels(x)
        if vae.condition_shape is None:
            condition = None
        elif y is None:
            raise UserError("Expected data (x, y): y is the condition of this model. Received x alone.")
        else:
            condition = tf.cast(tf.convert_to_tensor(y), tf.float32)
        yield x, condition, tf.range(place, place + x.shape[0])
        place += x.shape[0]
    if place == 0:
        raise UserError("Expected at least one example to evaluate. Received none.")


def _pieces(data: Any) -> Iterator[Any]:
    """Batches of a dataset as they are, or pieces of arrays: x, or (x, y)."""
    if isinstance(data, tf.data.Dataset):
        yield from data
        return
    arrays = data if isinstance(data, tuple) else (data,)
    for start in range(0, len(arrays[0]), BATCH):
        yield tuple(array[start : start + BATCH] for array in arrays)
