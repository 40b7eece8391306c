"""The model: an encoder, a decoder, a likelihood, and one objective that training and evaluation share."""

from __future__ import annotations  # kvae/__init__.py may import this room while those below are half done

import inspect
import math
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from kvae import cluster, distributions, files, likelihoods, networks, noise, objectives, portable
from kvae.errors import UserError, check_seed, check_whole, unknown
from kvae.loop import LoopedModel, returns_metrics
from kvae.tensorflow import keras, tf

KL_KINDS = ("analytic", "sampled")
VALUES_AT_ONCE = 4096 * 784  # pixels decoded at a time
METRICS = ("loss", "elbo", "reconstruction", "kl")

# Streams of the model's noise: a draw is a function of (seed, stream, counter, element).
TRAINING, EVALUATION, POSTERIOR = 0, 1, 3


class Posterior(NamedTuple):
    """q(z|x) = N(mean, exp(log_var)), factorized."""

    mean: tf.Tensor  # [B, D]
    log_var: tf.Tensor  # [B, D]


@keras.saving.register_keras_serializable("kvae")
class VAE(LoopedModel):
    """A variational autoencoder that trains with Keras `fit`.

    Maximises E_q(z|x)[log p(x|z)] - beta KL(q(z|x) || p(z)) with p(z) = N(0, I): Kingma and Welling, "Auto-Encoding
    Variational Bayes" (2014), equation 3; Higgins et al., "beta-VAE" (2017), equation 4. `fit` and `evaluate` show
    `loss`, `elbo` (always with beta = 1), `reconstruction` and `kl`, in nats per example. A callback that monitors
    `val_elbo` needs `mode="max"`: Keras cannot know that higher is better.

    `VAE(latent_dim, ...)` makes a multilayer perceptron for images of any shape when it first sees data. Pass
    `encoder=` (and `decoder=`, or leave it to be mirrored) for another network of kvae or one of your own.

    Args:
        latent_dim: D, 2 by default. Not together with `encoder`.
        hidden_units: widths of the encoder's hidden layers, (500,) by default; the decoder mirrors them. Not
            together with `encoder`.
        activation: of the hidden layers, tanh by default. Not together with `encoder`.
        encoder: a Keras model `x [B, *image] -> (mean, log_var)`, each `[B, D]`.
        decoder: a Keras model `z [B, D] -> logits [B, *image]`, no sigmoid at its end. By default the encoder's
            `mirror`.
        output_bias: what a mirrored decoder's output bias starts at; see `kvae.networks.logit_of_mean`.
        likelihood: `"bernoulli"`, `"continuous_bernoulli"`, `"gaussian"`, `"squared_error"` or a
            `kvae.likelihoods.Likelihood`.
        beta: weight of the KL term, a number of at least 0 or a schedule such as `kvae.objectives.LinearWarmup`.
        samples: K, latent draws per example.
        kl: `"analytic"`, or `"sampled"` for log q(z|x) - log p(z) at the draws.
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
        beta: Any = 1.0,
        samples: int = 1,
        kl: str = "analytic",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if encoder is not None and (latent_dim, hidden_units, activation) != (None, None, None):
            raise UserError("Expected either encoder= or latent_dim=, hidden_units= and activation=. Received both.")
        if decoder is not None and output_bias is not None:
            raise UserError("Expected output_bias= for a mirrored decoder only. Give it to your decoder instead.")
        if kl not in KL_KINDS:
            raise unknown("kl", kl, KL_KINDS)
        self.seed = _seed(seed)
        self.beta = beta
        self.samples = check_whole("samples", samples)
        self.kl = kl
        self.output_bias: Any = None if output_bias is None else np.asarray(output_bias, np.float32)
        self.encoder = encoder or networks.MLPEncoder(
            2 if latent_dim is None else latent_dim,
            (500,) if hidden_units is None else hidden_units,
            activation or "tanh",
            seed=self.seed,
            dtype=self.dtype_policy,
        )
        self.decoder: Any = decoder
        self.likelihood = likelihoods.get(likelihood)
        self.image_shape: Any = None  # a tuple once built
        self.latent_dim: Any = getattr(self.encoder, "latent_dim", None)
        self._means = [keras.metrics.Mean(name=name) for name in METRICS]
        self.__dict__["_graphs"] = {}  # not tracked by Keras, for it is no state

    @property
    def beta(self) -> Any:
        """Weight of the KL term: a number or a schedule. It may be set between two calls of `fit`."""
        return self._beta

    @beta.setter
    def beta(self, beta: Any) -> None:
        self._beta = beta if callable(beta) else objectives.check_beta(beta)
        self.train_function = self.test_function = None  # traced with the value before

    # Building, saving

    def build(self, input_shape: Any) -> None:
        """Makes what depends on the image shape and checks both networks against their contracts."""
        image_shape = tuple(input_shape[1:])
        if not image_shape or None in image_shape:
            raise UserError(f"Expected images [B, ...] of a known shape. Received {tuple(input_shape)}.")
        posterior = self.encoder(keras.KerasTensor((None, *image_shape)))
        shapes = [tuple(part.shape) for part in posterior] if isinstance(posterior, list | tuple) else posterior.shape
        if len(shapes) != 2 or shapes[0] != shapes[1] or len(shapes[0]) != 2:
            raise UserError(f"Expected the encoder to return (mean, log_var), each [B, D]. Received shapes {shapes}.")
        self.latent_dim = shapes[0][1]
        if self.decoder is None:
            if not hasattr(self.encoder, "mirror"):
                raise UserError(
                    "Expected decoder= beside an encoder of your own: only kvae's networks can be mirrored."
                )
            self.decoder = self.encoder.mirror(image_shape, self.output_bias)
        logits = self.decoder(keras.KerasTensor((None, self.latent_dim)))
        if tuple(logits.shape[1:]) != image_shape:
            raise UserError(
                f"Expected the decoder to return logits [B, {_comma(image_shape)}] like the images. "
                f"Received {tuple(logits.shape)}."
            )
        self.image_shape = image_shape
        self.built = True

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        mirrored = self.decoder is None and self.output_bias is not None
        return {
            **super().get_config(),
            "encoder": serialize(self.encoder),
            "decoder": None if self.decoder is None else serialize(self.decoder),
            "output_bias": self.output_bias.tolist() if mirrored else None,
            "likelihood": serialize(self.likelihood),
            "beta": serialize(self.beta) if callable(self.beta) else self.beta,
            "samples": self.samples,
            "kl": self.kl,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> VAE:
        config = dict(config)
        for name in ("encoder", "decoder", "likelihood", "beta"):
            if isinstance(config[name], dict):
                config[name] = keras.saving.deserialize_keras_object(config[name], custom_objects=custom_objects)
        return cls(**config)

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Keras `save`, but a file appears whole or not at all: a full disk leaves the one before as it was.

        Raises:
            UserError: the file cannot be written.
        """
        with files.atomic_file(filepath) as partial:
            super().save(partial, *args, **kwargs)

    # Training and evaluation

    @property
    def metrics(self) -> list:
        return self._means

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras `fit`. `x` is an array of images in [0, 1], or a `tf.data.Dataset` of batches; labels are ignored.

        Arrays, and the datasets of `kvae.data.load` where its images are in memory, take the fast path: the batches are
        made on the device, and `steps_per_execution` of them run in one compiled loop; see `kvae.loop.LoopedModel`.

        Raises:
            UserError: pixels outside [0, 1], sample or class weights, or a model compiled with a loss of its own.

        Warns:
            UserWarning: grey pixels under a Bernoulli likelihood.
        """
        if x is None:
            raise UserError("Expected images to fit: an array [N, ...] in [0, 1] or a tf.data.Dataset. Received None.")
        options = inspect.signature(keras.Model.fit).bind(self, x, *args, **kwargs).arguments
        self._check_call(options)
        self.check_pixels(x)
        held_out = options.get("validation_data")
        self.check_pixels(held_out[0] if isinstance(held_out, tuple | list) else held_out)
        return super().fit(x, *args, **kwargs)

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras `evaluate`: means over the set with K draws an image, the same at every call and batch size.

        For a number to publish, with its standard error and protocol, see `kvae.evaluation`.
        """
        self._check_call(kwargs)
        if not kwargs.get("_use_cached_eval_dataset"):  # then it is fit that calls, which has looked at the data
            self.check_pixels(x)
        return super().evaluate(x, *args, **kwargs)

    @returns_metrics
    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        x, place = self._images_and_places(data)
        step = self.optimizer.iterations
        replica, local = (_replica(), tf.range(tf.shape(x)[0])) if place is None else (0, place[cluster.PLACE])
        with tf.GradientTape() as tape:
            terms, losses = self._objective(
                x,
                self._noise(TRAINING, step, replica, local),
                self.beta(step) if callable(self.beta) else self.beta,
                training=True,
            )
            # Gradients are summed over replicas, so each contributes its share of the mean.
            if place is None:
                loss = tf.reduce_mean(losses) / tf.distribute.get_strategy().num_replicas_in_sync
            else:
                loss = tf.reduce_sum(losses / tf.cast(place[cluster.OF], tf.float32))
            loss = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return self._update_metrics(terms, losses)

    @returns_metrics
    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        x, place = self._images_and_places(data)
        # The noise of an image hangs on its place in the set (how many were counted before it), so neither the batch
        # size nor an earlier evaluation changes the result.
        if place is None:
            before = tf.cast(tf.convert_to_tensor(self._means[0].count), tf.int32)
            replica, local = _replica(), before + tf.range(tf.shape(x)[0])
        else:
            replica, local = 0, place[cluster.PLACE]
        beta = self.beta.beta if callable(self.beta) else self.beta
        noise_ = self._noise(EVALUATION, replica, local)
        return self._update_metrics(*self._objective(x, noise_, beta, training=False))

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """E[x|z] decoded at the posterior mean of every image: what `predict` returns, `[B, *image]`."""
        mean, _ = self.encoder(x, training=training)
        return self.likelihood.means(tf.cast(self.decoder(mean, training=training), tf.float32))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def _objective(
        self, x: tf.Tensor, noise_: tf.Tensor, beta: Any, *, training: bool
    ) -> tuple[objectives.Terms, tf.Tensor]:
        """The ELBO's terms and the loss of every example, `[B]`; `noise_` `[K, B, D]`."""
        mean, log_var = self._posterior(x, training=training)
        z = distributions.reparameterize(mean, log_var, noise_)
        log_likelihood = self._log_prob(x, self._logits(z, training=training))
        if self.kl == "analytic":
            kl = distributions.gaussian_kl(mean, log_var)
        else:
            kl = distributions.sampled_kl(z, mean, log_var)
        terms = objectives.elbo_terms(log_likelihood, kl)
        losses = objectives.beta_loss(terms, beta)
        return terms, losses + tf.add_n(self.losses) if self.losses else losses

    def _posterior(self, x: tf.Tensor, *, training: bool = False) -> Posterior:
        mean, log_var = self.encoder(x, training=training)
        return Posterior(tf.cast(mean, tf.float32), tf.cast(log_var, tf.float32))

    def _logits(self, z: tf.Tensor, *, training: bool = False) -> tf.Tensor:
        """Decodes z `[..., D]` to logits `[..., *image]`; the decoder itself sees `[B, D]`."""
        leading = tf.shape(z)[:-1]
        logits = self.decoder(tf.reshape(z, [-1, self.latent_dim]), training=training)
        logits = tf.reshape(tf.cast(logits, tf.float32), tf.concat([leading, self.image_shape], axis=0))
        return tf.ensure_shape(logits, [*z.shape[:-1], *self.image_shape])

    def _log_prob(self, x: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """log p(x|z), nats per pixel: `[..., *image]`, or `[..., P]` where the likelihood treats pixels alike."""
        if not self.likelihood.elementwise:
            return self.likelihood(x, logits)
        return self.likelihood(*(self._flat(images) for images in (x, logits)))

    def _flat(self, images: tf.Tensor) -> tf.Tensor:
        """`[..., *image]` -> `[..., P]`."""
        leading = len(images.shape) - len(self.image_shape)
        pixels = math.prod(self.image_shape)
        flat = tf.reshape(images, tf.concat([tf.shape(images)[:leading], [pixels]], axis=0))
        return tf.ensure_shape(flat, [*images.shape[:leading], pixels])

    def _noise(self, *key: Any) -> tf.Tensor:
        """Standard normal numbers `[K, B, D]` for a key such as (stream, example `[B]`)."""
        draws = noise.normal((self.samples, self.latent_dim), self.seed, *key)
        return tf.transpose(draws, [1, 0, 2])

    def _update_metrics(self, terms: objectives.Terms, losses: tf.Tensor) -> dict[str, tf.Tensor]:
        # One value an example: the mean over an epoch weighs every example alike, also in a ragged last batch.
        for metric, values in zip(self._means, (losses, terms.elbo, terms.reconstruction, terms.kl), strict=True):
            metric.update_state(values)
        return cluster.as_shared(self.get_metrics_result())

    def _images_and_places(self, data: Any) -> tuple[tf.Tensor, dict[str, tf.Tensor] | None]:
        """x `[B, *image]`, and the places of the images where several devices share a batch (`cluster.placed`)."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if sample_weight is not None:
            raise _no_weights()
        if isinstance(x, dict | list | tuple):
            raise UserError(
                f"Expected batches x or (x, y). Received x of type {type(x).__name__}; map the dataset first."
            )
        if not self.built:
            self.build(x.shape)
        return tf.cast(x, tf.float32), y if isinstance(y, dict) and cluster.PLACE in y else None

    def _check_call(self, options: dict[str, Any]) -> None:
        # Keras drops the weights of examples without labels before they would reach a training step.
        if options.get("sample_weight") is not None or options.get("class_weight") is not None:
            raise _no_weights()
        if getattr(self, "loss", None) is not None or getattr(self, "_compile_metrics", None) is not None:
            raise UserError("Expected compile(optimizer=...) without loss= and metrics=: a VAE brings its own.")

    def check_pixels(self, x: Any) -> None:
        """Raises `UserError` for pixels outside [0, 1], and warns of grey ones under a Bernoulli likelihood.

        Looks at arrays, and at the first batch of a dataset that does not say itself whether it is binary.
        """
        if isinstance(x, tf.data.Dataset):
            if getattr(x, "binary", None) is None:
                x = next(iter(x.take(1)), None)
                x = keras.utils.unpack_x_y_sample_weight(x)[0]
            else:
                self._warn_if_grey(not x.binary)
                return
        if not hasattr(x, "shape") or not hasattr(x, "dtype"):
            return
        values = np.asarray(x)
        if values.size == 0 or values.dtype.kind not in "fiub":
            raise UserError(
                f"Expected an array of at least one image. Received {values.dtype} of shape {values.shape}."
            )
        low, high = values.min(), values.max()
        if not (low >= 0 and high <= 1):  # also refuses NaN
            raise UserError(
                f"Expected pixels in [0, 1]. Received values from {low} to {high}. Divide uint8 images by 255, or load "
                "them with kvae.data.load."
            )
        self._warn_if_grey(bool(((values > 0) & (values < 1)).any()))

    def _warn_if_grey(self, grey: bool) -> None:
        if grey:
            likelihoods.warn_if_binary(self.likelihood)

    @property
    def images_at_once(self) -> int:
        """How many images are decoded at a time where many are: 13 MB of float32 a tensor, whatever their size."""
        self._check_built()
        return max(1, VALUES_AT_ONCE // math.prod(self.image_shape))

    def graph(self, key: Any, function: Any, jit_compile: bool = False) -> Any:
        """`function` as a `tf.function` that is traced once a model, as Keras keeps its `predict_function`.

        Args:
            key: of the function and of every Python value that it closes over, but for this model.
            function: what to compile where the key is new.
            jit_compile: with XLA.
        """
        return self._graphs.setdefault(key, tf.function(function, reduce_retracing=True, jit_compile=jit_compile))

    # What a user asks of a trained model

    def encode(self, x: Any) -> Posterior:
        """The approximate posterior q(z|x).

        Args:
            x: `[B, *image]` in [0, 1].

        Returns:
            mean `[B, D]` and log_var `[B, D]`.

        Raises:
            UserError: another shape.
        """
        return self._posterior(self._check_x(x))

    def decode(self, z: Any) -> tf.Tensor:
        """The logits of p(x|z).

        Args:
            z: `[..., D]`.

        Returns:
            `[..., *image]` float32.

        Raises:
            UserError: another latent size.
        """
        return self._logits(self._check_z(z))

    def reconstruct(self, x: Any, seed: int | None = None) -> tf.Tensor:
        """E[x|z] at one draw z ~ q(z|x) an image, or at the posterior mean where `seed` is None; `[B, *image]`."""
        mean, log_var = self.encode(x)
        if seed is not None:
            draw = noise.normal((self.latent_dim,), _seed(seed), POSTERIOR, tf.range(tf.shape(mean)[0]))
            mean = distributions.reparameterize(mean, log_var, draw)
        return self.likelihood.means(self._logits(mean))

    def sample(self, seeds: Any) -> portable.Sample:
        """x ~ p(x|z), z ~ p(z), one image a seed: what the exported decoders draw from the same seeds.

        By `kvae.portable`: image i is a function of seeds[i] alone, z is the same bit for bit on every runtime, and a
        pixel of a Bernoulli likelihood is another one only where its mean rounds across its uniform number, about once
        in 10^7.

        Args:
            seeds: `[n]` int32; `kvae.portable.seeds(n, seed)` makes those of `generate`.

        Returns:
            images in [0, 1], means and z, float32.

        Raises:
            UserError: no list of int32, or none at all.
        """
        self._check_built()
        seeds, chunk = portable.check_seeds(seeds), self.images_at_once
        draw = self.graph("sample", self.sample_graph)
        parts = [draw(tf.constant(seeds[start : start + chunk])) for start in range(0, len(seeds), chunk)]
        return portable.Sample(*[tf.concat(part, axis=0) for part in zip(*parts, strict=True)])

    def sample_graph(self, seeds: tf.Tensor) -> portable.Sample:
        """What `sample` computes for a few seeds `[n]` int32, in operations that LiteRT has built in."""
        z = self.latents(seeds)
        logits = self._logits(z)
        numbers = portable.normals if self.likelihood.takes_normals else portable.uniforms
        drawn = numbers(seeds, portable.PIXELS, math.prod(self.image_shape), noise.TENSORFLOW)
        images = self.likelihood.draw(logits, tf.reshape(drawn, [-1, *self.image_shape]))
        return portable.Sample(images, self.likelihood.means(logits), z)

    def latents(self, seeds: tf.Tensor) -> tf.Tensor:
        """z ~ p(z) `[n, D]` of seeds `[n]` int32, as `sample` has it."""
        z = portable.normals(seeds, portable.LATENT, self.latent_dim, noise.TENSORFLOW)
        # Within +-5.3 as it is. The clip keeps converters from folding the last factor, 2^-20, into float16 weights.
        return tf.clip_by_value(z, -6.0, 6.0)

    def sample_prior(self, n: int, seed: int | None = None) -> tf.Tensor:
        """n draws z ~ p(z), those from which `generate` makes its images with the same seed; `[n, D]`."""
        self._check_built()
        return self.latents(tf.constant(portable.seeds(n, _seed(seed))))

    def generate(self, n: int, seed: int | None = None) -> tf.Tensor:
        """n draws x ~ p(x|z), z ~ p(z).

        Args:
            n: at least 1.
            seed: image i is a function of (seed, i) alone, whatever n is; a fresh draw where it is None.

        Returns:
            `[n, *image]` float32; 0 or 1 for a Bernoulli likelihood.
        """
        return tf.concat(list(self.generate_batches(n, seed, max(1, self.images_at_once))), axis=0)

    def generate_batches(self, n: int, seed: int | None = None, batch_size: int = 1000) -> Iterator[tf.Tensor]:
        """The images of `generate`, some at a time, so that a million of them need no memory but a batch's.

        Args:
            n: at least 1.
            seed: as in `generate`, which gives the same images.
            batch_size: images a time; the last time fewer.

        Yields:
            `[batch_size, *image]` float32.

        Raises:
            UserError: an n or batch_size below 1, or a model that is not built.
        """
        self._check_built()
        check_whole("batch_size", batch_size)
        seeds = portable.seeds(n, _seed(seed))
        return (self.sample(seeds[start : start + batch_size]).images for start in range(0, n, batch_size))

    def generate_means(self, n: int, seed: int | None = None) -> tf.Tensor:
        """E[x|z] at the same z as `generate` with the same seed: grey pictures, `[n, *image]` float32."""
        self._check_built()
        return self.sample(portable.seeds(n, _seed(seed))).means

    def log_prior(self, z: Any) -> tf.Tensor:
        """log p(z) = log N(z; 0, I), nats; z `[..., D]` -> `[...]`."""
        return objectives.sum_event(distributions.standard_normal_log_density(self._check_z(z)), 1)

    def log_q(self, z: Any, mean: Any, log_var: Any) -> tf.Tensor:
        """log q(z|x) = log N(z; mean, exp(log_var)), nats; z `[..., D]`, mean and log_var `[B, D]` -> `[...]`."""
        return objectives.sum_event(distributions.gaussian_log_density(self._check_z(z), mean, log_var), 1)

    def log_likelihood(self, x: Any, z: Any, observed: Any = None) -> tf.Tensor:
        """log p(x|z), nats; x `[B, *image]`, z `[B, D]` or `[K, B, D]` -> `[B]` or `[K, B]`.

        With a mask `observed`, booleans that broadcast to x, the sum runs over the pixels where it is True.
        """
        x, z = self._check_x(x), self._check_z(z)
        if z.shape.rank > 1 and None not in (x.shape[0], z.shape[-2]) and x.shape[0] != z.shape[-2]:
            raise UserError(f"Expected one z an image, z [..., {x.shape[0]}, D]. Received z {z.shape.as_list()}.")
        logits = self._logits(z)
        if observed is None:
            log_prob = self._log_prob(x, logits)
            return objectives.sum_event(log_prob, log_prob.shape.rank - logits.shape.rank + len(self.image_shape))
        log_prob = self.likelihood(x, logits)
        log_prob = tf.where(observed, log_prob, tf.zeros_like(log_prob))
        return objectives.sum_event(log_prob, len(self.image_shape))

    def joint_log_density(self, x: Any, z: Any, observed: Any = None) -> tf.Tensor:
        """log p(x, z) = log p(x|z) + log p(z), nats; shapes and `observed` as in `log_likelihood`."""
        return self.log_likelihood(x, z, observed) + self.log_prior(z)

    def elbo_terms(self, x: Any, seed: int | None = None) -> objectives.Terms:
        """`reconstruction` and `kl` of every image with K draws, nats; x `[B, *image]` -> each `[B]`."""
        x = self._check_x(x)
        noise_ = self._noise(POSTERIOR, _seed(seed), tf.range(tf.shape(x)[0]))
        return self._objective(x, noise_, 1.0, training=False)[0]

    def elbo(self, x: Any, seed: int | None = None) -> tf.Tensor:
        """ELBO of every image with K draws, beta = 1, nats; x `[B, *image]` -> `[B]`."""
        return self.elbo_terms(x, seed).elbo

    def _check_built(self) -> None:
        if self.image_shape is None:
            raise UserError(
                "Expected a model that knows its image shape. Call fit, or build((None, 28, 28, 1)), first."
            )

    def _check_x(self, x: Any) -> tf.Tensor:
        x = tf.cast(tf.convert_to_tensor(x), tf.float32)
        if self.image_shape is None and x.shape.rank and x.shape.rank > 1:
            self.build(x.shape)
        self._check_built()
        if tuple(x.shape[1:]) != self.image_shape or x.shape.rank != 1 + len(self.image_shape):
            raise UserError(f"Expected x of shape [B, {_comma(self.image_shape)}]. Received {x.shape.as_list()}.")
        return x

    def _check_z(self, z: Any) -> tf.Tensor:
        self._check_built()
        z = tf.cast(tf.convert_to_tensor(z), tf.float32)
        if z.shape.rank == 0 or z.shape[-1] != self.latent_dim:
            raise UserError(f"Expected z of shape [..., {self.latent_dim}]. Received {z.shape.as_list()}.")
        return z


def _no_weights() -> UserError:
    return UserError(
        "Expected no sample_weight or class_weight: the ELBO is a mean over examples. To weigh examples, repeat or "
        "sample them in the tf.data pipeline."
    )


def _replica() -> Any:
    """The index of this replica under `tf.distribute`, so that replicas draw different noise; 0 without it."""
    context = tf.distribute.get_replica_context()
    return context.replica_id_in_sync_group if context else 0


def _seed(seed: Any) -> Any:
    """A seed as an int, drawn from Python's `random` where it is None; within a graph it may be a tensor."""
    if tf.is_tensor(seed):
        return seed
    return random.randrange(2**31) if seed is None else check_seed("seed", seed)


def _comma(shape: Any) -> str:
    return ", ".join(str(side) for side in shape)
