"""How a model is put together from its parts, checks what it is given, and is saved.

What the parts compute together stands in `kvae.model.vae`.
"""

from __future__ import annotations

import math
from typing import Any

from kvae.internal import files
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import keras, tf
from kvae.model import networks, objectives, parts, posteriors, priors
from kvae.model.fast_fit import FastFit
from kvae.model.keras_privates import place_layer
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream

VALUES_AT_ONCE = 4096 * 784  # pixels decoded at a time
PARTS = ("encoder", "decoder", "likelihood", "prior", "posterior", "objective")


class Assembly(FastFit):
    """A Keras model made of an encoder, a decoder, a likelihood, a prior, a posterior and an objective."""

    prior: priors.Prior
    output_bias: Any
    image_shape: Any  # a tuple once built
    latent_dim: Any

    @property
    def objective(self) -> objectives.Objective:
        """What training minimises. Another one may be set between two calls of `fit`."""
        return self._objective

    @objective.setter
    def objective(self, objective: str | objectives.Objective) -> None:
        self._objective = objectives.get(objective)
        self.forget_compiled()
        if self.image_shape is not None:
            self._make_further_metrics()

    @property
    def beta(self) -> Any:
        """Weight of the KL term of an `ELBO`, a number or a schedule; 1 for another objective.

        It may be set between two calls of `fit`: the model then has another objective.
        """
        return getattr(self.objective, "beta", 1.0)

    @beta.setter
    def beta(self, beta: Any) -> None:
        if not isinstance(self.objective, objectives.ELBO):
            raise UserError(f"Expected an ELBO to set its beta. This model has {type(self.objective).__name__}.")
        self.objective = self.objective.with_beta(beta)

    @property
    def samples(self) -> int:
        """K, latent draws per image in training."""
        return self.objective.samples

    @property
    def kl(self) -> str:
        """What `kl` is everywhere: `"analytic"`, or `"sampled"` at the draws."""
        return self.objective.kl

    # Building, saving

    def build(self, input_shape: Any) -> None:
        """Makes what depends on the image shape and checks that the parts fit each other."""
        image_shape = tuple(input_shape[1:])
        if not image_shape or None in image_shape:
            raise UserError(f"Expected images [B, ...] of a known shape. Received {tuple(input_shape)}.")
        shape = self.condition_shape
        condition = None if shape is None else keras.KerasTensor((None, *shape))
        self._build_encoder(image_shape, condition)
        sizes = {"latent_dim": self.latent_dim, "image_shape": image_shape, "condition_shape": self.condition_shape}
        for part in (self.posterior, self.prior, self.likelihood):
            parts.build(part, **sizes)
        self._build_decoder(image_shape, condition)
        self.image_shape = image_shape
        self.prior.bind(self._approximate)
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
            if not hasattr(self.encoder, "mirror"):
                raise UserError(
                    "Expected decoder= beside an encoder of your own: only kvae's networks can be mirrored."
                )
            rest = wanted[len(image_shape) :]
            options = {"numbers_per_pixel": math.prod(rest)} if rest else {}
            self.decoder = self.encoder.mirror(image_shape, self.output_bias, **options)
            place_layer(self, self.decoder, 1)  # after the encoder, as in a model that was given its decoder
        emitted = networks.call(self.decoder, keras.KerasTensor((None, self.latent_dim)), condition)
        if tuple(emitted.shape[1:]) != wanted:
            what = "logits" if wanted == image_shape else "parameters of p(x|z)"
            raise UserError(
                f"Expected the decoder to return {what} [B, {_comma(wanted)}] for images [B, {_comma(image_shape)}]. "
                f"Received {tuple(emitted.shape)}."
            )

    def added_losses(self, x: tf.Tensor, draws: objectives.Draws) -> dict[str, tf.Tensor]:
        """For subclasses: terms to add to the loss, by name, each `[B]` in nats per image, shown as metrics as well.

        A subclass that needs no more than this and `added_metrics` keeps the fast path of `fit`, which a `train_step`
        of its own leaves.
        """
        return {}

    def added_metrics(self, x: tf.Tensor, draws: objectives.Draws) -> dict[str, tf.Tensor]:
        """For subclasses: further metrics by name, each `[B]`; `fit` shows their means over the images."""
        return {}

    def _further_terms(self, x: tf.Tensor, draws: objectives.Draws) -> dict[str, tf.Tensor]:
        return {**self.objective.terms(draws), **self.added_losses(x, draws), **self.added_metrics(x, draws)}

    def _make_further_metrics(self) -> None:
        """A metric for each name that the objective's `terms` and this class's hooks return, found by a trial."""
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
        config = dict(config)  # of version 0.1: with beta, samples and kl in place of the objective
        for name in (*PARTS, "beta"):
            if isinstance(config.get(name), dict):
                config[name] = keras.saving.deserialize_keras_object(config[name], custom_objects=custom_objects)
        return cls(**config)

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Keras `save`, but a file appears whole or not at all: a full disk leaves the one before as it was.

        Raises:
            UserError: the file cannot be written.
        """
        with files.atomic_file(filepath) as partial:
            super().save(partial, *args, **kwargs)

    @property
    def images_at_once(self) -> int:
        """How many images are decoded at a time where many are: 13 MB of float32 a tensor, whatever their size."""
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
            raise UserError(f"Expected x of shape [B, {_comma(self.image_shape)}]. Received {x.shape.as_list()}.")
        return x

    def _check_z(self, z: Any) -> tf.Tensor:
        self._check_built()
        z = tf.cast(tf.convert_to_tensor(z), tf.float32)
        if z.shape.rank == 0 or z.shape[-1] != self.latent_dim:
            raise UserError(f"Expected z of shape [..., {self.latent_dim}]. Received {z.shape.as_list()}.")
        return z

    def check_condition(self, condition: Any, count: int | None = None) -> Any:
        """A condition as the model takes it, `[B, ...]` float32, or None for a model without one.

        Args:
            condition: as it came.
            count: B, where it is known.

        Raises:
            UserError: no condition for a model that has one, one for a model that has none, or another shape.
        """
        if self.condition_shape is None:
            if condition is not None:
                raise UserError("Expected no condition: this model was made without condition_shape=. Received one.")
            return None
        wanted = f"[{_comma(('B' if count is None else count, *self.condition_shape))}]"
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


def _comma(shape: Any) -> str:
    return ", ".join(str(side) for side in shape)
