"""The model: an encoder, a posterior, a prior, a decoder and a likelihood, composed; and an objective that trains them.

Two methods compose the parts, and whatever kvae computes of a model goes through them: `log_joint`, log p(x, z), and
`draw`, z ~ q(z|x) with all densities. Keras's steps come next, then what a user asks of a trained model. How the parts
are put together, checked and saved stands in `kvae.model.assembly`; how batches reach the steps, in
`kvae.model.fast_fit`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from kvae.internal.errors import UserError, check_seed, check_whole
from kvae.internal.tensorflow import keras, tf
from kvae.model import likelihoods, networks, objectives, posteriors, priors
from kvae.model.assembly import Assembly
from kvae.model.compiled import compiled
from kvae.model.fast_fit import returns_metrics
from kvae.model.objectives import Draws
from kvae.model.posteriors import Distribution
from kvae.noise import portable
from kvae.noise.keyed import TENSORFLOW, Keyed, Noise
from kvae.noise.portable import Portable
from kvae.noise.streams import Stream

METRICS = ("loss", "elbo", "reconstruction", "kl")


@keras.saving.register_keras_serializable("kvae")
class VAE(Assembly):
    """A variational autoencoder that trains with Keras `fit`.

    By default it maximises E_q(z|x)[log p(x|z)] - beta KL(q(z|x) || p(z)) with p(z) = N(0, I): Kingma and Welling,
    "Auto-Encoding Variational Bayes" (2014), equation 3; Higgins et al., "beta-VAE" (2017), equation 4. `fit` and
    `evaluate` show `loss`, `elbo` (always with beta = 1), `reconstruction` and `kl`, in nats per image. A callback that
    monitors `val_elbo` needs `mode="max"`: Keras cannot know that higher is better.

    `VAE(latent_dim, ...)` makes a multilayer perceptron for images of any shape when it first sees data. Pass
    `encoder=` (and `decoder=`, or leave it to be mirrored) for another network of kvae or one of your own.

    Args:
        latent_dim: D, 2 by default. Not together with `encoder`.
        hidden_units: widths of the encoder's hidden layers, (500,) by default; the decoder mirrors them. Not
            together with `encoder`.
        activation: of the hidden layers, tanh by default. Not together with `encoder`.
        encoder: a Keras model `x [B, *image] ->` what the posterior needs: mean and log variance, each `[B, D]`, for a
            diagonal Gaussian.
        decoder: a Keras model `z [B, D] ->` what the likelihood needs: logits `[B, *image]` for a Bernoulli, no sigmoid
            at its end. By default the encoder's `mirror`.
        output_bias: what a mirrored decoder's output bias starts at; see `kvae.networks.logit_of_mean`.
        likelihood: p(x|z), a name in `kvae.likelihoods.LIKELIHOODS` or a `kvae.likelihoods.Likelihood`.
        prior: p(z), a name in `kvae.priors.PRIORS` or a `kvae.priors.Prior`.
        posterior: the family of q(z|x), a name in `kvae.posteriors.POSTERIORS` or a `kvae.posteriors.Posterior`.
        objective: what training minimises, a name in `kvae.objectives.OBJECTIVES` or a `kvae.objectives.Objective`.
        beta: short for `objective=ELBO(beta, samples, kl)`, as the next two: weight of the KL term, a number of at
            least 0 or a schedule such as `kvae.objectives.LinearWarmup`. 1 by default.
        samples: K, latent draws per image. 1 by default.
        kl: `"analytic"`, the default, or `"sampled"` for log q(z|x) - log p(z) at the draws.
        condition_shape: for a model with a second input, the shape of the condition of one image, () for a label. `fit`
            and `evaluate` take it as y, and the networks whose `call` has the keyword `condition` get it, float32.
        seed: of the initial weights (of an `encoder` or `decoder` of yours: their own business), of the order of
            arrays in `fit`, and of all draws while training; drawn from Python's `random` by default, so that
            `keras.utils.set_random_seed` fixes it.

    Raises:
        UserError: a ValueError that says which argument cannot be and what was expected.
    """

    def __init__(
        self,
        latent_dim: int | None = None,
        *,
        hidden_units: Any = None,
        activation: Any = None,
        encoder: keras.Model | None = None,
        decoder: keras.Model | None = None,
        output_bias: Any = None,
        likelihood: str | likelihoods.Likelihood = "bernoulli",
        prior: str | priors.Prior = "standard_normal",
        posterior: str | posteriors.Posterior = "diagonal_gaussian",
        objective: str | objectives.Objective | None = None,
        beta: Any = None,
        samples: int | None = None,
        kl: str | None = None,
        condition_shape: tuple[int, ...] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if encoder is not None and (latent_dim, hidden_units, activation) != (None, None, None):
            raise UserError("Expected either encoder= or latent_dim=, hidden_units= and activation=. Received both.")
        if decoder is not None and output_bias is not None:
            raise UserError("Expected output_bias= for a mirrored decoder only. Give it to your decoder instead.")
        self.seed = _seed(seed)
        self.encoder = encoder or self._default_encoder(latent_dim, hidden_units, activation)
        self.decoder: Any = decoder
        self.output_bias: Any = None if output_bias is None else np.asarray(output_bias, np.float32)
        self.likelihood = likelihoods.get(likelihood)
        self.prior = priors.get(prior)
        self.posterior = posteriors.get(posterior)
        self.condition_shape: Any = None if condition_shape is None else tuple(condition_shape)
        self.image_shape: Any = None  # a tuple once built
        self.latent_dim: Any = getattr(self.encoder, "latent_dim", None)
        self._means = [keras.metrics.Mean(name=name) for name in METRICS]
        self.objective = _objective(objective, {"beta": beta, "samples": samples, "kl": kl})

    def _default_encoder(self, latent_dim: int | None, hidden_units: Any, activation: Any) -> keras.Model:
        return networks.MLPEncoder(
            2 if latent_dim is None else latent_dim,
            (500,) if hidden_units is None else hidden_units,
            activation or "tanh",
            seed=self.seed,
            dtype=self.dtype_policy,
        )

    # The composition

    def log_joint(
        self, x: Any, z: Any, condition: Any = None, observed: Any = None, *, parameters: Any = None
    ) -> tf.Tensor:
        """log p(x, z) = log p(x|z) + log p(z), nats.

        Args:
            x: `[B, *image]`; where B is 1, the image goes with every z.
            z: `[B, D]` or `[K, B, D]`.
            condition: `[B, ...]`, of a model that has one.
            observed: booleans that broadcast to x, True for the pixels that count; all by default.
            parameters: what `decode` returned for z, where that is known.

        Returns:
            `[B]` or `[K, B]`.

        Raises:
            UserError: another shape, or no condition for a model that has one.
        """
        return tf.add(*self._joint_terms(x, z, condition, observed, parameters))

    def draw(
        self,
        x: Any,
        noise: Noise,
        samples: int = 1,
        condition: Any = None,
        observed: Any = None,
        q: Distribution | None = None,
        *,
        training: bool = False,
    ) -> Draws:
        """K draws z ~ q(z|x) for every image, with the densities that objectives and estimates are made of.

        Args:
            x: `[B, *image]`.
            noise: of B images, asked for `Stream.POSTERIOR`.
            samples: K.
            condition: `[B, ...]`, of a model that has one.
            observed: as in `log_joint`.
            q: to draw from, in place of the encoder's q(z|x).
            training: what the networks' layers are called with. It decides nothing else.
        """
        x, condition = self._check_x(x), self.check_condition(condition)
        q = self._approximate(x, condition, training) if q is None else q
        z, log_q = q.sample_and_log_prob(noise, samples)
        log_likelihood, log_prior = self._joint_terms(x, z, condition, observed, None, training)
        kl = q.kl(self.prior)
        per_dimension = kl if kl is not None and kl.shape.rank == 2 else None
        if kl is None or self.kl == "sampled":
            kl = tf.reduce_mean(log_q - log_prior, axis=0)
        elif per_dimension is not None:
            kl = tf.reduce_sum(per_dimension, axis=-1)
        return Draws(z, log_likelihood, log_prior, log_q, kl, per_dimension, q)

    def _joint_terms(
        self, x: Any, z: Any, condition: Any, observed: Any, parameters: Any, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """log p(x|z) and log p(z), each `[B]` or `[K, B]`."""
        x, z, condition = self._check_x(x), self._check_z(z), self.check_condition(condition)
        if z.shape.rank > 1 and None not in (x.shape[0], z.shape[-2]) and x.shape[0] not in (z.shape[-2], 1):
            raise UserError(f"Expected one z an image, z [..., {x.shape[0]}, D]. Received z {z.shape.as_list()}.")
        if parameters is None:
            parameters = self._decode(z, condition, training)
        return self.likelihood.log_prob(x, parameters, observed), self.prior.log_prob(z, condition)

    def _approximate(self, x: tf.Tensor, condition: Any = None, training: bool = False) -> Distribution:
        """q(z|x)."""
        return self.posterior.distribution(networks.call(self.encoder, x, condition, training))

    def _decode(self, z: tf.Tensor, condition: Any = None, training: bool = False) -> tf.Tensor:
        """Decodes z `[..., B, D]` to `[..., B, *parameters_shape]`; the decoder itself sees `[B, D]`."""
        leading, shape = tf.shape(z)[:-1], self.likelihood.parameters_shape(self.image_shape)
        if condition is not None and z.shape.rank > 2:  # each draw with the condition of its image
            whole = tf.broadcast_to(condition, tf.concat([leading, self.condition_shape], axis=0))
            condition = tf.reshape(whole, [-1, *self.condition_shape])
        emitted = networks.call(self.decoder, tf.reshape(z, [-1, self.latent_dim]), condition, training)
        emitted = tf.reshape(tf.cast(emitted, tf.float32), tf.concat([leading, shape], axis=0))
        return tf.ensure_shape(emitted, [*z.shape[:-1], *shape])

    # Training and evaluation

    @property
    def metrics(self) -> list:
        return [*self._means, *self.further_metrics.values()]

    @returns_metrics
    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        batch = self.batch_of(data)
        with tf.GradientTape(persistent=True) as tape:
            noise = Keyed(self.seed, Stream.TRAINING, self.steps, batch.replica, batch.place)
            draws = self.draw(batch.x, noise, self.samples, batch.condition, training=True)
            losses = self._losses_of(batch.x, draws, self.objective, self.steps)
            loss = [self.optimizer.scale_loss(batch.mean(part)) for part in losses]
        self.apply(tape, loss)
        self.count_step()
        return self._update_metrics(batch.x, draws, losses[-1])

    @returns_metrics
    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        # The noise of an image depends on its place in the set (how many were counted before it), so neither the batch
        # size nor an earlier evaluation changes the result.
        batch = self.batch_of(data, before=self._means[0].count)
        noise = Keyed(self.seed, Stream.EVALUATION, batch.replica, batch.place)
        draws = self.draw(batch.x, noise, self.samples, batch.condition)
        losses = self._losses_of(batch.x, draws, self.objective.at_end(), self.steps)
        return self._update_metrics(batch.x, draws, losses[-1])

    def predict_step(self, data: Any) -> tf.Tensor:
        batch = self.batch_of(data)
        return self(batch.x, batch.condition)

    def call(self, x: tf.Tensor, condition: Any = None, training: bool = False) -> tf.Tensor:
        """E[x|z] decoded at the posterior mean of every image: what `predict` returns, `[B, *image]`."""
        mean = self._approximate(x, condition, training).mean
        return self.likelihood.mean(self._decode(mean, condition, training))

    def compute_output_shape(self, input_shape: Any, *_: Any) -> Any:
        return input_shape

    def _losses_of(
        self, x: tf.Tensor, draws: Draws, objective: objectives.Objective, step: Any
    ) -> tuple[tf.Tensor, ...]:
        """What the objective, this class's hook and the penalties of layers make of every image: one or two `[B]`."""
        loss = objective.loss(draws, step)
        added = [*self.added_losses(x, draws).values(), *self.losses]
        losses = tuple(loss) if isinstance(loss, tuple | list) else (loss,)
        return tuple(tf.add_n([part, *(tf.zeros_like(part) + term for term in added)]) for part in losses)

    def _update_metrics(self, x: tf.Tensor, draws: Draws, losses: tf.Tensor) -> dict[str, tf.Tensor]:
        # One value an image: the mean over an epoch weighs every image alike, also in a ragged last batch.
        for metric, values in zip(self._means, (losses, draws.elbo, draws.reconstruction, draws.kl), strict=True):
            metric.update_state(values)
        if self.further_metrics:
            for name, values in self._further_terms(x, draws).items():
                self.further_metrics[name].update_state(values)
        return self.shared_results()

    # What a user asks of a trained model

    def encode(self, x: Any, condition: Any = None) -> Any:
        """The approximate posterior q(z|x), a `kvae.posteriors.Distribution`.

        Args:
            x: `[B, *image]`.
            condition: `[B, ...]`, of a model that has one.

        Returns:
            By default a `kvae.posteriors.Gaussian`, which is a tuple of its mean and log variance, each `[B, D]`.

        Raises:
            UserError: another shape.
        """
        return self._approximate(self._check_x(x), self.check_condition(condition))

    def decode(self, z: Any, condition: Any = None) -> tf.Tensor:
        """The parameters of p(x|z): logits for a Bernoulli likelihood.

        Args:
            z: `[..., D]`.
            condition: `[B, ...]`, of a model that has one; B is the last axis but one of z.

        Returns:
            `[..., *image]` float32, or `[..., *likelihood.parameters_shape(image)]`.

        Raises:
            UserError: another latent size.
        """
        return self._decode(self._check_z(z), self.check_condition(condition))

    def reconstruct(self, x: Any, seed: int | None = None, condition: Any = None) -> tf.Tensor:
        """E[x|z] at one draw z ~ q(z|x) an image, or at the posterior mean where `seed` is None; `[B, *image]`."""
        q, condition = self.encode(x, condition), self.check_condition(condition)
        if seed is None:
            z = q.mean
        else:
            noise = Keyed(_seed(seed), Stream.RECONSTRUCTION, tf.range(tf.shape(x)[0]))
            z = q.sample_and_log_prob(noise, 1)[0][0]
        return self.likelihood.mean(self._decode(z, condition))

    def sample(self, seeds: Any, condition: Any = None) -> portable.Sample:
        """x ~ p(x|z), z ~ p(z), one image a seed: what the exported decoders draw from the same seeds.

        By `kvae.noise.portable`: image i is a function of seeds[i] alone. With a standard normal prior z is the same
        bit for bit on every runtime, and a pixel of a Bernoulli likelihood differs only where its mean rounds across
        its uniform number, about once in 10^7.

        Args:
            seeds: `[n]` int32; `kvae.noise.portable.seeds(n, seed)` makes those of `generate`.
            condition: `[n, ...]`, of a model that has one.

        Returns:
            images in [0, 1], means and z, float32.

        Raises:
            UserError: no list of int32, or none at all.
        """
        self._check_built()
        seeds, condition, chunk = portable.check_seeds(seeds), self.check_condition(condition), self.images_at_once
        slices = [slice(start, start + chunk) for start in range(0, len(seeds), chunk)]
        drawn = [
            _sample(self, tf.constant(seeds[part]), None if condition is None else condition[part]) for part in slices
        ]
        return portable.Sample(*[tf.concat(part, axis=0) for part in zip(*drawn, strict=True)])

    def sample_graph(
        self, seeds: tf.Tensor, condition: Any = None, prior: priors.Prior | None = None
    ) -> portable.Sample:
        """What `sample` computes for a few seeds `[n]` int32, in operations that LiteRT has built in.

        `prior` may be the model's own, frozen.
        """
        noise = Portable(seeds, TENSORFLOW)
        z = (prior or self.prior).sample(noise, condition)
        parameters = self._decode(z, condition)
        return portable.Sample(self.likelihood.sample(parameters, noise), self.likelihood.mean(parameters), z)

    def sample_prior(self, n: int, seed: int | None = None, condition: Any = None) -> tf.Tensor:
        """n draws z ~ p(z), those from which `generate` makes its images with the same seed; `[n, D]`."""
        self._check_built()
        seeds = tf.constant(portable.seeds(n, _seed(seed)))
        return self.prior.sample(Portable(seeds, TENSORFLOW), self.check_condition(condition))

    def generate(self, n: int, seed: int | None = None, condition: Any = None) -> tf.Tensor:
        """n draws x ~ p(x|z), z ~ p(z).

        Args:
            n: at least 1.
            seed: image i is a function of (seed, i) alone, whatever n is; a fresh draw where it is None.
            condition: `[n, ...]`, of a model that has one.

        Returns:
            `[n, *image]` float32; 0 or 1 for a Bernoulli likelihood.
        """
        return tf.concat(list(self.generate_batches(n, seed, max(1, self.images_at_once), condition)), axis=0)

    def generate_batches(
        self, n: int, seed: int | None = None, batch_size: int = 1000, condition: Any = None
    ) -> Iterator[tf.Tensor]:
        """The images of `generate`, some at a time, so that a million of them need no memory but a batch's.

        Args:
            n: at least 1.
            seed: as in `generate`, which gives the same images.
            batch_size: images a time; the last time fewer.
            condition: `[n, ...]`, of a model that has one.

        Yields:
            `[batch_size, *image]` float32.

        Raises:
            UserError: an n or batch_size below 1, or a model that is not built.
        """
        self._check_built()
        check_whole("batch_size", batch_size)
        seeds, condition = portable.seeds(n, _seed(seed)), self.check_condition(condition)
        slices = (slice(start, start + batch_size) for start in range(0, n, batch_size))
        return (self.sample(seeds[part], None if condition is None else condition[part]).images for part in slices)

    def generate_means(self, n: int, seed: int | None = None, condition: Any = None) -> tf.Tensor:
        """E[x|z] at the same z as `generate` with the same seed: grey pictures, `[n, *image]` float32."""
        self._check_built()
        return self.sample(portable.seeds(n, _seed(seed)), condition).means

    def log_prior(self, z: Any, condition: Any = None) -> tf.Tensor:
        """log p(z), nats; z `[..., D]` -> `[...]`."""
        return self.prior.log_prob(self._check_z(z), self.check_condition(condition))

    def log_likelihood(self, x: Any, z: Any, observed: Any = None, condition: Any = None) -> tf.Tensor:
        """log p(x|z), nats; x `[B, *image]`, z `[B, D]` or `[K, B, D]` -> `[B]` or `[K, B]`.

        With a mask `observed`, booleans that broadcast to x, the sum runs over the pixels where it is True.
        """
        return self._joint_terms(x, z, condition, observed, None)[0]

    def elbo_terms(self, x: Any, seed: int | None = None, condition: Any = None) -> Draws:
        """The draws behind `elbo`, with their `reconstruction` and `kl`, each `[B]`; x `[B, *image]`."""
        x = self._check_x(x)
        noise = Keyed(self.seed, Stream.ELBO_TERMS, _seed(seed), tf.range(tf.shape(x)[0]))
        return self.draw(x, noise, self.samples, condition)

    def elbo(self, x: Any, seed: int | None = None, condition: Any = None) -> tf.Tensor:
        """ELBO of every image with K draws, beta = 1, nats; x `[B, *image]` -> `[B]`."""
        return self.elbo_terms(x, seed, condition).elbo


@compiled
def _sample(vae: VAE, seeds: tf.Tensor, condition: Any) -> portable.Sample:
    return vae.sample_graph(seeds, condition)


def _objective(objective: Any, short: dict[str, Any]) -> objectives.Objective:
    """The objective that the arguments of `VAE` mean."""
    given = {name: value for name, value in short.items() if value is not None}
    if objective is None:
        return objectives.ELBO(**given)
    if given:
        raise UserError(f"Expected either objective= or {', '.join(given)}=, which is short for one. Received both.")
    return objectives.get(objective)


def _seed(seed: Any) -> Any:
    """A seed as an int, drawn from Python's `random` where it is None; within a graph it may be a tensor."""
    if tf.is_tensor(seed):
        return seed
    return random.randrange(2**31) if seed is None else check_seed("seed", seed)
