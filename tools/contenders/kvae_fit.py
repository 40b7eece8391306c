"""kvae with its default options: `load`, `VAE`, `compile` with an optimizer, `fit`."""

import keras
from protocol import FILTERS, Settings, serve

import kvae


class KvaeFit:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        source, seed = f"npz:{settings.data}", settings.seed
        self.data = kvae.data.load(source, batch_size=settings.batch, binarize=settings.binarize, seed=seed)
        if settings.network == "mlp":
            hidden_units = (settings.width,) * settings.layers
            self.vae = kvae.VAE(settings.latent, hidden_units=hidden_units, activation="tanh", seed=seed)
        else:
            encoder = kvae.model.networks.ConvEncoder(settings.latent, filters=FILTERS, dense_units=settings.width)
            self.vae = kvae.VAE(encoder=encoder, seed=seed)
        self.vae.build((None, *self.data.info.image_shape))
        self.set_initial_weights()
        self.vae.compile(optimizer=keras.optimizers.Adam(settings.learning_rate))

    def set_initial_weights(self) -> None:
        self.vae.encoder.set_weights(list(self.settings.initial("encoder").values()))
        self.vae.decoder.set_weights(list(self.settings.initial("decoder").values()))

    def epoch(self) -> int:
        self.vae.fit(self.data.train, epochs=1, verbose=0)
        return self.data.info.sizes["train"]

    def elbo(self) -> float:
        return float(self.vae.evaluate(self.data.test, verbose=0, return_dict=True)["elbo"])

    def objective(self) -> float:
        self.set_initial_weights()
        x, _ = self.data.examples("train", self.settings.batch)
        mean, log_var = self.vae.encode(x)
        kl = kvae.model.densities.gaussian_kl(mean, log_var).numpy().reshape(len(x), -1).sum(axis=1)
        return float((kl - self.vae.log_likelihood(x, mean).numpy()).mean())


if __name__ == "__main__":
    serve(KvaeFit)
