"""The posterior by an inverse autoregressive flow."""

from typing import Any, NamedTuple

import numpy as np

from kvae.internal import memory
from kvae.internal.errors import check_whole
from kvae.internal.tensorflow import keras, tf
from kvae.model import densities, parts
from kvae.model.posteriors.base import NamedTensors, Posterior
from kvae.noise.keyed import Noise
from kvae.noise.streams import Stream

MOST_GATE = 2.0  # of the logit of a gate in magnitude: the inversion of a step divides by its gate, in float32
START = 2.0  # of the gates' biases, so that a step changes z little before training: section 4 of the paper


class AutoregressiveStep(NamedTuple):
    """One step of the flow: a network whose outputs number i depend only on z_1, ..., z_(i-1) and on the image."""

    of_z: tf.Tensor  # [D, H], masked
    of_context: tf.Tensor  # [B, H]  what the network adds for the image
    output: tf.Tensor  # [H, 2 D], masked
    bias: tf.Tensor  # [2 D]

    def shift_and_gate(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """m `[K, B, D]` and the logit of sigma `[K, B, D]` for z `[K, B, D]`."""
        hidden = tf.tanh(tf.tensordot(z, self.of_z, axes=1) + self.of_context)
        shift, gate = tf.split(tf.tensordot(hidden, self.output, axes=1) + self.bias, 2, axis=-1)
        return shift, MOST_GATE * tf.tanh(gate / MOST_GATE)

    def forward(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """sigma z + (1 - sigma) m, and log det of its derivative, `[K, B]`."""
        shift, gate = self.shift_and_gate(z)
        sigma = tf.sigmoid(gate)
        return sigma * z + (1.0 - sigma) * shift, tf.reduce_sum(tf.math.log_sigmoid(gate), axis=-1)

    def inverse(self, after: tf.Tensor) -> tf.Tensor:
        """The z that `forward` maps to `after`. Each round finds one more coordinate, so D rounds find all."""

        def improved(z: tf.Tensor) -> tuple[tf.Tensor]:
            shift, gate = self.shift_and_gate(z)
            return ((after - tf.sigmoid(-gate) * shift) / tf.sigmoid(gate),)

        start = (tf.zeros_like(after),)
        return tf.while_loop(lambda _: True, improved, start, maximum_iterations=after.shape[-1])[0]


class _Parameters(NamedTuple):
    start_mean: tf.Tensor  # [B, D]
    start_log_var: tf.Tensor  # [B, D]
    steps: tuple[AutoregressiveStep, ...]


class InverseAutoregressive(_Parameters, NamedTensors):
    """The distribution of z_T, where z_0 = mean + sigma e is Gaussian and each step makes z_t of z_(t-1).

    Its mean is that of 64 draws, and its covariance is not known.
    """

    __slots__ = ()

    def sample_and_log_prob(self, noise: Noise, samples: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Draws and their densities, at the cost of one pass; Kingma et al. (2016), algorithm 1."""
        numbers = noise.normal((samples, self.start_mean.shape[-1]), Stream.POSTERIOR)
        z = densities.reparameterize(self.start_mean, self.start_log_var, tf.transpose(numbers, [1, 0, 2]))
        log_q = self._start_log_prob(z)
        for step in self.steps:
            z, log_determinant = step.forward(z)
            log_q -= log_determinant
            z = tf.reverse(z, axis=[-1])
        return z, log_q

    def log_prob(self, z: tf.Tensor) -> tf.Tensor:
        """log q(z|x), z `[K, B, D]` -> `[K, B]`, by inversion of all steps, at D times the cost of a draw."""
        log_determinants = tf.zeros_like(z[..., 0])
        for step in reversed(self.steps):
            z = step.inverse(tf.reverse(z, axis=[-1]))
            log_determinants += step.forward(z)[1]
        return self._start_log_prob(z) - log_determinants

    def take(self, images: tf.Tensor) -> "InverseAutoregressive":
        steps = [step._replace(of_context=tf.gather(step.of_context, images)) for step in self.steps]
        mean, log_var = (tf.gather(part, images) for part in (self.start_mean, self.start_log_var))
        return InverseAutoregressive(mean, log_var, tuple(steps))

    def _start_log_prob(self, z: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(densities.gaussian_log_density(z, self.start_mean, self.start_log_var), axis=-1)


@keras.saving.register_keras_serializable("kvae")
class IAF(Posterior):
    """q(z|x) by an inverse autoregressive flow: a Gaussian whose draws pass through autoregressive steps.

        z_t = sigma_t z_(t-1) + (1 - sigma_t) m_t,   log q(z_T|x) = log N(z_0; mean, exp(log_var)) - sum_t log sigma_t

    Kingma et al., "Improved Variational Inference with Inverse Autoregressive Flow" (2016), section 4 and algorithm 1.
    The numbers m_t and sigma_t of coordinate i come from a network with one hidden layer that sees the coordinates
    before i and a context of the image; its weights are masked as in Germain et al., "MADE" (2015), section 3. The
    logits of sigma_t are kept within -2 and 2, so that a step can be inverted in float32. The order of the coordinates
    is reversed after each step. The KL term is computed from the draws.

    Args:
        steps: number of steps, T. With 0, q is that of `DiagonalGaussian`, with a sampled KL term. 2
            by default.
        step_units: width of the hidden layer of each step. 64 by default.
        context: number of numbers that the encoder returns for all steps. 16 by default.

    Raises:
        UserError: if an argument is not a whole number, `steps` is below 0 or another is below 1.
    """

    parameters = "(mean, log_var, context) of widths D, D and the option context; with no steps (mean, log_var)"

    def __init__(self, steps: int = 2, step_units: int = 64, context: int = 16, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.steps = check_whole("steps", steps, least=0)
        self.step_units = check_whole("step_units", step_units)
        self.context = check_whole("context", context)

    def build(self, latent_dim: int, seed: int | None = None) -> None:
        units, seeds = self.step_units, parts.seeds(seed, 3)
        # A hidden unit sees the coordinates up to its degree, and output i the units of a degree below i. Those of
        # degree 0 see the image alone.
        coordinates = np.arange(1, latent_dim + 1)
        degrees = np.arange(units) % latent_dim
        self._mask = (coordinates[:, None] <= degrees).astype(np.float32)
        self._output_mask = np.tile(degrees[:, None] < coordinates, (1, 2)).astype(np.float32)
        self.weights_of_steps = []
        for number in range(self.steps):
            memory.claim((latent_dim + self.context + 1) * units + 2 * latent_dim * (units + 1), units, decodes=True)
            shapes = {
                "of_z": (latent_dim, units),
                "of_context": (self.context, units),
                "hidden_bias": (units,),
                "output": (units, 2 * latent_dim),
                "bias": (2 * latent_dim,),
            }
            self.weights_of_steps.append(
                {
                    name: self.add_weight(
                        name=f"{name}_{number}",
                        shape=shape,
                        initializer="zeros" if "bias" in name else keras.initializers.GlorotUniform(seed=next(seeds)),
                    )
                    for name, shape in shapes.items()
                }
            )

    def parameters_size(self, latent_dim: int) -> tuple[int, ...]:
        return (latent_dim, latent_dim, self.context) if self.steps else (latent_dim, latent_dim)

    def distribution(self, parameters: Any) -> InverseAutoregressive:
        mean, log_var, *context = (tf.cast(part, tf.float32) for part in parameters)
        start = tf.repeat([0.0, START], mean.shape[-1])  # of the biases of m and of the logit of sigma
        steps = tuple(
            AutoregressiveStep(
                weights["of_z"].value * self._mask,
                tf.matmul(context[0], weights["of_context"].value) + weights["hidden_bias"].value,
                weights["output"].value * self._output_mask,
                weights["bias"].value + start,
            )
            for weights in self.weights_of_steps
        )
        return InverseAutoregressive(mean, log_var, steps)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "steps": self.steps, "step_units": self.step_units, "context": self.context}
