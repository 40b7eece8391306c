"""Mistakes of a user in calling a model end in one clear line."""

import numpy as np
import pytest
from small_models import SHAPE, users_networks

import kvae
from kvae.internal.errors import UserError
from kvae.model import networks


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda vae: vae.encode(np.zeros((2, 5, 6))), r"x of shape \[B, 6, 5, 1\]. Received \[2, 5, 6\]"),
        (lambda vae: vae.encode(np.zeros((2, 7, 5, 1))), "x of shape"),
        (lambda vae: vae.decode(np.zeros((2, 3))), r"z of shape \[..., 2\]. Received \[2, 3\]"),
        (lambda vae: vae.decode(np.float32(1)), "z of shape"),
        (lambda vae: vae.generate(0), "n to be"),
        (lambda vae: vae.generate(-3), "n to be"),
        (lambda vae: vae.generate(2, seed=-1), "seed"),
        (lambda vae: kvae.sampling.draw_z(vae, 0), "n to be"),
        (lambda vae: kvae.sampling.draw_z(vae, 2, seed=-1), "seed"),
        (lambda _: kvae.sampling.draw_z(kvae.VAE(), 2), "image shape"),
        (lambda vae: kvae.sampling.elbo_draws(vae, np.zeros((2, 7, 5, 1))), "x of shape"),
        (lambda vae: vae.generate(2, seed=2**31), "seed"),
        (lambda vae: vae.log_likelihood(np.zeros((2, 7, 5, 1)), np.zeros((2, 2))), "x of shape"),
        (lambda vae: vae.log_likelihood(np.zeros((2, *SHAPE)), np.zeros((3, 2))), "one z per image"),
        (lambda vae: vae.fit(), "Received None"),
        (lambda _: kvae.VAE(latent_dim=0), "latent_dim"),
        (lambda _: kvae.VAE(beta=-1), "beta"),
        (lambda _: kvae.VAE(beta=float("nan")), "beta"),
        (lambda _: kvae.VAE(samples=0), "samples"),
        (lambda _: kvae.VAE(seed=-1), "seed"),
        (lambda _: kvae.VAE(kl="analitic"), "Did you mean 'analytic'"),
        (lambda _: kvae.VAE(likelihood="bernouli"), "Did you mean 'bernoulli'"),
        (lambda _: kvae.VAE(2, encoder=networks.MLPEncoder(2)), "Received both"),
        (lambda _: kvae.VAE().decode(np.zeros((1, 2))), "image shape"),
        (lambda _: kvae.VAE(encoder=users_networks()[0]), "encoder= together with decoder="),
        (
            lambda _: kvae.VAE(encoder=users_networks()[1], decoder=users_networks()[1]).build((None, 2)),
            "encoder to return",
        ),
        (
            lambda _: kvae.VAE(encoder=users_networks()[0], decoder=networks.MLPDecoder((4,))).build((None, *SHAPE)),
            "decoder to return",
        ),
    ],
)
def test_mistakes_end_in_one_clear_line(call, message, vae):
    with pytest.raises(UserError, match=message):
        call(vae)
