"""pythae: its VAE with the networks of the benchmark, and its trainer, whose `train_step` trains one epoch."""

from typing import Any

import numpy as np
import pythae.models.nn
import torch
import torch_networks
from protocol import EVALUATION_BATCH, Settings, serve
from pythae.data.datasets import BaseDataset
from pythae.models.base.base_utils import ModelOutput
from pythae.trainers import BaseTrainer, BaseTrainerConfig


class Encoder(pythae.models.nn.BaseEncoder):
    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.network = torch_networks.Encoder(settings)

    def forward(self, x: torch.Tensor) -> ModelOutput:
        mean, log_var = self.network(x)
        return ModelOutput(embedding=mean, log_covariance=log_var)


class Decoder(pythae.models.nn.BaseDecoder):
    """A decoder with probabilities as output, because the loss `bce` of pythae does not accept logits."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.network = torch_networks.make_decoder(settings)

    def forward(self, z: torch.Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=torch.sigmoid(self.network(z)))


class VAE(pythae.models.VAE):
    """pythae's VAE, which draws the pixels of a training step anew if the settings say so."""

    def __init__(self, settings: Settings) -> None:
        options = pythae.models.VAEConfig((1, 28, 28), settings.latent, reconstruction_loss="bce")
        super().__init__(options, Encoder(settings), Decoder(settings))
        self.settings = settings

    def forward(self, inputs: dict[str, torch.Tensor], **options: Any) -> ModelOutput:
        if self.training:
            inputs = {"data": torch_networks.draw_pixels(inputs["data"], self.settings)}
        return super().forward(inputs, **options)


class Pythae:
    def __init__(self, settings: Settings) -> None:
        self.settings, self.epochs = settings, 0
        train, self.test = torch_networks.images(settings, "train"), torch_networks.images(settings, "test")
        self.vae = VAE(settings)
        torch_networks.set_weights(self.vae.encoder, self.vae.decoder, settings.initial())
        self.trainer = BaseTrainer(
            self.vae,
            BaseDataset(train, torch.zeros(len(train))),
            training_config=BaseTrainerConfig(
                output_dir="pythae",
                per_device_train_batch_size=settings.batch,
                learning_rate=settings.learning_rate,
                seed=settings.seed,
            ),
        )
        self.trainer.prepare_training()

    def epoch(self) -> int:
        self.epochs += 1
        self.trainer.train_step(self.epochs)
        return len(self.trainer.train_dataset)

    @torch.no_grad()
    def elbo(self) -> float:
        losses = [self.vae({"data": x}).loss.item() * len(x) for x in self.batches(EVALUATION_BATCH)]
        return -sum(losses) / len(self.test)

    def weights(self) -> dict[str, np.ndarray]:
        networks = self.vae.encoder.network, self.vae.decoder.network
        return torch_networks.get_weights(*networks, self.settings.initial())

    def batches(self, size: int) -> list[torch.Tensor]:
        return [x.to(self.trainer.device) for x in self.test.split(size)]

    @torch.no_grad()
    def objective(self) -> float:
        torch_networks.set_weights(self.vae.encoder, self.vae.decoder, self.settings.initial())
        x = self.trainer.train_dataset.data[: self.settings.batch].to(self.trainer.device)
        posterior = self.vae.encoder(x)
        mean, log_var = posterior.embedding, posterior.log_covariance
        return self.vae.loss_function(self.vae.decoder(mean).reconstruction, x, mean, log_var, mean)[0].item()


if __name__ == "__main__":
    serve(Pythae)
