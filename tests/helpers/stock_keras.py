"""An ordinary Keras autoencoder, to compare what Keras does with it and with a VAE."""

import keras
import numpy as np


class Recorder(keras.callbacks.Callback):
    """Records the numbers with which batch callbacks are called."""

    def __init__(self):
        super().__init__()
        self.begins, self.ends, self.test_ends = [], [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.begins.append(batch)

    def on_train_batch_end(self, batch, logs=None):
        self.ends.append(batch)

    def on_test_batch_end(self, batch, logs=None):
        self.test_ends.append(batch)


def autoencoder(shape):
    """A compiled model of the images `[B, *shape]`."""
    size = int(np.prod(shape))
    model = keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(size)])
    model.add(keras.layers.Reshape(shape))
    model.compile("sgd", "mse")
    return model


class Batches(keras.utils.PyDataset):
    """Batches of an array; it records which ones were drawn."""

    def __init__(self, x, size, targets=False):
        super().__init__()
        self.x, self.size, self.targets = x, size, targets

    def __len__(self):
        return -(-len(self.x) // self.size)

    def __getitem__(self, index):
        batch = self.x[index * self.size : (index + 1) * self.size]
        return (batch, batch) if self.targets else (batch,)


class Loader:
    """What `torch.utils.data.DataLoader` is to a caller: it has a length, and can be iterated again and again."""

    def __init__(self, x, size):
        self.x, self.size = x, size

    def __len__(self):
        return -(-len(self.x) // self.size)

    def __iter__(self):
        for start in range(0, len(self.x), self.size):
            yield [self.x[start : start + self.size], np.zeros(len(self.x[start : start + self.size]))]
