"""PyTorch in a plain loop, with the data on the device and fused Adam.

The argument is `eager`, or `compiled` to use `torch.compile`.
"""

import os
import sys

os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"  # so that every start-up includes the compilation

import numpy as np
import torch
import torch_networks
from protocol import EVALUATION_BATCH, Settings, serve
from torch import nn
from torch.nn import functional


class VAE(nn.Module):
    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.encoder = torch_networks.Encoder(settings)
        self.decoder = torch_networks.make_decoder(settings)

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        """The mean loss of the batch, in nats. `scale` multiplies the noise; with 0, z = mean."""
        mean, log_var = self.encoder(x)
        z = mean + scale * torch.exp(0.5 * log_var) * torch.randn_like(mean)
        reconstruction = functional.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
        kl = -0.5 * (1 + log_var - mean.square() - log_var.exp()).sum()
        return (reconstruction + kl) / len(x)


class PyTorch:
    def __init__(self, settings: Settings) -> None:
        torch.manual_seed(settings.seed)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.settings = settings
        self.train = torch_networks.images(settings, "train").to(self.device)
        self.test = torch_networks.images(settings, "test").to(self.device)
        self.vae = VAE(settings).to(self.device)
        torch_networks.set_weights(self.vae.encoder, self.vae.decoder, settings.initial())
        self.optimizer = torch.optim.Adam(self.vae.parameters(), lr=settings.learning_rate, fused=True)
        self.schedule = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, settings.decay)
        # With constant sizes, the smaller last batch is compiled separately and does not make the other batches slower.
        self.loss = torch.compile(self.vae, dynamic=False) if sys.argv[1] == "compiled" else self.vae

    def epoch(self) -> int:
        for index in torch.randperm(len(self.train), device=self.device).split(self.settings.batch):
            loss = self.loss(torch_networks.draw_pixels(self.train[index], self.settings))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        self.schedule.step()
        loss.item()  # waits for the result
        return len(self.train)

    @torch.no_grad()
    def elbo(self) -> float:
        losses = [self.vae(x).item() * len(x) for x in self.test.split(EVALUATION_BATCH)]
        return -sum(losses) / len(self.test)

    def weights(self) -> dict[str, np.ndarray]:
        return torch_networks.get_weights(self.vae.encoder, self.vae.decoder, self.settings.initial())

    @torch.no_grad()
    def objective(self) -> float:
        torch_networks.set_weights(self.vae.encoder, self.vae.decoder, self.settings.initial())
        return self.vae(self.train[: self.settings.batch], scale=0.0).item()


if __name__ == "__main__":
    serve(PyTorch)
