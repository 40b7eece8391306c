"""Conditional completion: what the missing pixels of an image may be, given those that are observed.

q(z | observed) is fitted by stochastic variational inference on the joint density of the observed pixels and z, for
many images at once in one compiled graph; then p(missing | observed) = integral of p(missing|z) p(z|observed) dz by
importance sampling with q as proposal.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from kvae import distributions, masks, noise, objectives, quadrature
from kvae.errors import UserError, check_seed, check_whole, unknown
from kvae.evaluation import Estimate
from kvae.tensorflow import tf
from kvae.vae import VAE

OPTIMIZERS = ("adam", "gradient_descent")
BATCH = 100  # images at a time
CHUNK = 4096  # decoded images at a time
CANDIDATES = 256  # draws of the prior among which a start is chosen
START_LOG_SIGMA = -1.0
PRIOR_SHARE = 0.1  # of the proposals that are draws of the prior
TOLERANCE = 0.5  # nats that the last two quarters of a converged inference may differ by

# Streams of the noise, apart from those of the model and of its evaluation.
START, STEPS, PROPOSAL, RESAMPLING, PIXELS, BASELINE = range(200, 206)


class Inferred(NamedTuple):
    """q(z | observed) = N(mean, exp(log_var)), factorized, and how it was found."""

    mean: np.ndarray  # [B, D]
    log_var: np.ndarray  # [B, D]
    start_mean: np.ndarray  # [B, D]  where the steps began
    start_log_var: np.ndarray  # [B, D]
    losses: np.ndarray  # [S, B]  negative ELBO of the observed pixels before every step, nats
    converged: np.ndarray  # [B]  whether the mean loss of the last quarter and that of the one before agree to 0.5 nats


class Score(NamedTuple):
    """log p(missing | observed) of every image, in nats, and how well it is known."""

    log_density: np.ndarray  # [B]
    standard_error: np.ndarray  # [B]  of the Monte-Carlo estimate
    effective_samples: np.ndarray  # [B]  of all the draws, how many equally weighted ones would be worth the same


class Completion(NamedTuple):
    """Completions of a batch of images."""

    observed: np.ndarray  # [B, *image]  bool
    inferred: Inferred
    means: np.ndarray  # [B, *image]  E[x | observed]; observed pixels as they were
    draws: np.ndarray  # [n, B, *image]  draws of p(missing | observed) beside the observed pixels
    score: Score | None  # of the true missing pixels; None where they are not known (NaN)


def complete(
    vae: VAE,
    x: Any,
    observed: Any,
    *,
    draws: int = 3,
    samples: int = 1000,
    seed: int = 0,
    inferred: Inferred | None = None,
    **options: Any,
) -> Completion:
    """Infers q(z | observed) and predicts the missing pixels.

    Args:
        vae: a built model.
        x: `[B, *image]` in [0, 1]. What stands in the missing pixels is used for the score alone; NaN where it is
            not known.
        observed: a mask, True where a pixel is observed: `[H, W]`, `[H, W, C]`, `[B, H, W, C]`, or a name that
            `kvae.masks.named` knows, such as `"top"`.
        draws: completions an image.
        samples: of z an image, for the score and the means.
        seed: of everything random; image i's completion is a function of (seed, i) alone.
        inferred: q(z | observed) of an earlier `infer`; inferred here by default.
        **options: of `infer`.

    Raises:
        UserError: a mask that does not fit, observes nothing or everything, or another argument that cannot be.
    """
    x, mask = _checked(vae, x, observed, seed)
    if inferred is None:
        inferred = infer(vae, x, mask, seed=seed, **options)
    elif options:
        raise UserError(f"Expected either inferred= or options of infer. Received both: {', '.join(options)}.")
    check_whole("draws", draws)
    check_whole("samples", samples, least=2)
    known = np.isfinite(x).reshape(len(x), -1).all(axis=1).all()
    sees = np.where(mask, x, 0).astype(np.float32)
    parts = []
    for batch in _batches(len(x)):
        q = (inferred.mean[batch], inferred.log_var[batch])
        truth = np.where(np.isfinite(x[batch]), x[batch], 0).astype(np.float32)
        parts.append(_predict(vae, truth, sees[batch], mask[batch], q, _places(batch), draws, samples, seed))
    means, completions, score = zip(*parts, strict=True)
    scores = Score(*(np.concatenate(part) for part in zip(*score, strict=True)))
    completed = np.concatenate(means), np.concatenate(completions, axis=1)
    return Completion(mask, inferred, *completed, scores if known else None)


def first(found: Completion, count: int) -> Completion:
    """The completions of the first `count` images."""
    part = found.inferred
    inferred = Inferred(
        part.mean[:count],
        part.log_var[:count],
        part.start_mean[:count],
        part.start_log_var[:count],
        part.losses[:, :count],
        part.converged[:count],
    )
    score = None if found.score is None else Score(*(part[:count] for part in found.score))
    return Completion(found.observed[:count], inferred, found.means[:count], found.draws[:, :count], score)


def plain(vae: VAE) -> dict[str, Any]:
    """Options of `infer` for the form of the article that kvae reproduces: 200 plain gradient steps from a fixed start.

    Raises:
        UserError: a model whose latent space is no plane, which the start is a point of.
    """
    quadrature.check_plane(vae)
    start = ((2.0, -2.0), (0.5, 0.0))
    return {
        "start": start,
        "steps": 200,
        "learning_rate": 0.01,
        "gradient_samples": 10,
        "optimizer": "gradient_descent",
    }


def infer(
    vae: VAE,
    x: Any,
    observed: Any,
    *,
    start: tuple[Any, Any] | None = None,
    steps: int = 100,
    learning_rate: float = 0.1,
    gradient_samples: int = 8,
    optimizer: str = "adam",
    seed: int = 0,
) -> Inferred:
    """Fits q(z | observed) by stochastic variational inference; Hoffman et al. (2013), with reparameterized gradients.

    Minimises E_q[log q(z) - log p(x_observed, z)], the negative ELBO of the observed pixels, over the mean and log
    sigma of q. The gradient leaves out the score of q, whose mean is zero: Roeder, Wu and Duvenaud, "Sticking the
    Landing" (2017), equation 7.

    Args:
        vae: a built model.
        x: `[B, *image]` in [0, 1]; the missing pixels are not looked at.
        observed: a mask as in `complete`.
        start: (mean, log_sigma), each `[D]` or `[B, D]`. By default the best of 256 draws of the prior and of the
            encoder's guess for the image with its missing pixels at 0, judged by log p(x_observed, z), with
            log_sigma -1.
        steps: S.
        learning_rate: the first; Adam's falls to 0 along a cosine, that of `"gradient_descent"` stays.
        gradient_samples: draws of z a step.
        optimizer: `"adam"`, or `"gradient_descent"` for plain steps of constant size.
        seed: of the draws; image i's are a function of (seed, i) alone.

    Raises:
        UserError: a mask that does not fit, observes nothing or everything, or another argument that cannot be.
    """
    x, mask = _checked(vae, x, observed, seed)
    check_whole("steps", steps)
    check_whole("gradient_samples", gradient_samples)
    if optimizer not in OPTIMIZERS:
        raise unknown("optimizer", optimizer, OPTIMIZERS)
    if not (isinstance(learning_rate, int | float) and 0 < learning_rate < math.inf):
        raise UserError(f"Expected a positive learning_rate. Received {learning_rate!r}.")
    x = np.where(mask, x, 0).astype(np.float32)
    first = None if start is None else [_start(part, len(x), vae.latent_dim) for part in start]
    fit = _fit_graph(vae, steps, gradient_samples, optimizer)
    best_start = _start_graph(vae)
    settings = (tf.constant(learning_rate, tf.float32), tf.constant(seed))
    parts = []
    for batch in _batches(len(x)):
        seen = (tf.constant(x[batch]), tf.constant(mask[batch]))
        if first is None:
            mean = best_start(*seen, settings[1])
            log_sigma = tf.fill(tf.shape(mean), START_LOG_SIGMA)
        else:
            mean, log_sigma = (tf.constant(part[batch]) for part in first)
        found = fit(*seen, mean, log_sigma, tf.constant(_places(batch)), *settings)
        parts.append([part.numpy() for part in (*found, mean, 2 * log_sigma)])
    mean, log_var, losses, start_mean, start_log_var = (list(part) for part in zip(*parts, strict=True))
    loss = np.concatenate(losses, axis=1)
    return Inferred(
        np.concatenate(mean),
        np.concatenate(log_var),
        np.concatenate(start_mean),
        np.concatenate(start_log_var),
        loss,
        _converged(loss),
    )


def pixel_mean_baseline(vae: VAE, x: Any, observed: Any, pixel_mean: Any, count: int) -> np.ndarray:
    """log p(missing) where every pixel is independent with its training mean, `[B]` nats.

    Args:
        vae: whose likelihood is taken.
        x: `[B, *image]`.
        observed: a mask as in `complete`.
        pixel_mean: of the training images, `[*image]`; smoothed by Laplace's rule, (n mean + 1) / (n + 2), so that a
            pixel that was never on has a probability.
        count: n, of the training images.
    """
    x, mask = _checked(vae, x, observed, 0)
    mean = (count * np.asarray(pixel_mean, np.float64) + 1) / (count + 2)
    low, high = np.full(mean.shape, -30.0), np.full(mean.shape, 30.0)
    for _ in range(60):  # the mean grows with the logit under every likelihood
        middle = (low + high) / 2
        below = vae.likelihood.means(tf.constant(middle, tf.float32)).numpy() < mean
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    log_prob = vae.likelihood(x, tf.constant(np.broadcast_to(middle, x.shape), tf.float32))
    return _masked_sum(log_prob, ~mask).numpy()


def zero_filled_baseline(vae: VAE, x: Any, observed: Any, *, samples: int = 1000, seed: int = 0) -> np.ndarray:
    """log E[p(missing|z)] over q(z|x) of the encoder, which is shown 0 for every missing pixel; `[B]` nats."""
    x, mask = _checked(vae, x, observed, seed)
    results = []
    for batch in _batches(len(x)):
        q = vae.encode(np.where(mask[batch], x[batch], 0))
        total = np.full(len(x[batch]), -np.inf)
        for z in _draws(vae, q, _places(batch), samples, samples, (seed, BASELINE)):
            log_density = _masked_sum(vae.likelihood(x[batch], vae.decode(z)), ~mask[batch]).numpy()
            total = np.logaddexp(total, np.logaddexp.reduce(log_density.astype(np.float64), axis=0))
        results.append(total - math.log(samples))
    return np.concatenate(results)


def quadrature_score(vae: VAE, x: Any, observed: Any) -> np.ndarray:
    """log p(missing | observed) = log p(x) - log p(x_observed), exact by quadrature; `[B]` nats.

    Raises:
        UserError: a model whose latent space is no plane.
    """
    quadrature.check_plane(vae)
    x, mask = _checked(vae, x, observed, 0)
    return quadrature.log_evidence(vae, x).log_value - quadrature.log_evidence(vae, x, mask).log_value


def evaluate(
    vae: VAE,
    x: Any,
    found: Completion,
    *,
    pixel_mean: Any,
    training_images: int,
    samples: int = 1000,
    seed: int = 0,
    exact: bool = False,
) -> dict[str, Any]:
    """The score of completions beside that of both baselines, JSON-ready, in nats per image.

    Args:
        vae: that made them.
        x: the whole images, `[B, *image]`.
        found: what `complete` returned for them.
        pixel_mean: of the training images, `[*image]`.
        training_images: how many there were.
        samples: of the baseline that draws z.
        seed: likewise.
        exact: add the value by quadrature; for 2 latent dimensions, about half a second an image.

    Returns:
        `kvae`, `pixel_means`, `zero_filled` and, where asked for, `quadrature`: each with `mean`, its
        `standard_error` over the images, and `per_image`. Of `kvae` also the mean `monte_carlo_standard_error` of an
        image and its median `effective_samples`.

    Raises:
        UserError: `found` has no score.
    """
    if found.score is None:
        raise UserError("Expected the true values of the missing pixels to score by. Received NaN.")
    values = {
        "kvae": found.score.log_density,
        "pixel_means": pixel_mean_baseline(vae, x, found.observed, pixel_mean, training_images),
        "zero_filled": zero_filled_baseline(vae, x, found.observed, samples=samples, seed=seed),
    }
    if exact:
        values["quadrature"] = quadrature_score(vae, x, found.observed)
    result: dict[str, Any] = {}
    for name, per_image in values.items():
        estimate = Estimate(np.asarray(per_image, np.float64))
        result[name] = {
            "mean": estimate.mean,
            "standard_error": estimate.standard_error,
            "per_image": estimate.per_example.tolist(),
        }
    result["kvae"]["monte_carlo_standard_error"] = float(found.score.standard_error.mean())
    result["kvae"]["effective_samples"] = float(np.median(found.score.effective_samples))
    result["converged"] = int(found.inferred.converged.sum())
    return result


def importance_estimate(log_weights: np.ndarray, log_densities: np.ndarray) -> Score:
    """log of the self-normalized estimate sum_k w_k f_k / sum_k w_k, with its standard error.

    The delta method: Var(r) = sum_k W_k^2 (f_k - r)^2 with W = w / sum w, and the error of log r is that over r; Owen,
    "Monte Carlo theory, methods and examples" (2013), equation 9.9.

    Args:
        log_weights: log w_k = log p(x_observed, z_k) - log proposal(z_k), `[K, B]`.
        log_densities: log f_k = log p(missing|z_k), `[K, B]`.

    Returns:
        The smaller of the two effective sample sizes, 1 / sum W^2 (Owen, equation 9.13), of w and of w f, since the
        few draws that carry either sum limit the estimate.
    """
    w = log_weights - np.logaddexp.reduce(log_weights, axis=0)
    joint = w + log_densities
    log_ratio = np.logaddexp.reduce(joint, axis=0)
    relative = np.exp(joint - log_ratio) - np.exp(w)  # W_k (f_k - r) / r
    effective = [np.exp(-np.logaddexp.reduce(2 * part, axis=0)) for part in (w, joint - log_ratio)]
    return Score(log_ratio, np.sqrt(np.square(relative).sum(axis=0)), np.minimum(*effective))


def _checked(vae: VAE, x: Any, observed: Any, seed: int) -> tuple[np.ndarray, np.ndarray]:
    check_seed("seed", seed)
    if vae.image_shape is None:
        raise UserError("Expected a model that was trained, or built with build((None, 28, 28, 1)). Received neither.")
    x = np.asarray(x, np.float32)
    if x.ndim != 1 + len(vae.image_shape) or x.shape[1:] != vae.image_shape or len(x) == 0:
        raise UserError(f"Expected at least one image, x of shape (B, *{vae.image_shape}). Received {x.shape}.")
    if isinstance(observed, str):
        observed = masks.named(observed, vae.image_shape, seed)
    mask = masks.check(observed, x.shape)
    if not ((x >= 0) & (x <= 1))[mask].all():
        raise UserError("Expected observed pixels in [0, 1]. Received others, or NaN. Divide uint8 images by 255.")
    vae.check_pixels(np.where(mask, x, 0))
    return x, mask


def _start(value: Any, count: int, latent_dim: int) -> np.ndarray:
    value = np.asarray(value, np.float32)
    if value.shape not in ((latent_dim,), (count, latent_dim)) or not np.isfinite(value).all():
        raise UserError(
            f"Expected start=(mean, log_sigma), each of shape ({latent_dim},) or ({count}, {latent_dim}) and finite. "
            f"Received {value.shape}."
        )
    return np.broadcast_to(value, (count, latent_dim))


def _batches(count: int) -> Iterator[slice]:
    for first in range(0, count, BATCH):
        yield slice(first, min(first + BATCH, count))


def _places(batch: slice) -> np.ndarray:
    return np.arange(batch.start, batch.stop, dtype=np.int32)


def _masked_sum(log_prob: tf.Tensor, mask: Any) -> tf.Tensor:
    """Nats of the pixels where `mask` `[B, *image]` is True; log_prob `[B, *image]` or `[K, B, *image]`."""
    mask = tf.convert_to_tensor(mask)
    return objectives.sum_event(tf.where(mask, log_prob, tf.zeros_like(log_prob)), mask.shape.rank - 1)


def _start_graph(vae: VAE) -> Any:
    """The graph that picks the most probable z among draws of the prior and the encoder's guess, `[B, D]`."""

    def best_start(x: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        candidates = noise.normal((vae.latent_dim,), seed, START, tf.range(CANDIDATES))
        decoded = (vae.decode(candidates), vae.log_prior(candidates))
        # One candidate at a time, so that memory does not grow with their number.
        values = tf.map_fn(
            lambda one: _masked_sum(vae.likelihood(x, tf.broadcast_to(one[0], tf.shape(x))), mask) + one[1],
            decoded,
            fn_output_signature=tf.float32,
        )
        mean, _ = vae.encode(x)
        guess = vae.joint_log_density(x, mean, mask)
        best = tf.gather(candidates, tf.argmax(values, axis=0))
        return tf.where((guess > tf.reduce_max(values, axis=0))[:, None], mean, best)

    return vae.graph("best start of inference", best_start)


def _fit_graph(vae: VAE, steps: int, samples: int, optimizer: str) -> Any:
    """The graph that takes all the steps: (x, mask, mean, log_sigma, place) -> (mean, log_var, losses [S, B])."""

    def loss_and_gradients(x: Any, mask: Any, parameters: Any, place: Any, step: Any, seed: Any) -> tuple[Any, Any]:
        draw = noise.normal((samples, vae.latent_dim), seed, STEPS, place, step)
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            mean, log_sigma = tf.unstack(parameters)
            z = distributions.reparameterize(mean, 2 * log_sigma, tf.transpose(draw, [1, 0, 2]))
            log_q = vae.log_q(z, tf.stop_gradient(mean), 2 * tf.stop_gradient(log_sigma))
            losses = tf.reduce_mean(log_q - vae.joint_log_density(x, z, mask), axis=0)
        return losses, tape.gradient(losses, parameters)

    def fit(
        x: Any, mask: Any, mean: Any, log_sigma: Any, place: Any, learning_rate: Any, seed: Any
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        parameters = tf.stack([mean, log_sigma])
        first, second = tf.zeros_like(parameters), tf.zeros_like(parameters)
        record = tf.TensorArray(tf.float32, steps)
        for step in tf.range(steps):
            losses, gradients = loss_and_gradients(x, mask, parameters, place, step, seed)
            record = record.write(step, losses)
            if optimizer == "adam":  # Kingma and Ba (2015), algorithm 1
                count = tf.cast(step + 1, tf.float32)
                first = 0.9 * first + 0.1 * gradients
                second = 0.999 * second + 0.001 * tf.square(gradients)
                rate = 0.5 * learning_rate * (1 + tf.cos(math.pi * (count - 1) / steps))
                direction = first / (1 - 0.9**count) / (tf.sqrt(second / (1 - 0.999**count)) + 1e-8)
                parameters -= rate * direction
            else:
                parameters -= learning_rate * gradients
        return parameters[0], 2 * parameters[1], record.stack()

    return vae.graph(("inference", steps, samples, optimizer), fit)


def _converged(losses: np.ndarray) -> np.ndarray:
    quarter = max(1, len(losses) // 4)
    last, before = losses[-quarter:].mean(axis=0), losses[-2 * quarter : -quarter].mean(axis=0)
    if len(losses) < 2:
        return np.zeros(losses.shape[1], bool)
    return np.isfinite(last) & (np.abs(last - before) <= TOLERANCE)


def _draws(vae: VAE, q: tuple[Any, Any], place: np.ndarray, count: int, from_q: int, key: tuple) -> Iterator[tf.Tensor]:
    """`count` draws of z an image, some at a time, `[k, B, D]`: the first `from_q` of q, what follows of the prior."""
    size = max(1, CHUNK // len(place))
    for start in range(0, count, size):
        number = np.arange(start, min(start + size, count), dtype=np.int32)
        keys = (np.tile(place, len(number)), np.repeat(number, len(place)))
        draw = tf.reshape(noise.normal((vae.latent_dim,), *key, *keys), [len(number), len(place), vae.latent_dim])
        yield tf.where((number < from_q)[:, None, None], distributions.reparameterize(q[0], q[1], draw), draw)


def _predict(
    vae: VAE,
    truth: np.ndarray,
    sees: np.ndarray,
    mask: np.ndarray,
    q: tuple[np.ndarray, np.ndarray],
    place: np.ndarray,
    draws: int,
    samples: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, Score]:
    """Means `[B, *image]`, draws `[n, B, *image]` and the score of one batch.

    The proposal is a mixture of q and, for a tenth, the prior. q alone has tails that are too light and may miss a
    mode, and then the weights have no variance; with the mixture no weight exceeds 10 p(x_observed|z). Hesterberg,
    "Weighted average importance sampling and defensive mixture distributions" (1995).
    """
    prior = min(max(1, round(PRIOR_SHARE * samples)), samples - 1)
    log_shares = np.log([1 - prior / samples, prior / samples])
    log_weights, log_densities, points = [], [], []
    highest = np.full(len(place), -np.inf)
    total = np.zeros(len(place))
    weighted = np.zeros(truth.shape, np.float64)
    for z in _draws(vae, q, place, samples, samples - prior, (seed, PROPOSAL)):
        logits = vae.decode(z)
        log_prob = vae.likelihood(truth, logits)
        log_prior = vae.log_prior(z).numpy()
        log_proposal = np.logaddexp(log_shares[0] + vae.log_q(z, *q).numpy(), log_shares[1] + log_prior)
        log_w = (_masked_sum(log_prob, mask).numpy() + log_prior - log_proposal).astype(np.float64)
        # A running maximum keeps the weights of the mean in range without a second pass over the draws.
        higher = np.maximum(highest, log_w.max(axis=0))
        w, faded = np.exp(log_w - higher), np.exp(highest - higher)
        total, highest = total * faded + w.sum(axis=0), higher
        weighted *= faded.reshape(-1, *[1] * (truth.ndim - 1))
        weighted += np.einsum("kb,kb...->b...", w, vae.likelihood.means(logits).numpy())
        log_weights.append(log_w)
        log_densities.append(_masked_sum(log_prob, ~mask).numpy().astype(np.float64))
        points.append(z.numpy())
    log_w = np.concatenate(log_weights)
    means = np.where(mask, sees, weighted / total.reshape(-1, *[1] * (truth.ndim - 1))).astype(np.float32)
    chosen = _resampled(log_w, np.concatenate(points), draws, (seed, RESAMPLING, place))
    logits = vae.decode(chosen)
    pixels = [vae.likelihood.sample(logits[n], (seed, PIXELS, place, n)).numpy() for n in range(draws)]
    completions = np.where(mask, sees, np.stack(pixels)).astype(np.float32)
    return means, completions, importance_estimate(log_w, np.concatenate(log_densities))


def _resampled(log_weights: np.ndarray, points: np.ndarray, count: int, key: tuple) -> np.ndarray:
    """`count` of the draws an image, each with the probability of its weight: `[K, B, D]` -> `[count, B, D]`."""
    probability = np.exp(log_weights - np.logaddexp.reduce(log_weights, axis=0))
    ladder = np.cumsum(probability, axis=0)
    uniform = noise.uniform((count,), *key).numpy()  # [B, count]
    picks = [np.searchsorted(ladder[:, b] / ladder[-1, b], uniform[b], side="right") for b in range(len(uniform))]
    index = np.minimum(np.stack(picks, axis=1), len(points) - 1)  # [count, B]
    return points[index, np.arange(points.shape[1])]
