"""What the tests of completion and of quadrature compare with: a model whose every integral has a closed form, and a
grid over the latent plane for those that have none. NumPy and SciPy only, but for the logits of the model itself."""

import math
from typing import NamedTuple

import numpy as np
from scipy import special, stats

import kvae
from kvae import distributions, likelihoods, noise


class Linear(likelihoods.Likelihood):
    """x ~ N(logits, s^2): with a decoder of no hidden layer, the probabilistic PCA of Tipping and Bishop (1999)."""

    def __init__(self, s, **kwargs):
        super().__init__(**kwargs)
        self.s = s

    def log_prob(self, x, logits):
        return distributions.gaussian_log_density(x, logits, 2 * math.log(self.s))

    def means(self, logits):
        return logits

    def sample(self, logits, key):
        return logits + self.s * noise.normal(tuple(logits.shape[1:]), *key)


class Gaussian(NamedTuple):
    mean: np.ndarray
    covariance: np.ndarray


class LinearModel:
    """z ~ N(0, I), x = W z + b + s e, and what follows of it in closed form; x is flat, `[P]`."""

    def __init__(self, weights, bias, s, image_shape):
        self.weights, self.bias, self.s = np.asarray(weights, float), np.asarray(bias, float), s  # [P, D], [P]
        latent_dim = self.weights.shape[1]
        self.vae = kvae.VAE(latent_dim, hidden_units=(), likelihood=Linear(s), seed=1)
        self.vae.build((None, *image_shape))
        self.vae.decoder.set_weights([self.weights.T, self.bias])

    def marginal(self, pixels=slice(None)):
        """Of these pixels: N(b, W W' + s^2 I)."""
        w = self.weights[pixels]
        return Gaussian(self.bias[pixels], w @ w.T + self.s**2 * np.eye(len(w)))

    def log_evidence(self, x, pixels=slice(None)):
        """log p(x_pixels), nats."""
        return stats.multivariate_normal(*self.marginal(pixels)).logpdf(np.asarray(x, float)[pixels])

    def posterior(self, x, pixels=slice(None)):
        """p(z | x_pixels): Bishop, "Pattern Recognition and Machine Learning" (2006), equation 12.42."""
        w, rest = self.weights[pixels], (np.asarray(x, float) - self.bias)[pixels]
        covariance = np.linalg.inv(np.eye(w.shape[1]) + w.T @ w / self.s**2)
        return Gaussian(covariance @ w.T @ rest / self.s**2, covariance)

    def predictive(self, x, observed):
        """p(x_missing | x_observed)."""
        z, w = self.posterior(x, observed), self.weights[~observed]
        noise_ = self.s**2 * np.eye(len(w))
        return Gaussian(self.bias[~observed] + w @ z.mean, w @ z.covariance @ w.T + noise_)


LOG_DENSITIES = {
    "bernoulli": lambda x, l: x * special.log_expit(l) + (1 - x) * special.log_expit(-l),
    "continuous_bernoulli": lambda x, l: (
        x * special.log_expit(l) + (1 - x) * special.log_expit(-l) + np.log(l / np.tanh(l / 2))
    ),
    "gaussian": lambda x, l: stats.norm.logpdf(x, special.expit(l)),
}
