"""Parts that a user might write, each with the public interface of its kind and nothing of kvae's internals."""

import keras
import numpy as np
import tensorflow as tf

from kvae.model import densities, likelihoods, objectives, posteriors, priors
from kvae.noise.streams import Stream

registered = keras.saving.register_keras_serializable("own_parts")


@registered
class Mixture(priors.Prior):
    """p(z) = 1/M sum_m N(z; mean_m, exp(log_scale_m)^2), with learned means and scales."""

    def __init__(self, components=3, **kwargs):
        super().__init__(**kwargs)
        self.components = components

    def build(self, latent_dim):
        super().build(latent_dim)
        shape = (self.components, latent_dim)
        spread = keras.initializers.RandomNormal(1.0, seed=1)
        self.centres = self.add_weight(name="centres", shape=shape, initializer=spread)
        self.log_scales = self.add_weight(name="log_scales", shape=shape, initializer="zeros")

    def log_prob(self, z, condition=None):
        each = densities.gaussian_log_density(z[..., None, :], self.centres.value, 2 * self.log_scales.value)
        return tf.reduce_logsumexp(tf.reduce_sum(each, -1), -1) - np.log(self.components)

    def sample(self, noise, condition=None):
        u = noise.uniform((), Stream.CHOICE)
        chosen = tf.cast(tf.floor(u * self.components), tf.int32)
        centre, scale = tf.gather(self.centres.value, chosen), tf.exp(tf.gather(self.log_scales.value, chosen))
        return centre + scale * noise.normal((self.latent_dim,), Stream.LATENT)

    def get_config(self):
        return {**super().get_config(), "components": self.components}


@registered
class TwoNumberGaussian(likelihoods.Likelihood):
    """x ~ N(mean, variance), both of them the decoder's, one pair per pixel; any real pixel has a density."""

    support = (-np.inf, np.inf, False)

    def parameters_shape(self, image_shape):
        return (*image_shape, 2)

    def log_prob_of_pixels(self, x, parameters):
        return densities.gaussian_log_density(x, parameters[..., 0], self._log_var(parameters))

    def mean(self, parameters):
        return parameters[..., 0]

    def sample(self, parameters, noise):
        numbers = noise.normal(tuple(parameters.shape[1:-1]), Stream.PIXELS)
        return parameters[..., 0] + tf.exp(0.5 * self._log_var(parameters)) * numbers

    def _log_var(self, parameters):
        return 4.0 * tf.tanh(parameters[..., 1] / 4.0) - 2.0  # between -6 and 2


@registered
class Vamp(priors.Prior):
    """p(z) = 1/M sum_m q(z|u_m) with learned pseudo-inputs u; Tomczak and Welling, "VAE with a VampPrior" (2018)."""

    def __init__(self, components=4, **kwargs):
        super().__init__(**kwargs)
        self.components = components

    def build(self, latent_dim, image_shape):
        super().build(latent_dim)
        start = keras.initializers.RandomUniform(0.0, 1.0, seed=1)
        self.inputs = self.add_weight(name="inputs", shape=(self.components, *image_shape), initializer=start)

    def bind(self, encode):
        self.encode = encode

    def log_prob(self, z, condition=None):
        mean, log_var = self.encode(tf.clip_by_value(self.inputs.value, 0.0, 1.0))
        each = densities.gaussian_log_density(z[..., None, :], mean, log_var)
        return tf.reduce_logsumexp(tf.reduce_sum(each, -1), -1) - np.log(self.components)

    def sample(self, noise, condition=None):
        return self.frozen().sample(noise, condition)

    def frozen(self):
        mixture = Mixture(self.components)
        mixture.build(self.latent_dim)
        mean, log_var = self.encode(tf.clip_by_value(self.inputs.value, 0.0, 1.0))
        mixture.centres.assign(mean)
        mixture.log_scales.assign(0.5 * log_var)
        return mixture


class Gumbel(posteriors.Distribution):
    """z = location - scale log(-log u): a q without a mean and a log variance, and with no covariance to ask for."""

    def __init__(self, location, log_scale):
        self.location, self.log_scale = location, log_scale

    def sample_and_log_prob(self, noise, samples):
        u = tf.transpose(noise.uniform((samples, self.location.shape[-1]), Stream.POSTERIOR), [1, 0, 2]) + 2.0**-25
        z = self.location - tf.exp(self.log_scale) * tf.math.log(-tf.math.log(u))
        return z, self.log_prob(z)

    def log_prob(self, z):
        y = (z - self.location) * tf.exp(-self.log_scale)
        return tf.reduce_sum(-self.log_scale - y - tf.exp(-y), axis=-1)


@registered
class GumbelPosterior(posteriors.Posterior):
    """The family of `Gumbel`: the encoder emits one tensor `[B, 2 D]`."""

    def parameters_size(self, latent_dim):
        return 2 * latent_dim

    def distribution(self, parameters):
        location, log_scale = tf.split(tf.cast(parameters, tf.float32), 2, axis=-1)
        return Gumbel(location, tf.clip_by_value(log_scale, -6.0, 2.0))


@registered
class PIWAE(objectives.Objective):
    """K draws: the mean of log w for encoder and posterior, the importance-weighted bound for all else.

    Rainforth et al., "Tighter Variational Bounds are Not Necessarily Better" (2018), section 4.3, with M = K.
    """

    def __init__(self, samples=5):
        self.samples = samples

    def loss(self, draws, step):
        tight = objectives.importance_weighted_bound(draws.log_weights)
        return -tf.reduce_mean(draws.log_weights, axis=0), -tight

    def terms(self, draws):
        w = tf.nn.softmax(draws.log_weights, axis=0)
        return {"effective_samples": 1 / tf.reduce_sum(tf.square(w), axis=0)}

    def get_config(self):
        return {"samples": self.samples}
