"""How a model is put together from its parts, and how it checks its arguments.

What the parts compute together is in `kvae.model.vae`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kvae.internal.errors import UserError
from kvae.internal.tensorflow import check_process, keras, tf
from kvae.model import given_images, networks, objectives, parts, posteriors, priors
from kvae.model.conditions import check_condition
from kvae.model.fast_fit import FastFit
from kvae.model.freezing import freeze_new_layers
from kvae.model.hints import Array
from kvae.model.keras_privates import layers_of, place_layer
from kvae.model.network_calls import check_decoder, join, parameters_of_q
from kvae.model.old_names import OldNames
from kvae.model.output_range import warn_of_range
from kvae.model.saving import Saving
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream

PARTS = ("encoder", "decoder", "likelihood", "prior", "posterior", "objective")


class Assembly(OldNames, Saving, FastFit):
    """A Keras model made of an encoder, a decoder, a likelihood, a prior, a posterior and an objective."""

    prior: priors.Prior
    posterior: posteriors.Posterior
    _output_bias: Any
    image_shape: Any  # a tuple; None until the model is built
    latent_dim: Any

    @property
    def objective(self) -> objectives.Objective:
        """The objective that training minimises. It can be replaced between two calls of `fit`."""
        return self._objective

    @objective.setter
    def objective(self, objective: str | objectives.Objective) -> None:
        objective = objectives.get(objective)
        objective.check(self.prior, self.posterior)
        before = self.__dict__.get("_objective", objective)
        self._objective = objective
        if self.image_shape is not None:
            try:
                self._make_further_metrics()
            except BaseException:
                self._objective = before
                raise
        self._forget_compiled()

    @property
    def beta(self) -> objectives.Beta:
        """The beta of the objective, a number, a variable or a schedule; 1 for an objective that has none.

        For `ELBO` it is the weight of the KL term, for `BetaTC` that of the total correlation. That of an `ELBO` can be
        set at any time, also by a callback during `fit`. If a number replaces a number, nothing is compiled again;
        otherwise the model gets a new objective.

        Raises:
            UserError: if beta is set to an invalid value, or the objective of the model is not an `ELBO`.
        """
        return getattr(self.objective, "beta", 1.0)

    @beta.setter
    def beta(self, beta: objectives.Beta) -> None:
        if not isinstance(self.objective, objectives.ELBO):
            raise UserError(
                "Expected a model with the objective ELBO, because only its beta can be set. This model has "
                f"{type(self.objective).__name__}. For another objective: vae.objective = kvae.objectives.ELBO(beta)."
            )
        beta = objectives.schedules.from_table("beta", beta)
        if objectives.is_number(self.objective.beta) and objectives.is_number(beta):
            self.objective.beta = beta
        else:
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

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Builds the parts for an image shape and checks that they fit together.

        Args:
            input_shape: shape of a batch of images, `(None, *image)`.

        Raises:
            UserError: if the shape is not known, or the output of a network has a wrong shape.
        """
        image_shape: Any = tuple(input_shape[1:])
        if not image_shape or None in image_shape:
            raise UserError(
                f"Expected the shape of a batch of images, such as (None, 28, 28, 1). Received {tuple(input_shape)}."
            )
        shape = self.condition_shape
        condition = None if shape is None else keras.KerasTensor((None, *shape))
        before = layers_of(self)
        self._build_encoder(image_shape, condition)
        sizes = {"latent_dim": self.latent_dim, "image_shape": image_shape, "condition_shape": self.condition_shape}
        for part in (self.posterior, self.prior, self.likelihood):
            parts.build(part, **sizes, seed=self.seed)
        self._build_decoder(image_shape, condition)
        freeze_new_layers(self, before)
        self.image_shape = image_shape
        try:
            self.prior.bind(self._approximate_posterior)
            self._make_further_metrics()
        except BaseException:
            self.image_shape = None  # a model that cannot be trained with its parts is not built
            raise
        self.built = True

    def _after_build(self) -> None:
        super()._after_build()
        # Weights have no values yet if Keras builds the model symbolically; it then calls this method again.
        if tf.executing_eagerly() and self.built and not self.__dict__.get("_range_is_checked"):
            self.__dict__["_range_is_checked"] = True
            warn_of_range(self.decoder, self.likelihood, self.latent_dim, self.image_shape, self.condition_shape)

    def _build_encoder(self, image_shape: tuple[int, ...], condition: Any) -> None:
        if hasattr(self.encoder, "emit"):
            self.encoder.emit(posteriors.as_sizes(self.posterior.parameters_size(self.encoder.latent_dim)))
        sizes = parameters_of_q(self.encoder, image_shape, condition, self.posterior.parameters)
        self.latent_dim = self.posterior.latent_dim_of(sizes)

    def _build_decoder(self, image_shape: tuple[int, ...], condition: Any) -> None:
        wanted = tuple(self.likelihood.parameters_shape(image_shape))
        if self.decoder is None:
            self.decoder = networks.mirrored(self.encoder, image_shape, wanted, self._output_bias)
            place_layer(self, self.decoder, 1)  # after the encoder, as in a model with decoder=
        check_decoder(self.decoder, self.latent_dim, condition, image_shape, wanted)

    def added_losses(self, x: tf.Tensor, draws: objectives.Draws) -> dict[str, tf.Tensor]:
        """Terms that a subclass adds to the loss.

        A subclass that overrides this method and `added_metrics` keeps the fast path of `fit`.

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

        Raises:
            UserError: if the objective cannot train a model of these parts.
        """
        hooks = (type(self).added_losses, type(self).added_metrics, type(self.objective).terms)
        if hooks == (Assembly.added_losses, Assembly.added_metrics, objectives.Objective.terms):
            self._further_metrics = {}
            return
        x = tf.zeros([1, *self.image_shape])
        condition = None if self.condition_shape is None else tf.zeros([1, *self.condition_shape])
        noise = Keyed(0, Stream.EVALUATION, 0, tf.zeros([1], tf.int32))
        draws = self.draw(x, noise, self.samples, condition)
        names = list(self._further_terms(x, draws))
        if taken := [name for name in names if name in (metric.name for metric in self._means)]:
            raise UserError(
                f"Expected terms and metrics with names of their own. Received {taken[0]!r}, which is a metric of "
                "every model. Choose another name in Objective.terms, added_losses or added_metrics."
            )
        with self.distribute_strategy.scope():
            self._further_metrics = {name: keras.metrics.Mean(name=name) for name in names}

    def get_config(self) -> dict[str, Any]:
        mirrored = self.decoder is None and self._output_bias is not None
        return {
            **super().get_config(),
            **{name: keras.saving.serialize_keras_object(getattr(self, name)) for name in PARTS},
            "output_bias": self._output_bias.tolist() if mirrored else None,
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

    def _export_signature(self) -> Any:
        """The inputs of `call` for any batch size: x, and the condition of a conditional model."""
        self._check_built()
        shapes = {"x": self.image_shape, "condition": self.condition_shape}
        return [
            tf.TensorSpec([None, *shape], tf.float32, name=name) for name, shape in shapes.items() if shape is not None
        ]

    # Checks

    def _check_built(self) -> None:
        check_process()
        if self.image_shape is None:
            raise UserError(
                "Expected a model that is built, so that it knows its image shape. Call fit, or "
                "build((None, 28, 28, 1)), first."
            )

    def _check_x(self, x: Array) -> tf.Tensor:
        check_process()
        x = tf.convert_to_tensor(given_images.as_array(x, self._known_image_shape))
        x = tf.cast(given_images.with_channels(x, self._known_image_shape), tf.float32)
        if self.image_shape is None and x.shape.rank and x.shape.rank > 1:
            self.build(x.shape)
        self._check_built()
        if tuple(x.shape[1:]) != self.image_shape or x.shape.rank != 1 + len(self.image_shape):
            raise UserError(f"Expected x of shape [B, {join(self.image_shape)}]. Received {x.shape.as_list()}.")
        return x

    def _check_z(self, z: Array) -> tf.Tensor:
        self._check_built()
        z = tf.cast(tf.convert_to_tensor(z), tf.float32)
        if z.shape.rank == 0 or z.shape[-1] != self.latent_dim:
            raise UserError(f"Expected z of shape [..., {self.latent_dim}]. Received {z.shape.as_list()}.")
        return z

    def _check_condition(self, condition: Array | None, count: Any) -> tf.Tensor | None:
        """The condition of `count` images."""
        return check_condition(condition, self.condition_shape, count)

    def _check_condition_of(self, z: tf.Tensor, condition: Array | None) -> tf.Tensor | None:
        """The condition of the images of z `[..., B, D]`."""
        return check_condition(condition, self.condition_shape, tf.shape(z)[-2] if z.shape.rank > 1 else None)
