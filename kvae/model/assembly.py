"""How a model is put together from its parts, and how it checks its arguments.

What the parts compute together is in `kvae.model.vae`.
"""

from __future__ import annotations

import math
from typing import Any

from kvae.internal.errors import UserError
from kvae.internal.quiet_output import without_tensorflow_reports
from kvae.internal.tensorflow import keras, tf
from kvae.model import networks, objectives, parts, posteriors, priors
from kvae.model.fast_fit import FastFit
from kvae.model.keras_privates import place_layer
from kvae.model.saving import Saving
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream

VALUES_AT_ONCE = 4096 * 784  # number of values that are decoded in one batch
PARTS = ("encoder", "decoder", "likelihood", "prior", "posterior", "objective")


class Assembly(Saving, FastFit):
    """A Keras model made of an encoder, a decoder, a likelihood, a prior, a posterior and an objective."""

    prior: priors.Prior
    output_bias: Any
    image_shape: Any  # a tuple; None until the model is built
    latent_dim: Any

    @property
    def objective(self) -> objectives.Objective:
        """The objective that training minimises. It can be replaced between two calls of `fit`."""
        return self._objective

    @objective.setter
    def objective(self, objective: str | objectives.Objective) -> None:
        self._objective = objectives.get(objective)
        self.forget_compiled()
        if self.image_shape is not None:
            self._make_further_metrics()

    @property
    def beta(self) -> Any:
        """Weight of the KL term of an `ELBO`, a number or a schedule; 1 for any other objective.

        It can be set between two calls of `fit`. The model then gets a new objective.

        Raises:
            UserError: if beta is set to an invalid value, or the objective of the model is not an `ELBO`.
        """
        return getattr(self.objective, "beta", 1.0)

    @beta.setter
    def beta(self, beta: Any) -> None:
        if not isinstance(self.objective, objectives.ELBO):
            raise UserError(f"Expected an ELBO to set its beta. This model has {type(self.objective).__name__}.")
        self.objective = self.objective.with_beta(beta)

    @property
    def samples(self) -> int:
        """Number of draws of z per image in training, K."""
        return self.objective.samples

    @property
    def kl(self) -> str:
        """How `kl` is computed: `"analytic"` or `"sampled"`, see `kvae.objectives.Objective`."""
        return self.objective.kl

    # Building, saving

    def build(self, input_shape: Any) -> None:
        """Builds the parts for an image shape and checks that they fit together.

        Args:
            input_shape: shape of a batch of images, `(None, *image)`.

        Raises:
            UserError: if the shape is not known, or the output of a network has a wrong shape.
        """
        image_shape = tuple(input_shape[1:])
        if not image_shape or None in image_shape:
            raise UserError(f"Expected a known image shape, [B, ...]. Received {tuple(input_shape)}.")
        shape = self.condition_shape
        condition = None if shape is None else keras.KerasTensor((None, *shape))
        self._build_encoder(image_shape, condition)
        sizes = {"latent_dim": self.latent_dim, "image_shape": image_shape, "condition_shape": self.condition_shape}
        for part in (self.posterior, self.prior, self.likelihood):
            parts.build(part, **sizes)
        self._build_decoder(image_shape, condition)
        self.image_shape = image_shape
        self.prior.bind(self._approximate_posterior)
        self.built = True
        self._make_further_metrics()

    def _build_encoder(self, image_shape: tuple[int, ...], condition: Any) -> None:
        if hasattr(self.encoder, "emit"):
            self.encoder.emit(posteriors.as_sizes(self.posterior.parameters_size(self.encoder.latent_dim)))
        emitted = networks.call(self.encoder, keras.KerasTensor((None, *image_shape)), condition)
        emitted = tuple(emitted) if isinstance(emitted, list | tuple) else (emitted,)
        shapes = [tuple(tensor.shape) for tensor in emitted]
        if any(len(shape) != 2 for shape in shapes):
            raise UserError(f"Expected the encoder to return {self.posterior.parameters}. Received shapes {shapes}.")
        self.latent_dim = self.posterior.latent_dim_of(tuple(shape[1] for shape in shapes))

    def _build_decoder(self, image_shape: tuple[int, ...], condition: Any) -> None:
        wanted = tuple(self.likelihood.parameters_shape(image_shape))
        if self.decoder is None:
            self.decoder = networks.mirrored(self.encoder, image_shape, wanted, self.output_bias)
            place_layer(self, self.decoder, 1)  # after the encoder, as in a model with decoder=
        emitted = networks.call(self.decoder, keras.KerasTensor((None, self.latent_dim)), condition)
        if tuple(emitted.shape[1:]) != wanted:
            output = "logits" if wanted == image_shape else "parameters of p(x|z)"
            raise UserError(
                f"Expected the decoder to return {output} [B, {_join(wanted)}] for images [B, {_join(image_shape)}]. "
                f"Received {tuple(emitted.shape)}."
            )

    def added_losses(self, x: tf.Tensor, draws: objectives.Draws) -> dict[str, tf.Tensor]:
        """Terms that a subclass adds to the loss.

        A subclass that overrides this method and `added_metrics` keeps the fast path of `fit`. A subclass with its own
        `train_step` loses it.

        Args:
            x: images, `[B, *image]`.
            draws: draws of the training step.

        Returns:
            The terms by name, each `[B]` nats per image. `fit` also shows them as metrics.
        """
        return {}

    def added_metrics(self, x: tf.Tensor, draws: objectives.Draws) -> dict[str, tf.Tensor]:
        """Further metrics of a subclass, by name, each `[B]`. `fit` shows their means over the images."""
        return {}

    def _further_terms(self, x: tf.Tensor, draws: objectives.Draws) -> dict[str, tf.Tensor]:
        return {**self.objective.terms(draws), **self.added_losses(x, draws), **self.added_metrics(x, draws)}

    def _make_further_metrics(self) -> None:
        """Makes one metric for each name that `Objective.terms`, `added_losses` and `added_metrics` return.

        The names are known from a call with an image of zeros.
        """
        hooks = (type(self).added_losses, type(self).added_metrics, type(self.objective).terms)
        if hooks == (Assembly.added_losses, Assembly.added_metrics, objectives.Objective.terms):
            self.further_metrics = {}
            return
        x = tf.zeros([1, *self.image_shape])
        condition = None if self.condition_shape is None else tf.zeros([1, *self.condition_shape])
        noise = Keyed(0, Stream.EVALUATION, 0, tf.zeros([1], tf.int32))
        draws = self.draw(x, noise, self.samples, condition)
        self.further_metrics = {name: keras.metrics.Mean(name=name) for name in self._further_terms(x, draws)}

    def get_config(self) -> dict[str, Any]:
        mirrored = self.decoder is None and self.output_bias is not None
        return {
            **super().get_config(),
            **{name: keras.saving.serialize_keras_object(getattr(self, name)) for name in PARTS},
            "output_bias": self.output_bias.tolist() if mirrored else None,
            "condition_shape": self.condition_shape,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Assembly:
        config = dict(config)  # one of version 0.1 has beta, samples and kl instead of the objective
        for name in (*PARTS, "beta"):
            if isinstance(config.get(name), dict):
                config[name] = keras.saving.deserialize_keras_object(config[name], custom_objects=custom_objects)
        return cls(**config)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Keras `predict`, without TensorFlow's warning that Keras traces its function for every model."""
        with without_tensorflow_reports():
            return super().predict(*args, **kwargs)

    def call_signature(self) -> Any:
        """The inputs of `call` for any batch size: x, and the condition of a conditional model."""
        self._check_built()
        shapes = {"x": self.image_shape, "condition": self.condition_shape}
        return [
            tf.TensorSpec([None, *shape], tf.float32, name=name) for name, shape in shapes.items() if shape is not None
        ]

    @property
    def images_at_once(self) -> int:
        """Number of images that are decoded in one batch, chosen so that a float32 tensor of them has about 13 MB."""
        self._check_built()
        return max(1, VALUES_AT_ONCE // math.prod(self.likelihood.parameters_shape(self.image_shape)))

    # Checks

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
            raise UserError(f"Expected x of shape [B, {_join(self.image_shape)}]. Received {x.shape.as_list()}.")
        return x

    def _check_z(self, z: Any) -> tf.Tensor:
        self._check_built()
        z = tf.cast(tf.convert_to_tensor(z), tf.float32)
        if z.shape.rank == 0 or z.shape[-1] != self.latent_dim:
            raise UserError(f"Expected z of shape [..., {self.latent_dim}]. Received {z.shape.as_list()}.")
        return z

    def check_condition(self, condition: Any, count: int | None = None) -> Any:
        """Checks a condition and converts it to float32.

        Args:
            condition: condition per image, `[B, ...]`, or None.
            count: number of images, B, or None if it is not known.

        Returns:
            `[B, ...]` float32, or None for a model without a condition.

        Raises:
            UserError: if the model needs a condition and there is none, if the model takes none and there is one, or if
                the shape is not correct.
        """
        if self.condition_shape is None:
            if condition is not None:
                raise UserError("Expected no condition: this model was made without condition_shape=. Received one.")
            return None
        wanted = f"[{_join(('B' if count is None else count, *self.condition_shape))}]"
        if condition is None:
            raise UserError(f"Expected a condition {wanted} for this model. Received none.")
        try:
            condition = tf.cast(tf.convert_to_tensor(condition), tf.float32)
        except (TypeError, ValueError, tf.errors.OpError):
            raise UserError(f"Expected numbers as a condition {wanted}. Received {condition!r}.") from None
        shape = condition.shape
        fits = shape.rank == 1 + len(self.condition_shape) and tuple(shape[1:]) == self.condition_shape
        if not fits or (count is not None and shape[0] != count):
            raise UserError(f"Expected a condition {wanted}. Received {shape.as_list()}.")
        return condition


def _join(shape: Any) -> str:
    return ", ".join(str(side) for side in shape)
