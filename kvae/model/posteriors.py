"""q(z|x): what an encoder's parameters stand for. One class a family, and one for its members."""

from typing import Any, NamedTuple

from kvae.internal.errors import UserError
from kvae.internal.tensorflow import keras, tf
from kvae.model import densities, parts
from kvae.model.priors import Prior, StandardNormal
from kvae.noise.keyed import Keyed, Noise
from kvae.noise.streams import Stream

MEAN_DRAWS = 64  # of q, for a mean that has no closed form


class Distribution:
    """q(z|x) of a batch of B images. A q of yours needs `sample_and_log_prob`, and `log_prob` to complete images."""

    @property
    def mean(self) -> tf.Tensor:
        """E_q[z], `[B, D]`: by default the mean of 64 draws, made of the same numbers for every image."""
        z, _ = self.sample_and_log_prob(Keyed(0, Stream.POSTERIOR_MEAN, tf.zeros([1], tf.int32)), MEAN_DRAWS)
        return tf.reduce_mean(z, axis=0)

    @property
    def covariance(self) -> tf.Tensor | None:
        """`[B, D, D]`, or None where it is not known: then a picture shows no ellipse."""
        return None

    def sample_and_log_prob(self, noise: Noise, samples: int) -> tuple[tf.Tensor, tf.Tensor]:
        """K draws an image, reparameterized, and their log density: z `[K, B, D]` and log q(z|x) `[K, B]`, nats."""
        raise NotImplementedError(f"{type(self).__name__} needs a method sample_and_log_prob(noise, samples).")

    def log_prob(self, z: tf.Tensor) -> tf.Tensor:
        """log q(z|x) in nats, z `[K, B, D]` -> `[K, B]`."""
        raise NotImplementedError(f"{type(self).__name__} needs a method log_prob(z): its density is not known.")

    def kl(self, prior: Prior) -> tf.Tensor | None:
        """KL(q || prior) in closed form: per latent dimension `[B, D]`, or `[B]`; None where there is none."""
        return None

    def stopped(self) -> "Distribution":
        """The same distribution, through whose parameters no gradient flows; `log_prob` still has one in z."""
        raise NotImplementedError(f"{type(self).__name__} needs a method stopped().")

    def tensors(self) -> dict[str, tf.Tensor]:
        """What the exported endpoint `encode` returns, by name; the mean by default."""
        return {"mean": self.mean}


class _MeanAndLogVar(NamedTuple):
    mean: tf.Tensor  # [B, D]
    log_var: tf.Tensor  # [B, D]


class Gaussian(_MeanAndLogVar, Distribution):
    """N(mean, exp(log_var)), factorized. A tuple of the two, each `[B, D]`: `mean, log_var = vae.encode(x)`."""

    __slots__ = ()

    @property
    def covariance(self) -> tf.Tensor:
        return tf.linalg.diag(tf.exp(self.log_var))

    def sample_and_log_prob(self, noise: Noise, samples: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Kingma and Welling (2014), section 2.4: z = mean + exp(log_var / 2) * noise."""
        numbers = noise.normal((samples, self.mean.shape[-1]), Stream.POSTERIOR)
        z = densities.reparameterize(self.mean, self.log_var, tf.transpose(numbers, [1, 0, 2]))
        return z, self.log_prob(z)

    def log_prob(self, z: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(densities.gaussian_log_density(z, self.mean, self.log_var), axis=-1)

    def kl(self, prior: Prior) -> tf.Tensor | None:
        if not isinstance(prior, StandardNormal):
            return None
        return densities.gaussian_kl(self.mean, self.log_var)

    def stopped(self) -> "Gaussian":
        return Gaussian(*map(tf.stop_gradient, self))

    def tensors(self) -> dict[str, tf.Tensor]:
        return self._asdict()


class Posterior(parts.Part):
    """A family of q(z|x): how many parameters an encoder must emit, and what they stand for."""

    #: what an encoder returns, in words
    parameters = "the parameters of q(z|x)"

    def build(self, latent_dim: int) -> None:
        """Makes the family's own weights, where it has some."""

    def parameters_size(self, latent_dim: int) -> int | tuple[int, ...]:
        """Width of what the encoder emits for D = `latent_dim`: of its tensor `[B, size]`, or of each of several."""
        raise NotImplementedError(f"{type(self).__name__} needs a method parameters_size(latent_dim).")

    def distribution(self, parameters: Any) -> Distribution:
        """q of a batch from what the encoder returned, in float32."""
        raise NotImplementedError(f"{type(self).__name__} needs a method distribution(parameters).")

    def latent_dim_of(self, sizes: tuple[int, ...]) -> int:
        """D of an encoder that emits tensors of these widths.

        Raises:
            UserError: there is no such D.
        """
        for latent_dim in range(1, sum(sizes) + 1):
            if as_sizes(self.parameters_size(latent_dim)) == sizes:
                return latent_dim
        raise UserError(f"Expected the encoder to return {self.parameters}. Received tensors of widths {sizes}.")


@keras.saving.register_keras_serializable("kvae")
class DiagonalGaussian(Posterior):
    """q(z|x) = N(mean, exp(log_var)), factorized; Kingma and Welling (2014), equation 9."""

    parameters = "(mean, log_var), each [B, D]"

    def parameters_size(self, latent_dim: int) -> tuple[int, ...]:
        return latent_dim, latent_dim

    def distribution(self, parameters: Any) -> Gaussian:
        mean, log_var = parameters
        return Gaussian(tf.cast(mean, tf.float32), tf.cast(log_var, tf.float32))


POSTERIORS: dict[str, type[Posterior]] = {"diagonal_gaussian": DiagonalGaussian}


def get(posterior: "str | Posterior") -> Posterior:
    """A posterior from its name in `POSTERIORS` or as it is; raises `UserError` for neither."""
    return parts.chosen("posterior", posterior, POSTERIORS, Posterior)


def name_of(posterior: Posterior) -> str:
    """The name by which `get` knows a posterior, or the class's name where it is the user's own."""
    return parts.name_of(posterior, POSTERIORS)


def as_sizes(sizes: int | tuple[int, ...]) -> tuple[int, ...]:
    """What `parameters_size` returns, as a tuple."""
    return (sizes,) if isinstance(sizes, int) else tuple(sizes)
