"""The limit: only the five large matrix products of a training step of the MLP, in one XLA loop.

Two of them belong to the forward pass, one to the gradient of the hidden layer, and two to the gradients of the
kernels. The other work of a training (activations, the loss, Adam, random numbers, moving images) makes it slower than
this limit.
"""

import tensorflow as tf
from protocol import PIXELS, Settings, serve

BATCHES = 8  # several inputs, so that the compiler cannot move a product out of the loop


class MatrixProducts:
    def __init__(self, settings: Settings) -> None:
        images, weights = settings.images("train"), settings.initial()
        count = BATCHES * settings.batch
        repeated = tf.gather(images.reshape(-1, PIXELS), tf.range(count) % len(images))
        self.x = tf.reshape(repeated, [BATCHES, settings.batch, PIXELS])
        self.w1 = tf.constant(weights["encoder/hidden1/kernel"])
        self.w4 = tf.constant(weights["decoder/logits/kernel"])
        self.batch = settings.batch
        self.steps = max(1, len(images) // settings.batch)

    def epoch(self) -> int:
        dw1, dw4 = self.loop(self.x, self.w1, self.w4, tf.constant(self.steps))
        dw1.numpy(), dw4.numpy()  # waits for the result
        return self.steps * self.batch

    def elbo(self) -> None:
        return None

    def objective(self) -> None:
        return None

    @tf.function(jit_compile=True)
    def loop(self, batches: tf.Tensor, w1: tf.Tensor, w4: tf.Tensor, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        def step(i: tf.Tensor, dw1: tf.Tensor, dw4: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            x = batches[i % BATCHES]
            h = x @ w1
            logits = h @ w4
            dh = tf.matmul(logits, w4, transpose_b=True)
            dw4 = tf.matmul(h, logits, transpose_a=True)
            dw1 = tf.matmul(x, dh, transpose_a=True)
            return i + 1, dw1, dw4

        start = (tf.constant(0), tf.zeros_like(w1), tf.zeros_like(w4))
        return tf.while_loop(lambda i, *_: i < steps, step, start)[1:]


if __name__ == "__main__":
    serve(MatrixProducts)
