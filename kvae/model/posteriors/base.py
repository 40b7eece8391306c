"""What every q(z|x) and every family of q(z|x) must do."""

import warnings
from collections.abc import Callable
from typing import Any

from kvae.internal.errors import UserError
from kvae.internal.tensorflow import tf
from kvae.model import parts
from kvae.model.priors import Prior
from kvae.noise.keyed import Keyed, Noise
from kvae.noise.streams import Stream

MEAN_DRAWS = 64  # number of draws of q for a mean without a closed form


class Distribution:
    """q(z|x) for a batch of B images.

    A subclass must define `sample_and_log_prob`. Some evaluations and objectives also need `log_prob`.
    """

    @property
    def mean(self) -> tf.Tensor:
        """E_q[z], `[B, D]`. By default the mean of 64 draws, with the same random numbers for each image."""
        z, _ = self.sample_and_log_prob(Keyed(0, Stream.POSTERIOR_MEAN, tf.zeros([1], tf.int32)), MEAN_DRAWS)
        return tf.reduce_mean(z, axis=0)

    @property
    def covariance(self) -> tf.Tensor | None:
        """Covariance matrix, `[B, D, D]`, or None if it is not known. Figures show it as an ellipse."""
        return None

    def sample_and_log_prob(self, noise: Noise, samples: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Reparameterized draws and their log densities.

        Args:
            noise: source of the random numbers for B images, whose stream is `Stream.POSTERIOR`.
            samples: number of draws per image, K.

        Returns:
            z `[K, B, D]` and log q(z|x) `[K, B]`, nats.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method sample_and_log_prob(noise, samples).")

    def log_prob(self, z: tf.Tensor) -> tf.Tensor:
        """log q(z|x) in nats, z `[K, B, D]` -> `[K, B]`."""
        raise NotImplementedError(f"{type(self).__name__} needs a method log_prob(z): its density is not known.")

    def kl(self, prior: Prior) -> tf.Tensor | None:
        """KL(q || prior) in closed form, nats: `[B, D]` per latent dimension, or `[B]`. None if there is none."""
        return None

    def stop_gradient(self) -> "Distribution":
        """The same distribution without gradients of its parameters. `log_prob` still has a gradient in z."""
        if hasattr(self, "stopped"):  # its name in kvae 0.2
            warnings.warn(
                "The method stopped() of a Distribution is now stop_gradient().", DeprecationWarning, stacklevel=2
            )
            return self.stopped()
        raise NotImplementedError(f"{type(self).__name__} needs a method stop_gradient().")

    def take(self, images: tf.Tensor) -> "Distribution":
        """q(z|x) of N of the images, by their indices `[N]` int32, which may repeat. The prior `VampPrior` needs it."""
        raise NotImplementedError(f"{type(self).__name__} needs a method take(images).")

    def convert(self, function: Callable[[Any], Any]) -> "Distribution":
        """The same distribution with `function` applied to each of its tensors. An export of `VampPrior` needs it."""
        raise NotImplementedError(f"{type(self).__name__} needs a method convert(function).")

    def tensors(self) -> dict[str, tf.Tensor]:
        """The outputs of the exported endpoint `encode`, by name. The mean by default."""
        return {"mean": self.mean}


class NamedTensors(Distribution):
    """A distribution that is a named tuple of tensors, each `[B, ...]`, or of structures of tensors."""

    __slots__ = ()

    def stop_gradient(self) -> Distribution:
        return self.convert(tf.stop_gradient)

    def take(self, images: tf.Tensor) -> Distribution:
        return self.convert(lambda tensor: tf.gather(tensor, images))

    def convert(self, function: Callable[[Any], Any]) -> Distribution:
        return tf.nest.map_structure(function, self)


class Posterior(parts.Part):
    """A family of q(z|x): it makes a distribution of the parameters that an encoder returns.

    A subclass must define `parameters_size` and `distribution`.

    Attributes:
        parameters: what an encoder must return, in words, for error messages.
    """

    parameters = "the parameters of q(z|x)"

    def build(self, latent_dim: int) -> None:
        """Makes the weights of the family, if it has any."""

    def parameters_size(self, latent_dim: int) -> int | tuple[int, ...]:
        """Width of the encoder's output `[B, width]` for D = `latent_dim`, or a tuple of widths for several outputs."""
        raise NotImplementedError(f"{type(self).__name__} needs a method parameters_size(latent_dim).")

    def distribution(self, parameters: Any) -> Distribution:
        """q(z|x) for a batch.

        Args:
            parameters: output of the encoder, a tensor or a tuple of tensors, each `[B, width]`.

        Returns:
            The distribution, in float32.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method distribution(parameters).")

    def latent_dim_of(self, sizes: tuple[int, ...]) -> int:
        """The latent size D for which an encoder must return tensors of these widths.

        Raises:
            UserError: if there is no such D.
        """
        for latent_dim in range(1, sum(sizes) + 1):
            if as_sizes(self.parameters_size(latent_dim)) == sizes:
                return latent_dim
        raise UserError(f"Expected the encoder to return {self.parameters}. Received tensors of widths {sizes}.")


def as_sizes(sizes: int | tuple[int, ...]) -> tuple[int, ...]:
    """The result of `parameters_size` as a tuple."""
    return (sizes,) if isinstance(sizes, int) else tuple(sizes)
