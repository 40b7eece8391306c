"""JAX: an epoch is one jitted `lax.scan` over the permuted images. The state is donated, and Adam is written here.

The scan adds up the loss, as the logs of a training need it. If nobody asked for it, XLA would leave out the log
density of the pixels and compute its gradient alone, which no other contender can.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from protocol import EVALUATION_BATCH, LEARNING_RATE, PIXELS, STEM, Settings, serve

Weights = dict[str, jax.Array]
State = tuple[Weights, Weights, Weights, jax.Array]  # weights, Adam's first and second moments, steps so far
Trained = tuple[State, jax.Array]  # and the sum of the losses of the images
LAYOUT = ("NHWC", "HWIO", "NHWC")


def dense(weights: Weights, name: str, x: jax.Array) -> jax.Array:
    return x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]


def convolution(weights: Weights, name: str, x: jax.Array, stride: int) -> jax.Array:
    kernel, strides = weights[f"{name}/kernel"], (stride, stride)
    return lax.conv_general_dilated(x, kernel, strides, "SAME", dimension_numbers=LAYOUT) + weights[f"{name}/bias"]


def transposed(weights: Weights, name: str, x: jax.Array) -> jax.Array:
    kernel = weights[f"{name}/kernel"]
    h = lax.conv_transpose(x, kernel, (2, 2), "SAME", dimension_numbers=LAYOUT, transpose_kernel=True)
    return h + weights[f"{name}/bias"]


def hidden_layers(weights: Weights, part: str, x: jax.Array) -> jax.Array:
    """The hidden layers of the `encoder` or the `decoder` of the mlp."""
    kernels = (name for name in sorted(weights) if name.startswith(f"{part}/hidden") and name.endswith("/kernel"))
    for name in kernels:
        x = jnp.tanh(dense(weights, name.removesuffix("/kernel"), x))
    return x


def encode(weights: Weights, network: str, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    if network == "mlp":
        h = hidden_layers(weights, "encoder", x.reshape(-1, PIXELS))
    else:
        h = jax.nn.relu(convolution(weights, "encoder/conv1", x, 2))
        h = jax.nn.relu(convolution(weights, "encoder/conv2", h, 2))
        h = jax.nn.relu(dense(weights, "encoder/dense", h.reshape(len(x), -1)))
    return dense(weights, "encoder/mean", h), dense(weights, "encoder/log_var", h)


def decode(weights: Weights, network: str, z: jax.Array) -> jax.Array:
    if network == "mlp":
        return dense(weights, "decoder/logits", hidden_layers(weights, "decoder", z))
    h = jax.nn.relu(dense(weights, "decoder/dense", z))
    h = jax.nn.relu(dense(weights, "decoder/stem", h)).reshape(-1, *STEM)
    h = jax.nn.relu(transposed(weights, "decoder/transposed1", h))
    h = jax.nn.relu(transposed(weights, "decoder/transposed2", h))
    return convolution(weights, "decoder/logits", h, 1)


def loss_of(weights: Weights, network: str, x: jax.Array, key: Any) -> jax.Array:
    """The mean loss of a batch, in nats. Without a key, z = mean."""
    mean, log_var = encode(weights, network, x)
    z = mean if key is None else mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, mean.shape)
    logits = decode(weights, network, z).reshape(x.shape)
    log_likelihood = jnp.sum(x * logits - jnp.logaddexp(0.0, logits))
    kl = 0.5 * jnp.sum(mean**2 + jnp.exp(log_var) - 1 - log_var)
    return (kl - log_likelihood) / len(x)


def adam(state: State, gradients: Weights) -> State:
    weights, first, second, count = state
    count = count + 1
    first = jax.tree.map(lambda m, g: m + 0.1 * (g - m), first, gradients)
    second = jax.tree.map(lambda v, g: v + 0.001 * (g * g - v), second, gradients)
    rate = LEARNING_RATE * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
    weights = jax.tree.map(lambda w, m, v: w - rate * m / (jnp.sqrt(v) + 1e-7), weights, first, second)
    return weights, first, second, count


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def train_step(network: str, state: State, images: jax.Array, index: jax.Array, key: jax.Array) -> Trained:
    loss, gradients = jax.value_and_grad(loss_of)(state[0], network, images[index], key)
    return adam(state, gradients), loss * len(index)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def train_epoch(network: str, batch: int, state: State, images: jax.Array, key: jax.Array) -> Trained:
    def step(trained: Trained, drawn: tuple[jax.Array, jax.Array]) -> tuple[Trained, None]:
        state, loss = train_step(network, trained[0], images, *drawn)
        return (state, trained[1] + loss), None

    order_key, noise_key, last_key = jax.random.split(key, 3)
    steps = len(images) // batch
    whole, rest = jnp.split(jax.random.permutation(order_key, len(images)), [steps * batch])
    drawn = (whole.reshape(steps, batch), jax.random.split(noise_key, steps))
    (state, total), _ = lax.scan(step, (state, jnp.zeros(())), drawn)
    if len(rest):
        state, loss = train_step(network, state, images, rest, last_key)
        total += loss
    return state, total


def train_epoch_by_steps(network: str, batch: int, state: State, images: jax.Array, key: jax.Array) -> Trained:
    """The same with a Python loop, because on a CPU convolutions are three times slower in a loop of XLA."""
    order_key, noise_key = jax.random.split(key)
    order = jax.random.permutation(order_key, len(images))
    starts = range(0, len(images), batch)
    total = jnp.zeros(())
    for start, key in zip(starts, jax.random.split(noise_key, len(starts)), strict=True):
        state, loss = train_step(network, state, images, order[start : start + batch], key)
        total += loss
    return state, total


class JaxScan:
    def __init__(self, settings: Settings) -> None:
        if settings.binarize != "threshold":
            raise ValueError(f"Expected binarize='threshold'. Received {settings.binarize!r}.")
        self.settings = settings
        self.train, self.test = jnp.asarray(settings.images("train")), jnp.asarray(settings.images("test"))
        self.key = jax.random.key(settings.seed)
        # These are copies and not views of NumPy's memory, because they are donated.
        weights = {name: jnp.array(value) for name, value in settings.initial().items()}
        zeros = [jax.tree.map(jnp.zeros_like, weights) for _ in range(2)]
        self.state = (weights, *zeros, jnp.zeros((), jnp.int32))
        self.loss = jax.jit(loss_of, static_argnums=1)

    def epoch(self) -> int:
        self.key, key = jax.random.split(self.key)
        train = train_epoch if self.settings.network == "mlp" else train_epoch_by_steps
        self.state, total = train(self.settings.network, self.settings.batch, self.state, self.train, key)
        jax.block_until_ready(self.state)
        self.mean_loss = float(total) / len(self.train)
        return len(self.train)

    def elbo(self) -> float:
        total = 0.0
        for start in range(0, len(self.test), EVALUATION_BATCH):
            x = self.test[start : start + EVALUATION_BATCH]
            total += len(x) * float(self.loss(self.state[0], self.settings.network, x, jax.random.key(start)))
        return -total / len(self.test)

    def objective(self) -> float:
        x = self.train[: self.settings.batch]
        return float(self.loss(self.settings.initial(), self.settings.network, x, None))


if __name__ == "__main__":
    serve(JaxScan)
