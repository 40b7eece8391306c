"""The model: it computes with an encoder, a posterior, a prior, a decoder and a likelihood, and trains them.

Only two methods combine these parts, and everything that kvae computes with a model calls them: `log_joint`, which
returns log p(x, z), and `draw`, which returns draws z ~ q(z|x) with all log densities. After them come the training and
test steps of Keras, and then the methods for the user of a trained model. `kvae.model.assembly` puts the parts
together, checks and saves them; `kvae.model.fast_fit` brings the batches to the steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kvae.internal.errors import UserError
from kvae.internal.tensorflow import keras, tf
from kvae.model import conditions, likelihoods, networks, objectives, posteriors, priors, sampling
from kvae.model.assembly import Assembly
from kvae.model.compiling import returns_metrics
from kvae.model.hints import Activation, Array
from kvae.model.image_places import reducible
from kvae.model.keras_privates import clear_losses, metrics_of
from kvae.model.objectives import Draws
from kvae.model.posteriors import Distribution
from kvae.model.sampling import Samples
from kvae.noise import portable
from kvae.noise.keyed import Keyed, Noise
from kvae.noise.streams import Stream

METRICS = ("loss", "elbo", "reconstruction", "kl")


@keras.saving.register_keras_serializable("kvae")
class VAE(Assembly):
    """A variational autoencoder that trains with Keras `fit`.

    By default it maximises E_q(z|x)[log p(x|z)] - beta KL(q(z|x) || p(z)) with p(z) = N(0, I): Kingma and Welling,
    "Auto-Encoding Variational Bayes" (2014), equation 3; Higgins et al., "beta-VAE" (2017), equation 4. `fit` and
    `evaluate` show `loss`, `elbo` (always with beta = 1), `reconstruction` and `kl`, in nats per image. A callback can
    monitor each of them, also as `val_elbo`: `fit` tells the callbacks of Keras in which direction it improves.

    `VAE(latent_dim, ...)` uses multilayer perceptrons, which are built for the image shape of the first data. For other
    networks, pass `encoder=`. An encoder of `kvae.networks` makes the decoder that mirrors it; with any other Keras
    model, pass `decoder=` too.

    Args:
        latent_dim: latent size, D. 2 by default. Not together with `encoder`.
        hidden_units: widths of the hidden layers of the encoder; the decoder has them in reverse order. (500,) by
            default. Not together with `encoder`.
        activation: activation of the hidden layers. `"tanh"` by default. Not together with `encoder`.
        encoder: a Keras model that takes x `[B, *image]` and returns the parameters of q(z|x): for a diagonal Gaussian,
            mean and log variance, each `[B, D]`.
        decoder: a Keras model that takes z `[B, D]` and returns the parameters of p(x|z): for a Bernoulli, logits
            `[B, *image]` without a sigmoid. By default the one that the encoder's method `mirror` makes; an
            encoder without this method, such as a functional model of Keras, needs `decoder=`.
        output_bias: initial output bias of a mirrored decoder, see `kvae.networks.logit_of_mean`. 0 by default.
        likelihood: p(x|z), a name in `kvae.likelihoods.LIKELIHOODS` or a `kvae.likelihoods.Likelihood`.
        prior: p(z), a name in `kvae.priors.PRIORS` or a `kvae.priors.Prior`.
        posterior: family of q(z|x), a name in `kvae.posteriors.POSTERIORS` or a `kvae.posteriors.Posterior`.
        objective: what training minimises, a name in `kvae.objectives.OBJECTIVES` or a `kvae.objectives.Objective`.
        beta: weight of the KL term, a number of at least 0 or a schedule such as `kvae.objectives.LinearWarmup`. 1 by
            default. `beta`, `samples` and `kl` are short for `objective=ELBO(beta, samples, kl)`.
        samples: number of draws of z per image, K. 1 by default.
        kl: `"analytic"`, the default, or `"sampled"` for log q(z|x) - log p(z) at the draws.
        condition: for a conditional model, the number of classes, C, or the shape of the condition of one image. `fit`
            and `evaluate` take the condition as y. Of C classes it is a vector with a 1 for the class, and wherever
            such a model takes a condition, it also takes labels 0..C-1. The networks of kvae, and others whose `call`
            has the keyword `condition`, get it in float32.
        condition_shape: the shape of the condition of one image, () for one number, of a model in which networks of
            kvae take the condition only if they were made with `condition_shape`; for a condition of the prior alone.
        seed: seed of the initial weights (but not those of `encoder=` and `decoder=`), of the order of arrays in `fit`,
            and of all draws in training. By default drawn from Python's `random`, so that
            `keras.utils.set_random_seed` determines it.

    Attributes:
        encoder, decoder, likelihood, prior, posterior: the parts; a mirrored decoder is None until the model is built.
        latent_dim: latent size, D; known once the model is built.
        image_shape: shape of one image; None until the model is built.
        condition_shape: shape of the condition of one image; None for a model without a condition.
        seed: the seed.
        steps: number of training steps that the model has made, an integer variable. Noise, order and schedules depend
            on it. `fit` counts, also for a `train_step` of your own.

    Raises:
        UserError: if an argument is not valid. It is a ValueError.
    """

    def __init__(
        self,
        latent_dim: int | None = None,
        *,
        hidden_units: Sequence[int] | None = None,
        activation: Activation = None,
        encoder: keras.Model | None = None,
        decoder: keras.Model | None = None,
        output_bias: Array | None = None,
        likelihood: str | likelihoods.Likelihood = "bernoulli",
        prior: str | priors.Prior = "standard_normal",
        posterior: str | posteriors.Posterior = "diagonal_gaussian",
        objective: str | objectives.Objective | None = None,
        beta: objectives.Beta | None = None,
        samples: int | None = None,
        kl: str | None = None,
        condition: int | tuple[int, ...] | None = None,
        condition_shape: tuple[int, ...] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if encoder is not None and (latent_dim, hidden_units, activation) != (None, None, None):
            raise UserError("Expected either encoder= or latent_dim=, hidden_units= and activation=. Received both.")
        if decoder is not None and output_bias is not None:
            raise UserError(
                "Expected output_bias= without decoder=, because it is for the decoder that kvae makes. Received both. "
                "Set the bias in your decoder instead."
            )
        if encoder is not None and decoder is None:
            networks.check_mirror(encoder)
        self.seed = sampling.seed_of(seed)
        self.condition_shape: Any = conditions.shape_of(condition, condition_shape)
        self.encoder = encoder or self._default_encoder(latent_dim, hidden_units, activation)
        if condition is not None:
            networks.give_condition((self.encoder, decoder), self.condition_shape or ())
        self.decoder: Any = decoder
        self._output_bias: Array | None = None if output_bias is None else np.asarray(output_bias, np.float32)
        self.likelihood = likelihoods.get(likelihood)
        self.prior = priors.get(prior)
        self.posterior = posteriors.get(posterior)
        if condition is not None and encoder is not None and decoder is not None:
            self._check_that_condition_is_used()
        self.image_shape: Any = None  # a tuple, set by build
        self.latent_dim: Any = getattr(self.encoder, "latent_dim", None)
        self._means = [keras.metrics.Mean(name=name) for name in METRICS]
        self.objective = _make_objective(objective, {"beta": beta, "samples": samples, "kl": kl})

    def _check_that_condition_is_used(self) -> None:
        if type(self.prior) is priors.StandardNormal and not any(
            map(networks.takes_condition, (self.encoder, self.decoder))
        ):
            raise UserError(
                "Expected an encoder or a decoder that takes the condition, because of condition=. Received networks "
                "whose call has no keyword condition. Make them with kvae.networks, or give their call this keyword."
            )

    def _default_encoder(
        self, latent_dim: int | None, hidden_units: Sequence[int] | None, activation: Activation
    ) -> keras.Model:
        return networks.MLPEncoder(
            2 if latent_dim is None else latent_dim,
            (500,) if hidden_units is None else hidden_units,
            activation or "tanh",
            seed=self.seed,
            dtype=self.dtype_policy,
        )

    # The parts combined

    def log_joint(
        self,
        x: Array,
        z: Array,
        condition: Array | None = None,
        observed: Array | None = None,
        *,
        parameters: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """log p(x, z) = log p(x|z) + log p(z), nats.

        Args:
            x: images, `[B, *image]`. If B is 1, the image is used for every z.
            z: latent points, `[B, D]` or `[K, B, D]`.
            condition: condition per image, `[B, ...]`, for a conditional model; else None.
            observed: mask `[H, W]`, `[B, H, W]` or of a shape that broadcasts to x, True for the pixels that are
                summed. All pixels by default.
            parameters: result of `decode` for z, if it is known. By default z is decoded.

        Returns:
            `[B]` or `[K, B]`.

        Raises:
            UserError: if x, z or the condition has a wrong shape, or a conditional model gets no condition.
        """
        return tf.add(*self._joint_terms(x, z, condition, observed, parameters))

    def draw(
        self,
        x: Array,
        noise: Noise,
        samples: int = 1,
        condition: Array | None = None,
        observed: Array | None = None,
        q: Distribution | None = None,
        *,
        training: bool = False,
    ) -> Draws:
        """Draws z ~ q(z|x) for each image, with the log densities from which objectives and estimates are computed.

        Args:
            x: images, `[B, *image]`.
            noise: source of the random numbers for B images, whose stream is `Stream.POSTERIOR`.
            samples: number of draws per image, K. 1 by default.
            condition: condition per image, `[B, ...]`, for a conditional model; else None.
            observed: mask `[H, W]`, `[B, H, W]` or of a shape that broadcasts to x, True for the pixels that are
                summed. All pixels by default.
            q: distribution from which z is drawn. By default q(z|x) of the encoder.
            training: the argument `training` of the networks' layers. It has no other effect. False by default.

        Returns:
            `kvae.objectives.Draws`.

        Raises:
            UserError: if x or the condition has a wrong shape, or a conditional model gets no condition.
        """
        x = self._check_x(x)
        condition = self._check_condition(condition, tf.shape(x)[0])
        q = self._approximate_posterior(x, condition, training) if q is None else q
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
        self,
        x: Array,
        z: Array,
        condition: Array | None,
        observed: Array | None,
        parameters: tf.Tensor | None,
        training: bool = False,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """log p(x|z) and log p(z), each `[B]` or `[K, B]`."""
        x, z = self._check_x(x), self._check_z(z)
        condition = self._check_condition_of(z, condition)
        if z.shape.rank > 1 and None not in (x.shape[0], z.shape[-2]) and x.shape[0] not in (z.shape[-2], 1):
            raise UserError(f"Expected one z per image, z [..., {x.shape[0]}, D]. Received z {z.shape.as_list()}.")
        if parameters is None:
            parameters = self._decode(z, condition, training)
        return self.likelihood.log_prob(x, parameters, observed), self.prior.log_prob(z, condition)

    def _approximate_posterior(
        self, x: tf.Tensor, condition: Array | None = None, training: bool = False
    ) -> Distribution:
        """q(z|x), for arguments that are checked already."""
        return self.posterior.distribution(networks.call(self.encoder, x, condition, training))

    def _decode(self, z: tf.Tensor, condition: Array | None = None, training: bool = False) -> tf.Tensor:
        """Decodes z `[..., B, D]` to `[..., B, *parameters_shape]`. The decoder itself gets all z as `[N, D]`."""
        leading, shape = tf.shape(z)[:-1], self.likelihood.parameters_shape(self.image_shape)
        if condition is not None and z.shape.rank > 2:  # repeats the condition of an image for each of its draws
            repeated = tf.broadcast_to(condition, tf.concat([leading, self.condition_shape], axis=0))
            condition = tf.reshape(repeated, [-1, *self.condition_shape])
        emitted = networks.call(self.decoder, tf.reshape(z, [-1, self.latent_dim]), condition, training)
        emitted = tf.reshape(tf.cast(emitted, tf.float32), tf.concat([leading, shape], axis=0))
        return tf.ensure_shape(emitted, [*z.shape[:-1], *shape])

    # Training and evaluation

    @property
    def metrics(self) -> list:
        own = [*self._means, *self._further_metrics.values()]
        return [*own, *(metric for metric in metrics_of(self) if metric not in own)]

    @returns_metrics
    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        batch = self.batch_of(data)
        clear_losses(self)
        with tf.GradientTape(persistent=True) as tape:
            noise = Keyed(self.seed, Stream.TRAINING, self.steps, batch.replica, batch.place)
            draws = self.draw(batch.x, noise, self.samples, batch.condition, training=True)
            losses = self._losses_per_image(batch.x, draws, self.objective, self.steps)
            loss = [self.optimizer.scale_loss(batch.mean(part)) for part in losses]
        self._apply_gradients(tape, loss)
        self.steps.assign_add(1)
        return self._update_metrics(batch.x, draws, losses[-1])

    @returns_metrics
    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        # The noise of an image depends on its position in the set, which is known from the number of images that the
        # metrics have counted. So neither the batch size nor an earlier evaluation changes the result.
        batch = self.batch_of(data, before=self._means[0].count)
        clear_losses(self)
        noise = Keyed(self.seed, Stream.EVALUATION, batch.replica, batch.place)
        draws = self.draw(batch.x, noise, self.samples, batch.condition)
        losses = self._losses_per_image(batch.x, draws, self.objective.at_end(), self.steps)
        return self._update_metrics(batch.x, draws, losses[-1])

    def predict_step(self, data: Any) -> tf.Tensor:
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)  # Keras ignores weights in `predict`
        batch = self.batch_of((x, None if self.condition_shape is None else y))
        return self(batch.x, batch.condition)

    def call(self, x: tf.Tensor, condition: Array | None = None, training: bool = False) -> tf.Tensor:
        """E[x|z] at the posterior mean of each image, `[B, *image]`. `predict` returns it."""
        condition = self._check_condition(condition, tf.shape(x)[0])
        mean = self._approximate_posterior(x, condition, training).mean
        return self.likelihood.mean(self._decode(mean, condition, training))

    def compute_output_shape(self, input_shape: Any, *_: Any) -> Any:
        return input_shape

    def _losses_per_image(
        self, x: tf.Tensor, draws: Draws, objective: objectives.Objective, step: Any
    ) -> tuple[tf.Tensor, ...]:
        """One or two losses `[B]`: each loss of the objective, plus `added_losses` and the penalties of the layers."""
        loss = objective.loss(draws, step)
        added = [*self.added_losses(x, draws).values(), *self.losses]
        losses = tuple(loss) if isinstance(loss, tuple | list) else (loss,)
        return tuple(
            tf.add_n([part, *(tf.zeros_like(part) + tf.cast(term, part.dtype) for term in added)]) for part in losses
        )

    def _update_metrics(self, x: tf.Tensor, draws: Draws, losses: tf.Tensor) -> dict[str, tf.Tensor]:
        # One value per image, so that each image has the same weight in the mean over an epoch, also if the last batch
        # is smaller.
        for metric, values in zip(self._means, (losses, draws.elbo, draws.reconstruction, draws.kl), strict=True):
            metric.update_state(values)
        if self._further_metrics:
            for name, values in self._further_terms(x, draws).items():
                self._further_metrics[name].update_state(values)
        return reducible(self.get_metrics_result())

    # Methods for the user of a trained model

    def encode(self, x: Array, condition: Array | None = None) -> Distribution:
        """The approximate posterior q(z|x).

        Args:
            x: images, `[B, *image]`.
            condition: condition per image, `[B, ...]`, for a conditional model; else None.

        Returns:
            A `kvae.posteriors.Distribution`. For the default posterior it is a `kvae.posteriors.Gaussian`, which is the
            tuple of its mean and log variance, each `[B, D]`.

        Raises:
            UserError: if x or the condition has a wrong shape, or a conditional model gets no condition.
        """
        x = self._check_x(x)
        return self._approximate_posterior(x, self._check_condition(condition, tf.shape(x)[0]))

    def decode(self, z: Array, condition: Array | None = None) -> tf.Tensor:
        """The parameters of p(x|z): logits for a Bernoulli likelihood.

        Args:
            z: latent points, `[..., D]`; `[..., B, D]` for a conditional model.
            condition: condition per image, `[B, ...]`, for a conditional model; else None.

        Returns:
            `[..., *image]` float32, or `[..., *likelihood.parameters_shape(image)]`.

        Raises:
            UserError: if z has another latent size, the condition has a wrong shape, or a conditional model gets none.
        """
        z = self._check_z(z)
        return self._decode(z, self._check_condition_of(z, condition))

    def reconstruct(self, x: Array, seed: int | None = None, condition: Array | None = None) -> tf.Tensor:
        """E[x|z] at one draw z ~ q(z|x) per image, or at the posterior mean.

        Args:
            x: images, `[B, *image]`.
            seed: seed of the draws, in 0..2^31 - 1. If it is None, the default, z is the posterior mean.
            condition: condition per image, `[B, ...]`, for a conditional model; else None.

        Returns:
            `[B, *image]` float32.

        Raises:
            UserError: if x, the seed or the condition is not valid.
        """
        x = self._check_x(x)
        condition = self._check_condition(condition, tf.shape(x)[0])
        q = self._approximate_posterior(x, condition)
        if seed is None:
            z = q.mean
        else:
            noise = Keyed(sampling.seed_of(seed), Stream.RECONSTRUCTION, tf.range(tf.shape(x)[0]))
            z = q.sample_and_log_prob(noise, 1)[0][0]
        return self.likelihood.mean(self._decode(z, condition))

    def sample(self, seeds: Array, condition: Array | None = None) -> Samples:
        """Draws one image x ~ p(x|z), z ~ p(z) per seed. The exported decoders draw the same images from these seeds.

        Image i depends only on seeds[i], see `kvae.noise.portable`. With a standard normal prior z is the same on every
        runtime, bit for bit. A pixel of a Bernoulli likelihood can differ if its uniform number is between two
        roundings of its mean; this happens for about one pixel in 10^7.

        Args:
            seeds: one seed per image, `[n]` int32. `kvae.noise.portable.seeds(n, seed)` returns those of `generate`.
            condition: condition per image, `[n, ...]`, for a conditional model; else None.

        Returns:
            Images in [0, 1] and their means, each `[n, *image]`, and z `[n, D]`; float32.

        Raises:
            UserError: if the seeds are not a non-empty list of int32, the condition is not valid, or the model is not
                built.
        """
        self._check_built()
        seeds = portable.check_seeds(seeds)
        condition = self._check_condition(condition, len(seeds))
        chunk = sampling.images_at_once(self)
        slices = [slice(start, start + chunk) for start in range(0, len(seeds), chunk)]
        drawn = [
            sampling.compiled_sample(self, tf.constant(seeds[part]), None if condition is None else condition[part])
            for part in slices
        ]
        return Samples(*[tf.concat(part, axis=0) for part in zip(*drawn, strict=True)])

    def generate(self, n: int, seed: int | None = None, condition: Array | None = None) -> tf.Tensor:
        """n draws x ~ p(x|z), z ~ p(z).

        For more images than fit into memory, `kvae.sampling.image_batches` yields the same images in batches.

        Args:
            n: number of images, at least 1.
            seed: seed of the set of images, in 0..2^31 - 1. Image i depends only on (seed, i), not on n. If it is None,
                the default, the seed is random.
            condition: condition per image, `[n, ...]`, for a conditional model; else None.

        Returns:
            `[n, *image]` float32; 0 or 1 for a Bernoulli likelihood.

        Raises:
            UserError: if n, the seed or the condition is not valid, or the model is not built.
        """
        return tf.concat(list(sampling.image_batches(self, n, seed, sampling.images_at_once(self), condition)), axis=0)

    def generate_means(self, n: int, seed: int | None = None, condition: Array | None = None) -> tf.Tensor:
        """E[x|z] at the z of the images that `generate` returns for the same arguments, `[n, *image]` float32."""
        self._check_built()
        return self.sample(portable.seeds(n, sampling.seed_of(seed)), condition).means

    def log_prior(self, z: Array, condition: Array | None = None) -> tf.Tensor:
        """log p(z), nats; z `[..., D]` -> `[...]`. Arguments and errors as in `decode`."""
        z = self._check_z(z)
        return self.prior.log_prob(z, self._check_condition_of(z, condition))

    def log_likelihood(
        self, x: Array, z: Array, observed: Array | None = None, condition: Array | None = None
    ) -> tf.Tensor:
        """log p(x|z), nats; x `[B, *image]`, z `[B, D]` or `[K, B, D]` -> `[B]` or `[K, B]`.

        The sum is over the pixels for which the mask `observed`, of a shape as in `log_joint`, is True; by default over
        all pixels. The other arguments and the errors are as in `log_joint`.
        """
        return self._joint_terms(x, z, condition, observed, None)[0]

    def elbo(self, x: Array, seed: int | None = None, condition: Array | None = None) -> tf.Tensor:
        """The ELBO of each image with beta = 1, nats, estimated with the K draws of the model's objective.

        Args:
            x: images, `[B, *image]`.
            seed: seed of the draws, in 0..2^31 - 1. If it is None, the default, the seed is random.
            condition: condition per image, `[B, ...]`, for a conditional model; else None.

        Returns:
            `[B]`.

        Raises:
            UserError: if x, the seed or the condition is not valid.
        """
        return sampling.elbo_draws(self, x, seed, condition).elbo


def _make_objective(objective: str | objectives.Objective | None, elbo_options: dict[str, Any]) -> objectives.Objective:
    """The objective for the arguments of `VAE`: `objective`, or an ELBO with those of its options that are not None."""
    given = {name: value for name, value in elbo_options.items() if value is not None}
    if objective is None:
        return objectives.ELBO(**given)
    if given:
        hint = objectives.with_options(objective, given)
        raise UserError(f"Expected either objective= or {'=, '.join(given)}=, which make an ELBO. Received both.{hint}")
    return objectives.get(objective)
