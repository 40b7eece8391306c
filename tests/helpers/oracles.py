"""What the tests of completion and of quadrature compare with: a model whose every integral has a closed form, and a
grid over the latent plane for those that have none. NumPy and SciPy alone compute the values."""

import math
from typing import NamedTuple

import numpy as np
from scipy import special, stats

import kvae
from kvae.internal.tensorflow import tf
from kvae.model import densities, likelihoods, priors
from kvae.noise.streams import Stream


class Normal(NamedTuple):
    mean: np.ndarray  # [N]
    covariance: np.ndarray  # [N, N]


class LinearGaussian(likelihoods.Likelihood):
    """x ~ N(logits, s^2)."""

    def __init__(self, s, **kwargs):
        super().__init__(**kwargs)
        self.s = s

    def log_prob_of_pixels(self, x, parameters):
        return densities.gaussian_log_density(x, parameters, 2 * math.log(self.s))

    def mean(self, parameters):
        return parameters

    def sample(self, parameters, noise):
        return parameters + self.s * noise.normal(tuple(parameters.shape[1:]), Stream.PIXELS)


class Moved(priors.Prior):
    """p(z) = N(centre, scale^2), or N(centre + c, scale^2) in a model whose condition is a number c per image.

    The dimensions are independent; `centre` and `scale` are numbers or `[D]`.
    """

    def __init__(self, centre, scale, **kwargs):
        super().__init__(**kwargs)
        self.centre, self.scale = np.float32(centre), np.float32(scale)

    def log_prob(self, z, condition=None):
        log_density = densities.gaussian_log_density(z, self._mean(condition), 2 * np.log(self.scale))
        return tf.reduce_sum(log_density, axis=-1)

    def sample(self, noise, condition=None):
        return self._mean(condition) + self.scale * noise.normal((self.latent_dim,), Stream.LATENT)

    def _mean(self, condition):
        return self.centre if condition is None else self.centre + condition[:, None]


class LinearModel:
    """z ~ N(m, t^2 I), x = W z + b + s e, where all is Gaussian; with m = 0 and t = 1 probabilistic PCA, Tipping and
    Bishop (1999).

    Images are flat here, `[P]`, and `pixels` `[P]` says which of them count; `vae` is the model of kvae.

    Args:
        weights: W, `[P, D]`.
        bias: b, `[P]`.
        s: standard deviation of a pixel.
        image_shape: of P pixels.
        centre: m, a number or `[D]`.
        scale: t.
        **options: of `kvae.VAE`.
    """

    def __init__(self, weights, bias, s, image_shape, centre=0.0, scale=1.0, **options):
        # Rounded to float32, so that kvae computes with the very same numbers.
        self.weights, self.bias, centre = (
            np.asarray(part, np.float32).astype(np.float64) for part in (weights, bias, centre)
        )
        latent_dim = self.weights.shape[1]
        self.s, self.centre, self.scale = s, np.broadcast_to(centre, latent_dim), scale
        if centre.any() or scale != 1:
            options |= {"prior": Moved(self.centre, scale)}
        self.vae = kvae.VAE(latent_dim, hidden_units=(), likelihood=LinearGaussian(s), seed=1, **options)
        self.vae.build((None, *image_shape))
        self.vae.decoder.set_weights([self.weights.T, self.bias])

    def log_evidence(self, x, pixels=slice(None)):
        """log p(x_pixels) = log N(x; W m + b, t^2 W W' + s^2 I), nats."""
        w = self.weights[pixels]
        covariance = self.scale**2 * w @ w.T + self.s**2 * np.eye(len(w))
        mean = w @ self.centre + self.bias[pixels]
        return stats.multivariate_normal(mean, covariance).logpdf(np.float64(x)[pixels])

    def posterior(self, x, pixels=slice(None)):
        """p(z | x_pixels); Bishop, "Pattern Recognition and Machine Learning" (2006), equations 2.116 and 2.117."""
        w = self.weights[pixels]
        difference = (np.float64(x) - self.bias)[pixels] - w @ self.centre
        covariance = np.linalg.inv(np.eye(w.shape[1]) / self.scale**2 + w.T @ w / self.s**2)
        return Normal(self.centre + covariance @ w.T @ difference / self.s**2, covariance)

    def predictive(self, x, pixels):
        """p(the other pixels | x_pixels)."""
        z, w = self.posterior(x, pixels), self.weights[~pixels]
        return Normal(self.bias[~pixels] + w @ z.mean, w @ z.covariance @ w.T + self.s**2 * np.eye(len(w)))


def continuous_bernoulli_log_normalizer(logit):
    """log C = log(l / tanh(l / 2)), and log 2 at l = 0; Loaiza-Ganem and Cunningham (2019), equation 2."""
    safe = np.where(logit == 0, 1.0, logit)
    return np.where(logit == 0, math.log(2.0), np.log(safe / np.tanh(safe / 2)))


def continuous_bernoulli_mean(logit):
    """Their equation 8, and 1/2 at l = 0."""
    safe = np.where(logit == 0, 1.0, logit)
    return np.where(logit == 0, 0.5, -1 / np.expm1(-safe) - 1 / safe)


def bernoulli_log_density(x, logit):
    return x * special.log_expit(logit) + (1 - x) * special.log_expit(-logit)


# log p(x|z) of a pixel from its logit, nats
LOG_DENSITIES = {
    "bernoulli": bernoulli_log_density,
    "continuous_bernoulli": lambda x, logit: (
        bernoulli_log_density(x, logit) + continuous_bernoulli_log_normalizer(logit)
    ),
    "gaussian": lambda x, logit: stats.norm.logpdf(x, special.expit(logit)),
}
# E[x|z] of a pixel
MEANS = {"bernoulli": special.expit, "continuous_bernoulli": continuous_bernoulli_mean, "gaussian": special.expit}


def mlp(vae):
    """A decoder of dense layers with tanh as a function of z `[..., D]` that returns the logits `[..., P]`, float64."""
    *hidden, kernel, bias = (np.float64(weight) for weight in vae.decoder.get_weights())

    def logits(z):
        h = np.asarray(z, np.float64)
        for weight, offset in zip(hidden[::2], hidden[1::2], strict=True):
            h = np.tanh(h @ weight + offset)
        return h @ kernel + bias

    return logits


class Plane:
    """p(x, z) of a model with a latent plane, by default with a decoder of dense layers, on a grid over [-8, 8]^2.

    The trapezoidal rule of so smooth an integrand that vanishes at the edges (1e-14) errs exponentially little.

    Args:
        vae: a built model.
        x: `[B, *image]`.
        likelihood: its name.
        logits: z `[G, 2]` -> `[G, P]`, where the decoder is another.
    """

    def __init__(self, vae, x, likelihood="bernoulli", logits=None):
        side = np.linspace(-8.0, 8.0, 161)
        self.z = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
        self.log_cell = 2 * math.log(side[1] - side[0])
        logits = (logits or mlp(vae))(self.z)
        flat = np.float64(x).reshape(len(x), 1, -1)
        self.log_pixels = LOG_DENSITIES[likelihood](flat, logits[None])  # [B, G, P]
        self.means = MEANS[likelihood](logits)  # [G, P]
        self.log_prior = stats.norm.logpdf(self.z).sum(axis=-1)

    def log_joint(self, pixels):
        """log p(x_pixels, z), `[B, G]`; `pixels` broadcasts to `[B, P]`, True for those that count."""
        pixels = np.broadcast_to(pixels, self.log_pixels[:, 0].shape)
        return np.where(pixels[:, None], self.log_pixels, 0.0).sum(axis=-1) + self.log_prior

    def log_evidence(self, pixels=True):
        """log p(x_pixels), `[B]` nats."""
        return special.logsumexp(self.log_joint(pixels), axis=1) + self.log_cell

    def posterior(self, pixels):
        """p(z | x_pixels) of the points of the grid, `[B, G]`, which sum to 1."""
        return special.softmax(self.log_joint(pixels), axis=1)

    def log_q(self, mean, log_var):
        """log N(z; mean, exp(log_var)) of the points of the grid, `[B, G]`; mean and log_var `[B, 2]`."""
        mean, deviation = np.float64(mean)[:, None], np.exp(np.float64(log_var) / 2)[:, None]
        return stats.norm.logpdf(self.z, mean, deviation).sum(axis=-1)
