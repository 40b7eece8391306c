"""The two networks in PyTorch with the same layers as in Keras, for `pytorch.py` and `pythae_trainer.py`.

Keras pads a convolution of stride 2 only at the right and at the bottom, and crops a transposed convolution there. The
layers here do the same, so that equal weights give equal functions.
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from protocol import FILTERS, PIXELS, SIDE, STEM, Settings
from torch import nn


class CropFarSide(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[..., :-1, :-1]


def hidden_layers(inputs: int, settings: Settings) -> Iterator[nn.Module]:
    """The hidden layers of one side of the `mlp`."""
    for size in (inputs, *[settings.width] * (settings.layers - 1)):
        yield from (nn.Linear(size, settings.width), nn.Tanh())


class Encoder(nn.Module):
    """x `[B, 1, 28, 28]` to mean and log_var `[B, D]`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        first, second = FILTERS
        if settings.network == "mlp":
            self.body = nn.Sequential(nn.Flatten(), *hidden_layers(PIXELS, settings))
        else:
            self.body = nn.Sequential(
                *(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(1, first, 3, stride=2), nn.ReLU()),
                *(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(first, second, 3, stride=2), nn.ReLU()),
                *(nn.Flatten(), nn.Linear(math.prod(STEM), settings.width), nn.ReLU()),
            )
        self.mean = nn.Linear(settings.width, settings.latent)
        self.log_var = nn.Linear(settings.width, settings.latent)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = self.body(x)
        return self.mean(h), self.log_var(h)


def make_decoder(settings: Settings) -> nn.Sequential:
    """z `[B, D]` to logits `[B, 1, 28, 28]`."""
    first, second = FILTERS
    if settings.network == "mlp":
        return nn.Sequential(
            *hidden_layers(settings.latent, settings),
            *(nn.Linear(settings.width, PIXELS), nn.Unflatten(1, (1, SIDE, SIDE))),
        )
    return nn.Sequential(
        *(nn.Linear(settings.latent, settings.width), nn.ReLU()),
        *(nn.Linear(settings.width, math.prod(STEM)), nn.ReLU(), nn.Unflatten(1, (STEM[2], *STEM[:2]))),
        *(nn.ConvTranspose2d(second, second, 3, stride=2), CropFarSide(), nn.ReLU()),
        *(nn.ConvTranspose2d(second, first, 3, stride=2), CropFarSide(), nn.ReLU()),
        nn.Conv2d(first, 1, 3, padding=1),
    )


def set_weights(encoder: nn.Module, decoder: nn.Module, weights: dict[str, np.ndarray]) -> None:
    """Copies the initial weights, which have the layout of Keras, into networks of PyTorch."""
    parameters = [parameter for network in (encoder, decoder) for parameter in network.parameters()]
    for parameter, (name, value) in zip(parameters, weights.items(), strict=True):
        if name == "encoder/dense/kernel":  # rows in the order of [H, W, C]
            value = value.reshape(*STEM, -1).transpose(2, 0, 1, 3).reshape(value.shape)
        elif name.startswith("decoder/stem"):
            value = np.moveaxis(value.reshape(-1, *STEM), 3, 1).reshape(value.shape)
        if name.endswith("kernel"):
            value = value.T if value.ndim == 2 else value.transpose(3, 2, 0, 1)
        with torch.no_grad():
            parameter.copy_(torch.tensor(np.ascontiguousarray(value)))


def get_weights(encoder: nn.Module, decoder: nn.Module, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The weights of the `mlp` with the layout of Keras, by their names in the order of the layers."""
    parameters = [parameter for network in (encoder, decoder) for parameter in network.parameters()]
    return {name: parameter.detach().cpu().numpy().T for name, parameter in zip(names, parameters, strict=True)}


def draw_pixels(x: torch.Tensor, settings: Settings) -> torch.Tensor:
    """The images of a training step: drawn anew with the grey value as the probability of 1, or as they are."""
    return torch.bernoulli(x) if settings.binarize == "stochastic" else x


def images(settings: Settings, part: str) -> torch.Tensor:
    """Training or test images, `[N, 1, 28, 28]` float32."""
    return torch.tensor(settings.images(part)).permute(0, 3, 1, 2).contiguous()
