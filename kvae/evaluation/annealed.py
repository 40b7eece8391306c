"""log p(x) by annealed importance sampling, and its bounds from both sides for images that the model itself draws."""

import math
from collections.abc import Sequence
from itertools import pairwise
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from kvae.evaluation.estimate import Estimate
from kvae.evaluation.importance_weighted import CACHED, monte_carlo_error
from kvae.evaluation.over_batches import Keep, over_batches
from kvae.internal.errors import UserError, check_list, check_seed, check_whole
from kvae.internal.tensorflow import tf
from kvae.internal.visible import shown
from kvae.model import sampling
from kvae.model.compiled_functions import compiled
from kvae.model.vae import VAE
from kvae.noise.keyed import Keyed, Numbered
from kvae.noise.streams import Stream

STEEPNESS = 4.0  # of the sigmoidal schedule of temperatures
WARM_UP_CHAINS = 4  # which adapt the step sizes of an image
ACCEPTANCE = 0.65  # the mean acceptance probability to which they adapt them
GAIN = 0.5  # change of a log step size after a transition, per unit by which the acceptance differs
SETTLING = 50  # transitions of the warm-up at the first temperature, before it goes through all of them
JITTER = 0.2  # share by which the step size of a transition varies, so that no trajectory is periodic

WARM_UP, FORWARD, BACKWARD, SIMULATION = range(4)  # passes, whose random numbers are independent


class Annealed(NamedTuple):
    """The estimate of log p(x) of each image in nats, and how reliable it is."""

    ais: Estimate  # [N] nats, a stochastic lower bound
    ais_effective_chains: Estimate  # [N]  (sum w)^2 / sum w^2, between 1 and the number of chains; no nats
    ais_acceptance: Estimate  # [N] the mean probability with which a transition was accepted; no nats
    ais_monte_carlo_error: float  # of the mean of `ais`, from the random numbers alone, in nats
    ais_rates: list[Estimate]  # one for each beta, each [N] nats: KL(p_beta(z|x) || p(z))
    ais_distortions: list[Estimate]  # one for each beta, each [N] nats: -E[log p(x|z)] under p_beta(z|x)


def ais(
    vae: VAE,
    data: Any,
    *,
    images: int = 300,
    temperatures: int = 600,
    chains: int = 16,
    leapfrog_steps: int = 3,
    betas: Sequence[float] = (0.01, 0.03, 0.1, 0.3, 1.0),
    seed: int = 0,
    verbose: int = 0,
    keep: Keep = None,
) -> Annealed:
    """log p(x) by annealed importance sampling with Hamiltonian transitions, in nats per image.

    Neal, "Annealed importance sampling" (2001); Wu, Burda, Salakhutdinov and Grosse, "On the quantitative analysis of
    decoder-based generative models" (2017). Each chain starts with z_0 ~ p(z) and goes through the temperatures
    beta_1 < ... < beta_T = 1 of their sigmoidal schedule. z_t is the result of a transition that leaves
    p(z) p(x|z)^beta_t invariant, a Hamiltonian trajectory that is accepted or rejected, and the weight of the chain is

        log w = sum_t (beta_t - beta_(t-1)) log p(x|z_(t-1)),    E[w] = p(x)

    The result is log 1/K sum_k w_k, whose expectation is at most log p(x). It needs no q(z|x), so it does not share the
    faults of the encoder. The step size for each temperature and image is adapted in a pass of 4 other chains, to an
    acceptance of 0.65. It is fixed in the pass that measures: otherwise w would not be unbiased.

    On its way it finds the rate-distortion curve of the decoder and the prior; Huang, Makhzani, Cao and Grosse,
    "Evaluating lossy compression rates of deep generative models" (2020), section 4. At each beta, chains with the
    weights w_beta are draws of p_beta(z|x) = p(z) p(x|z)^beta / Z_beta, and

        distortion = -E[log p(x|z)],    rate = KL(p_beta(z|x) || p(z)) = -beta * distortion - log Z_beta

    The mean of w_beta estimates Z_beta, so the rate is rather too large than too small. At beta = 1, rate + distortion
    is -log p(x). No encoder has both a smaller rate and a smaller distortion in the mean over the images.

    The cost is about (chains + 4) * temperatures * leapfrog_steps gradients of log p(x|z) per image.

    Args:
        vae: a built model.
        data: a `tf.data.Dataset` of batches x, or an array `[N, *image]`. For a conditional model, batches (x, y) or
            the arrays (x, y).
        images: the largest number of images: the first ones of the set. 300 by default, because each takes seconds.
        temperatures: the number of temperatures, T, at least 2.
        chains: the number of chains per image, K, at least 2.
        leapfrog_steps: the number of steps of a trajectory, at least 1.
        betas: where rate and distortion are measured: increasing numbers, larger than 0 and at most 1. They need not be
            temperatures of the schedule, and cost nothing.
        seed: the seed of all random numbers. Those of a chain depend on the seed, the index of the image and the number
            of the chain, not on batches and chunks. These change an image by rounding alone, which for some images
            decides whether a transition is accepted, and so changes them by a part of their Monte-Carlo error.
        verbose: 1 for a bar that counts batches, 2 for a line every ten seconds. 0 by default.
        keep: a folder for the results of batches, with which the same call continues after an interruption
            (`kvae.evaluation.over_batches`). By default none are kept.

    Raises:
        UserError: if an argument is not valid, if there are no data, or if the images have another shape than the
            model's.
    """
    settings = _Settings.checked(temperatures, chains, leapfrog_steps, seed)
    betas = _checked_betas(betas)

    def compute(x: tf.Tensor, condition: Any, index: tf.Tensor) -> list[np.ndarray]:
        part = Images(x, condition, index, tf.constant(seed))
        weights = settings.forward(vae, part, settings.path(vae, part), betas)
        curve = [_rate_and_distortion(beta, *weights.tempered[number]) for number, beta in enumerate(betas)]
        return [weights.log_weights, weights.acceptance, np.reshape(curve, [len(betas), 2, len(index)])]

    log_weights, acceptance, curve = over_batches(
        compute,
        vae,
        data,
        "log p(x) by annealing",
        [*settings, betas],
        size=settings.images_at_once(vae),
        images=images,
        verbose=verbose,
        keep=keep,
    )
    inverse = np.exp(_log_sum(2 * log_weights) - 2 * _log_sum(log_weights))  # of the effective number of chains
    return Annealed(
        Estimate(_log_mean(log_weights)),
        Estimate(1 / inverse),
        Estimate(acceptance),
        monte_carlo_error(inverse, chains),
        *[[Estimate(of_beta) for of_beta in curve[:, which]] for which in range(2)],
    )


def _checked_betas(betas: Sequence[float]) -> list[float]:
    asked = check_list("betas", betas)
    if all(isinstance(beta, Real) for beta in asked) and all(a < b for a, b in pairwise([0, *asked, 1 + 1e-9])):
        return [float(beta) for beta in asked]
    raise UserError(f"Expected betas to be increasing numbers, larger than 0 and at most 1. Received {shown(betas)}.")


def _rate_and_distortion(beta: float, log_weights: np.ndarray, log_likelihoods: np.ndarray) -> list[np.ndarray]:
    """Both in nats, each `[B]`, from chains with the weights of p_beta(z|x), each `[K, B]`."""
    shares = np.exp(log_weights - _log_sum(log_weights))
    distortion = -np.sum(shares * log_likelihoods, axis=0)
    return [-beta * distortion - _log_mean(log_weights), distortion]


class Sandwich(NamedTuple):
    """Bounds of log p(x) of each simulated image from both sides, in nats."""

    bdmc_lower: Estimate  # [N] nats, a stochastic lower bound
    bdmc_upper: Estimate  # [N] nats, a stochastic upper bound
    bdmc_gap: Estimate  # [N] nats, their difference
    bdmc_acceptance: Estimate  # [N] the mean probability with which a transition was accepted; no nats


def bdmc(
    vae: VAE,
    data: Any,
    *,
    images: int = 100,
    temperatures: int = 600,
    chains: int = 16,
    leapfrog_steps: int = 3,
    seed: int = 0,
    verbose: int = 0,
    keep: Keep = None,
) -> Sandwich:
    """The sandwich of log p(x) by bidirectional Monte Carlo, in nats per image, on images that the model draws.

    Grosse, Ghahramani and Adams, "Sandwiching the marginal likelihood using bidirectional Monte Carlo" (2015). For an
    image that was drawn as z ~ p(z), x ~ p(x|z), this z is an exact draw of p(z|x). Chains that start there and go
    backward through the temperatures of `ais` have weights with E[1 / w] = 1 / p(x), so that -log 1/K sum_k 1 / w_k is
    in expectation an upper bound of log p(x), and `ais` a lower one. Their gap bounds the error of both. It says
    whether the settings of `ais` suffice for this model; images that the model does not draw, such as those of a test
    set, may need more, and no upper bound of theirs is known.

    Args:
        vae: a built model.
        data: as in `ais`, but only its number of images and their conditions are used.
        images: the largest number of images to simulate: one for each of the first images of `data`. 100 by default.
        temperatures: as in `ais`, as are the arguments after it. The cost per image is twice that of `ais`.

    Raises:
        UserError: as `ais`.
    """
    settings = _Settings.checked(temperatures, chains, leapfrog_steps, seed)

    def compute(x: tf.Tensor, condition: Any, index: tf.Tensor) -> list[np.ndarray]:
        z, simulated = _simulate(vae, Images(x, condition, index, tf.constant(seed)))
        path = settings.path(vae, simulated)
        forward = settings.forward(vae, simulated, path)
        backward = settings.backward(vae, simulated, path, z)
        lower, upper = _log_mean(forward.log_weights), -_log_mean(-backward.log_weights)
        return [lower, upper, upper - lower, (forward.acceptance + backward.acceptance) / 2]

    parts = over_batches(
        compute,
        vae,
        data,
        "log p(x) of simulated images from both sides",
        settings,
        size=settings.images_at_once(vae),
        images=images,
        verbose=verbose,
        keep=keep,
    )
    return Sandwich(*map(Estimate, parts))


def schedule(temperatures: int) -> np.ndarray:
    """beta_0 = 0, ..., beta_T = 1, `[T + 1]`: equal steps of the logistic function, scaled; Wu et al., section 4.2."""
    values = 1 / (1 + np.exp(-np.linspace(-STEEPNESS, STEEPNESS, temperatures + 1)))
    return (values - values[0]) / (values[-1] - values[0])


def _log_sum(log_weights: np.ndarray) -> np.ndarray:
    return np.logaddexp.reduce(log_weights, axis=0)


def _log_mean(log_weights: np.ndarray) -> np.ndarray:
    return _log_sum(log_weights) - math.log(len(log_weights))


class Images(NamedTuple):
    """Some images, and what the random numbers of their chains depend on."""

    x: tf.Tensor  # [B, *image]
    condition: Any  # [B, ...] or None
    index: tf.Tensor  # [B] their indices in the set
    seed: tf.Tensor  # []

    def noise(self, which: Any, step: Any, chains: tf.Tensor) -> Numbered:
        """The noise of one step of the chains with these numbers, `[K]`, in a pass."""
        return Keyed(self.seed, Stream.ANNEALING, which, step, self.index).numbered(chains)


class Path(NamedTuple):
    """The T - 1 transitions of a pass in their order, and the T factors of the log likelihoods between them."""

    betas: tf.Tensor  # [T - 1] float32
    increments: tf.Tensor  # [T] float64
    step_sizes: tf.Tensor  # [T - 1, B]

    def reversed(self) -> "Path":
        return Path(*[part[::-1] for part in self])


class Weights(NamedTuple):
    """The result of a pass."""

    log_weights: np.ndarray  # [K, B] nats
    acceptance: np.ndarray  # [B] mean over chains and transitions
    tempered: np.ndarray  # [number of betas, 2, K, B]: log weights of p_beta(z|x), and log p(x|z), in nats


class _Settings(NamedTuple):
    temperatures: int
    chains: int
    leapfrog_steps: int
    seed: int

    @classmethod
    def checked(cls, temperatures: int, chains: int, leapfrog_steps: int, seed: int) -> "_Settings":
        check_whole("temperatures", temperatures, least=2)
        check_whole("chains", chains, least=2)
        check_whole("leapfrog_steps", leapfrog_steps)
        return cls(temperatures, chains, leapfrog_steps, check_seed("seed", seed))

    def images_at_once(self, vae: VAE) -> int:
        """The number of images whose chains are computed at once."""
        return max(_pairs_at_once(vae) // self.chains, 1)

    def path(self, vae: VAE, images: Images) -> Path:
        """The forward path, with the step sizes of the warm-up."""
        betas = schedule(self.temperatures)
        inner = tf.constant(betas[1:-1], tf.float32)
        return Path(inner, tf.constant(np.diff(betas)), _step_sizes(vae, images, inner, self.leapfrog_steps))

    def forward(self, vae: VAE, images: Images, path: Path, betas: Sequence[float] = ()) -> Weights:
        return self._weights(vae, images, path, FORWARD, betas=betas)

    def backward(self, vae: VAE, images: Images, path: Path, z: tf.Tensor) -> Weights:
        """The weights of chains that start with the draw z of p(z|x), `[B, D]`."""
        return self._weights(vae, images, path.reversed(), BACKWARD, z)

    def _weights(
        self, vae: VAE, images: Images, path: Path, which: int, z: Any = None, betas: Sequence[float] = ()
    ) -> Weights:
        # z_1, ..., z_(T-1) have the weights of beta_2, ..., beta_T. Each beta takes the nearest of them.
        temperatures = np.cumsum(path.increments.numpy())[1:]
        nearest = [int(np.abs(temperatures - beta).argmin()) for beta in [*betas, 1.0]]
        places, place_of = np.unique(nearest, return_inverse=True)
        distances = np.array([*betas, 1.0]) - temperatures[nearest]
        at_once, parts, accepted = _pairs_at_once(vae), [], np.zeros(len(images.x))
        for first in range(0, self.chains, at_once):
            count = min(at_once, self.chains - first)
            numbers = tf.constant([which, first])
            found, acceptance = _anneal(
                vae, images, path, numbers, tf.constant(places, tf.int32), count, z, self.leapfrog_steps
            )
            parts.append(found.numpy())
            accepted = accepted + acceptance.numpy().sum(axis=0, dtype=np.float64)
        log_weights, log_likelihoods = np.moveaxis(np.concatenate(parts, axis=2)[place_of], 1, 0)
        log_weights = log_weights + distances[:, None, None] * log_likelihoods
        tempered = np.stack([log_weights[:-1], log_likelihoods[:-1]], axis=1)
        return Weights(log_weights[-1], accepted / self.chains, tempered)


def _pairs_at_once(vae: VAE) -> int:
    """The number of pairs of a chain and an image that are computed at once."""
    return max(sampling.images_at_once(vae) // CACHED, 1)


@compiled
def _simulate(vae: VAE, images: Images) -> tuple[tf.Tensor, Images]:
    """z ~ p(z), `[B, D]`, and x ~ p(x|z) in place of the images."""
    noise = Keyed(images.seed, Stream.ANNEALING, SIMULATION, images.index)
    z = vae.prior.sample(noise, images.condition)
    return z, images._replace(x=vae.likelihood.unclipped_sample(vae.decode(z, images.condition), noise))


class _Point(NamedTuple):
    """A point of the latent space for each chain and image, with the log densities there and their gradients."""

    z: tf.Tensor  # [K, B, D]
    log_likelihood: tf.Tensor  # [K, B] nats
    log_prior: tf.Tensor  # [K, B] nats
    likelihood_gradient: tf.Tensor  # [K, B, D]
    prior_gradient: tf.Tensor  # [K, B, D]

    @classmethod
    def at(cls, vae: VAE, images: Images, z: tf.Tensor) -> "_Point":
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(z)
            terms = [vae.log_likelihood(images.x, z, condition=images.condition), vae.log_prior(z, images.condition)]
        return cls(z, *terms, *[tape.gradient(term, z, unconnected_gradients="zero") for term in terms])

    def log_density(self, beta: tf.Tensor) -> tf.Tensor:
        """log p(z) p(x|z)^beta, `[K, B]`."""
        return self.log_prior + beta * self.log_likelihood

    def gradient(self, beta: tf.Tensor) -> tf.Tensor:
        """The gradient of `log_density` with respect to z, `[K, B, D]`."""
        return self.prior_gradient + beta * self.likelihood_gradient


def _draws_of_prior(vae: VAE, images: Images, which: Any, chains: tf.Tensor) -> tf.Tensor:
    """z ~ p(z) of each chain and image, `[K, B, D]`."""
    count, size = chains.shape[0], tf.shape(images.index)[0]
    noise = Keyed(images.seed, Stream.ANNEALING, which, 0, tf.tile(images.index, [count]), tf.repeat(chains, size))
    condition = images.condition
    if condition is not None:
        condition = tf.tile(condition, [count, *[1] * (condition.shape.rank - 1)])
    return tf.reshape(vae.prior.sample(noise, condition), [count, size, vae.latent_dim])


def _transition(
    vae: VAE, images: Images, point: _Point, beta: tf.Tensor, step_size: tf.Tensor, noise: Numbered, leapfrog_steps: int
) -> tuple[_Point, tf.Tensor]:
    """A transition that leaves p(z) p(x|z)^beta invariant; Neal, "MCMC using Hamiltonian dynamics" (2011), section 3.

    Args:
        vae: the model.
        images: B images.
        point: where the chains are.
        beta: the temperature.
        step_size: the step size of each image, `[B]`.
        noise: the noise of this transition of the K chains.
        leapfrog_steps: the number of steps.

    Returns:
        Where the chains are next, and the acceptance probabilities, `[K, B]`.
    """
    chains = point.z.shape[0]
    momentum = tf.transpose(noise.normal((chains, vae.latent_dim), Stream.LATENT), [1, 0, 2])
    varied, threshold = tf.unstack(tf.transpose(noise.uniform((chains, 2), Stream.CHOICE), [2, 1, 0]))
    step = (step_size * (1.0 + JITTER * (2.0 * varied - 1.0)))[..., None]

    def leap(number: tf.Tensor, now: _Point, momentum: tf.Tensor) -> tuple[tf.Tensor, _Point, tf.Tensor]:
        momentum += step / 2.0 * now.gradient(beta)
        now = _Point.at(vae, images, now.z + step * momentum)
        return number + 1, now, momentum + step / 2.0 * now.gradient(beta)

    loop = (tf.constant(0), point, momentum)
    _, end, final_momentum = tf.while_loop(
        lambda number, *_: number < leapfrog_steps, leap, loop, parallel_iterations=1
    )
    kinetic, final_kinetic = (tf.reduce_sum(tf.square(each), axis=-1) / 2.0 for each in (momentum, final_momentum))
    log_ratio = end.log_density(beta) - final_kinetic - (point.log_density(beta) - kinetic)
    # A trajectory that left the range of float32 is rejected.
    probability = tf.where(tf.math.is_nan(log_ratio), 0.0, tf.exp(tf.minimum(log_ratio, 0.0)))
    accepted = threshold < probability
    chosen = [
        tf.where(accepted if new.shape.rank == 2 else accepted[..., None], new, old)
        for new, old in zip(end, point, strict=True)
    ]
    return _Point(*chosen), probability


@compiled
def _step_sizes(vae: VAE, images: Images, betas: tf.Tensor, leapfrog_steps: int) -> tf.Tensor:
    """The step size for each temperature and image, from the chains of the warm-up, `[T - 1, B]`."""
    chains, transitions = tf.range(WARM_UP_CHAINS), tf.shape(betas)[0]

    def step(number: tf.Tensor, point: _Point, log_step: tf.Tensor, found: tf.TensorArray) -> tuple[Any, ...]:
        place, noise = tf.maximum(number - SETTLING, 0), images.noise(WARM_UP, number + 1, chains)
        point, probability = _transition(vae, images, point, betas[place], tf.exp(log_step), noise, leapfrog_steps)
        log_step += GAIN * (tf.reduce_mean(probability, axis=0) - ACCEPTANCE)
        return number + 1, point, log_step, found.write(place, tf.exp(log_step))

    nothing = tf.TensorArray(tf.float32, transitions, clear_after_read=False, element_shape=images.index.shape)
    start = _Point.at(vae, images, _draws_of_prior(vae, images, WARM_UP, chains))
    loop = (tf.constant(0), start, tf.zeros_like(images.index, tf.float32), nothing)
    end = tf.while_loop(lambda number, *_: number < SETTLING + transitions, step, loop, parallel_iterations=1)
    return end[-1].stack()


@compiled
def _anneal(
    vae: VAE,
    images: Images,
    path: Path,
    numbers: tf.Tensor,
    places: tf.Tensor,
    count: int,
    z: tf.Tensor | None,
    leapfrog_steps: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Anneals some chains.

    Args:
        vae: the model.
        images: B images.
        path: the transitions.
        numbers: the number of the pass and that of the first chain, `[2]`.
        places: the transitions whose results are asked for, counted from 0, increasing up to the last one, `[S]`.
        count: the number of chains, K.
        z: where all chains of an image start, `[B, D]`, or None for draws of the prior.
        leapfrog_steps: the number of steps of a trajectory.

    Returns:
        The log weights and log p(x|z) of the chains after these transitions and the factors that follow them,
        `[S, 2, K, B]` in float64, and their mean acceptance, `[K, B]`.
    """
    which, first = tf.unstack(numbers)
    chains, transitions, wanted = first + tf.range(count), tf.shape(path.betas)[0], tf.shape(places)[0]
    z = _draws_of_prior(vae, images, which, chains) if z is None else tf.tile(z[None], [count, 1, 1])
    point = _Point.at(vae, images, z)

    def step(number: tf.Tensor, point: _Point, total: tf.Tensor, accepted: tf.Tensor, found: Any) -> tuple[Any, ...]:
        noise = images.noise(which, number + 1, chains)
        beta, step_size = path.betas[number], path.step_sizes[number]
        point, probability = _transition(vae, images, point, beta, step_size, noise, leapfrog_steps)
        log_likelihood = tf.cast(point.log_likelihood, tf.float64)
        total += path.increments[number + 1] * log_likelihood
        # Each transition replaces what the one before wrote into the next place, until that is reached.
        for_place = tf.math.count_nonzero(places < number, dtype=tf.int32)
        found = found.write(for_place, tf.stack([total, log_likelihood]))
        return number + 1, point, total, accepted + probability, found

    total = path.increments[0] * tf.cast(point.log_likelihood, tf.float64)
    nothing = tf.TensorArray(tf.float64, wanted, clear_after_read=False, element_shape=[2, *total.shape])
    loop = (tf.constant(0), point, total, tf.zeros_like(point.log_likelihood), nothing)
    end = tf.while_loop(lambda number, *_: number < transitions, step, loop, parallel_iterations=1)
    return end[4].stack(), end[3] / tf.cast(transitions, tf.float32)
