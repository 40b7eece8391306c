"""Features of grey images of 28 x 28 pixels: the last hidden layer of a small classifier of digits.

digit_features.npz has its weights, which tools/train_features.py made from the embedded digits; digit_features.md says
how, and how well it classifies. They are not the features of Inception, with which papers compare images: numbers that
depend on them can be compared only with each other, and mean little for other images than digits.
"""

import functools
from pathlib import Path

import numpy as np

from kvae.internal import batch_sizes
from kvae.internal.tensorflow import tf

IMAGE_SHAPES = ((28, 28, 1), (28, 28))
CONVOLUTIONS = 3  # each with stride 2, and followed by a ReLU as the dense layer is
LARGEST_LAYER = (14, 14, 16)
WEIGHTS = Path(__file__).with_name("digit_features.npz")


def features(x: np.ndarray, path: Path = WEIGHTS) -> np.ndarray:
    """The features of images.

    Args:
        x: images, `[N, 28, 28, 1]` or `[N, 28, 28]`, in [0, 1].
        path: the file of the weights.

    Returns:
        `[N, 64]` float32, not negative. Over the grey training digits the mean of their squares is 1.
    """
    images, count = np.reshape(x, [-1, *IMAGE_SHAPES[0]]), batch_sizes.images_at_once(LARGEST_LAYER)
    network = _network(path)
    return np.concatenate([network(images[start : start + count]).numpy() for start in range(0, len(images), count)])


@functools.cache
def _network(path: Path) -> tf.types.experimental.PolymorphicFunction:
    with np.load(path) as archive:  # float16
        weights = {name: archive[name].astype(np.float32) for name in archive.files}

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, *IMAGE_SHAPES[0]])])
    def network(h: tf.Tensor) -> tf.Tensor:
        for layer in range(CONVOLUTIONS):
            h = tf.nn.conv2d(h, weights[f"convolution{layer}"], strides=2, padding="SAME")
            h = tf.nn.relu(h + weights[f"convolution{layer}_bias"])
        flat = tf.reshape(h, [-1, weights["features"].shape[0]])
        return tf.nn.relu(flat @ weights["features"] + weights["features_bias"])

    return network
