"""Reads what users pass as images: arrays, lists of images, datasets, loaders; with or without a channel axis.

Images have the shape `[B, *image]`. Grey images `[B, H, W]` get a channel axis, except for a model that was built for
images `(H, W)`.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from kvae.internal.blocks import blocks_of
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import keras, tf

CHANNELS = (1, 3, 4)  # of grey images, of colour images, and of colour images with transparency
FEWEST_IMAGES = 4  # A list of fewer arrays is rather a list of sets of images than one of images.
Shape = tuple[int | None, ...]


def shape_with_channels(shape: Shape, image_shape: Shape | None) -> Shape:
    """The shape `[B, *image]` for images that a user passes with `shape`.

    Args:
        shape: a shape of at least one axis, in which sides can be None.
        image_shape: the image shape of the model, or None if the model is not built.

    Raises:
        UserError: if the shape is that of one image, or fits no images of the model.
    """
    if image_shape is not None:
        grey = len(image_shape) > 1 and image_shape[-1] == 1
        if _fits(shape[1:], image_shape):
            return shape
        if grey and _fits(shape[1:], image_shape[:-1]):
            return (*shape, 1)
        if _fits(shape, image_shape) or (grey and _fits(shape, image_shape[:-1])):
            raise _one_image(shape)
        raise UserError(f"Expected x of shape [B, {_join(image_shape)}]. Received [{_join(shape)}].")
    if len(shape) < 2:
        raise UserError(f"Expected images [B, ...]. Received shape [{_join(shape)}], which has no axes for the pixels.")
    if len(shape) == 3:
        if shape[-1] in CHANNELS:
            raise _one_image(shape)
        return (*shape, 1)
    return shape


def with_channels(x: Any, image_shape: Shape | None) -> Any:
    """An array or tensor of images with the shape `[B, *image]`; arguments and errors as in `shape_with_channels`."""
    if x.shape.rank is None if isinstance(x, tf.Tensor) else False:
        raise _unknown_rank()
    wanted = shape_with_channels(tuple(x.shape), image_shape)
    return x[..., None] if len(wanted) > len(x.shape) else x


def as_mask(observed: Any, image_shape: Shape) -> Any:
    """A mask as booleans that broadcast to images.

    Args:
        observed: booleans, or the numbers 0 and 1, of a shape that broadcasts to the images; also `[H, W]` or
            `[B, H, W]` for images `(H, W, C)`. A tensor of booleans stays one.
        image_shape: the image shape.

    Raises:
        UserError: if the mask has other values.
    """
    mask = observed if isinstance(observed, tf.Tensor) and observed.dtype == tf.bool else np.asarray(observed)
    if isinstance(mask, np.ndarray) and mask.dtype != bool:
        if mask.dtype.kind not in "iuf" or not np.isin(mask, (0, 1)).all():
            raise UserError("Expected a mask of booleans, True where a pixel is observed. Received other values.")
        mask = mask.astype(bool)
    shape = tuple(mask.shape)
    if len(image_shape) != 3 or len(shape) not in (2, 3) or shape[-2:] != tuple(image_shape[:2]):
        return mask
    of_image = len(shape) == 3 and all(side in (1, most) for side, most in zip(shape, image_shape, strict=True))
    return mask if of_image else mask[..., None]


def as_array(x: Any, image_shape: Shape | None = None) -> Any:
    """Images as one array or tensor `[B, *image]`, if `x` is an array or a list of arrays; otherwise `x` itself.

    Args:
        x: an array `[N, *image]`; a list with such an array; a list of images; or anything else.
        image_shape: the image shape of the model, or None if the model is not built.

    Raises:
        UserError: if the images are not all of one shape, if there are several arrays, or if the shape is not that of
            images.
    """
    if isinstance(x, list):
        x = _list_as_array(x, image_shape)
    elif not isinstance(x, np.ndarray | tf.Tensor) and hasattr(x, "__array__") and hasattr(x, "shape"):
        x = np.asarray(x)  # an array of another library, or a variable
    if not isinstance(x, np.ndarray | tf.Tensor):
        return x
    if len(x.shape) == 0:
        raise UserError(f"Expected images, an array [N, ...]. Received the single value {np.asarray(x)!r}.")
    return with_channels(x, image_shape)


def at_least_one(x: Any, image_shape: Shape) -> np.ndarray:
    """Images as an array `[B, *image]` float32; arguments and errors as in `as_array`, and if there is no image."""
    x = np.asarray(as_array(x, image_shape), np.float32)
    if len(x) == 0:
        raise UserError(f"Expected at least one image [B, {_join(image_shape)}]. Received none.")
    return x


def as_pair(x: Any, y: Any, image_shape: Shape | None, *, conditional: bool) -> tuple[Any, Any]:
    """Images and conditions as arrays; y is None for a model without a condition.

    Args:
        x: as in `as_array`; or (x, y).
        y: the conditions, or None. A model without a condition ignores labels.
        image_shape: the image shape of the model, or None if the model is not built.
        conditional: whether the model takes a condition.

    Raises:
        UserError: as in `as_array`; or if y has images, which a VAE would ignore.
    """
    if isinstance(x, tuple):
        if len(x) > 2 or y is not None:
            raise UserError("Expected images, or (images, y). Received a tuple of other parts. Pass fit(x, y).")
        x, y = x[0], x[1] if len(x) == 2 else None
    given, x = x, as_array(x, image_shape)
    if conditional:
        return x, y
    if y is not None and y is not given and _are_other_images(y, x):
        raise other_images()
    return x, None


def other_images() -> UserError:
    """The error for images as y that are not those of x."""
    return UserError(
        "Expected no images as y, because a VAE reconstructs x itself. Received other images as y. To train on both "
        "sets, pass np.concatenate([x, y]) or dataset.concatenate; to leave y out, dataset.map(lambda x, y: x)."
    )


def wrong_mask(observed: Any, images_shape: Any) -> UserError:
    """The error for a mask that does not broadcast to images of the shape `(B, *image)`."""
    shape = tuple(images_shape)
    return UserError(f"Expected a mask of shape {shape[1:]} or {shape}. Received {np.shape(observed)}.")


def no_weights() -> UserError:
    """The error for weights of images or of classes."""
    return UserError(
        "Expected no sample_weight or class_weight, because the ELBO is a plain mean over images. Received one of "
        "them. To give images other weights, repeat or sample them in the tf.data pipeline."
    )


def as_batches(x: Any, image_shape: Shape | None = None) -> Any:
    """A dataset whose batches are images for certain; a loader as a dataset; a generator as Keras wants it; or `x`.

    Args:
        x: a `tf.data.Dataset`; a generator or another iterator; a loader, which is an object with `__iter__` that can
            be iterated again and again, such as a PyTorch `DataLoader`; or anything else.
        image_shape: the image shape of the model, or None if the model is not built.

    Raises:
        UserError: if the elements of the dataset have an unknown rank, are not tensors, or have no batch axis.
    """
    if hasattr(x, "__next__"):
        return _with_tuples(x)
    if _is_loader(x):
        x = _dataset_of_loader(x)
    if isinstance(x, str | dict):
        raise UserError(f"Expected images: an array, a dataset, a loader or a generator. Received {type(x).__name__}.")
    if not isinstance(x, tf.data.Dataset):
        return x
    spec = keras.utils.unpack_x_y_sample_weight(x.element_spec)[0]
    if not isinstance(spec, tf.TensorSpec):
        kind = type(spec).__name__
        raise UserError(f"Expected batches x or (x, y), where x is a tensor. Received {kind}. Use map to change them.")
    if spec.shape.rank is None:
        raise _unknown_rank()
    shape = tuple(spec.shape)
    if image_shape is None and len(shape) == 2 and None not in shape and shape[0] == shape[1]:
        raise _one_image(shape)
    shape_with_channels(shape, image_shape)
    return x


def as_bytes_if_binary(x: Any) -> Any:
    """The same images as uint8 if `x` is an array of floats that are all 0 or 1; otherwise `x`.

    They then take a quarter of the memory, and are copied and checked in a quarter of the time. Images of a mapped file
    stay there.
    """
    if not (isinstance(x, np.ndarray) and x.dtype.kind == "f" and x.size) or isinstance(x, np.memmap):
        return x
    pixels = np.asarray(x)  # A masked array would leave out what it hides, which TensorFlow reads.
    ones = np.empty(x.shape, np.bool_)
    for some, out in zip(blocks_of(pixels), blocks_of(ones), strict=True):
        if not np.all(np.equal(some, 1, out=out) | (some == 0)):
            return x
    return ones.view(np.uint8)


def _are_other_images(y: Any, x: Any) -> bool:
    """Whether y has images of the shape of those in x, but not the same ones."""
    if not isinstance(x, np.ndarray | tf.Tensor) or np.shape(y)[1:] not in (tuple(x.shape[1:]), tuple(x.shape[1:-1])):
        return False
    return np.ndim(y) > 1 and not np.array_equal(np.ravel(y), np.ravel(x))


def _list_as_array(x: list, image_shape: Shape | None) -> Any:
    shapes = {np.shape(part) for part in x if not isinstance(part, list)}
    if not shapes:  # nested lists of numbers
        return np.asarray(x)
    if len(shapes) > 1:
        listed = ", ".join(str(shape) for shape in sorted(shapes, key=str)[:3])
        raise UserError(f"Expected images of one shape. Received a list of arrays of the shapes {listed}.")
    (shape,) = shapes
    single = image_shape is not None and _fits(shape, image_shape[: len(shape)]) and len(shape) >= len(image_shape) - 1
    if len(x) == 1 and not single and len(shape) > 1:
        return x[0]
    if not single and (len(shape) > 3 or len(x) < FEWEST_IMAGES) and len(shape) > 1:
        raise UserError(
            f"Expected one array of images [N, ...]. Received a list of {len(x)} arrays of shape {shape}. Join them "
            "with np.concatenate; a condition is passed as y, fit(x, y)."
        )
    return np.stack([np.asarray(part) for part in x])


def _is_loader(x: Any) -> bool:
    known = (tf.data.Dataset, tf.distribute.DistributedDataset, keras.utils.PyDataset, tuple, list, dict, str)
    one_pass = hasattr(x, "__next__")
    return hasattr(x, "__iter__") and not (one_pass or hasattr(x, "__array__") or isinstance(x, known))


def _with_tuples(batches: Iterator[Any]) -> Iterator[Any]:
    """The same batches as a generator of tuples, which Keras wants."""
    for batch in batches:
        yield tuple(batch) if isinstance(batch, tuple | list) else (batch,)


def _dataset_of_loader(loader: Any) -> tf.data.Dataset:
    """The batches of a loader, x or (x, y) of arrays, as a dataset that reads the loader once per epoch."""

    def arrays(batch: Any) -> Any:
        parts = tuple(np.asarray(part) for part in (batch if isinstance(batch, tuple | list) else (batch,)))
        return parts[0] if len(parts) == 1 else parts

    first = next((arrays(batch) for batch in loader), None)
    if first is None:
        raise UserError(f"Expected a loader with at least one batch. Received {loader!r}, which has none.")
    signature = tf.nest.map_structure(lambda part: tf.TensorSpec((None, *part.shape[1:]), part.dtype), first)
    dataset = tf.data.Dataset.from_generator(lambda: map(arrays, loader), output_signature=signature)
    if hasattr(loader, "__len__"):
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(loader)))
    return dataset.prefetch(1)


def _fits(shape: Shape, wanted: Shape) -> bool:
    """Whether a shape, in which sides may be unknown, can be `wanted`."""
    return len(shape) == len(wanted) and all(side in (None, other) for side, other in zip(shape, wanted, strict=True))


def _one_image(shape: Shape) -> UserError:
    return UserError(
        f"Expected images with a batch axis, [B, H, W, C]. Received shape [{_join(shape)}], that of one image. "
        "Batch the dataset, dataset.batch(100), or pass one image as x[None]. For images of this shape, call "
        f"build((None, {_join(shape[1:])})) first."
    )


def _unknown_rank() -> UserError:
    return UserError(
        "Expected batches whose shape is known, [B, ...]. Received batches of unknown rank. Set their shape, e.g. "
        "dataset.map(lambda x: tf.ensure_shape(x, [None, 28, 28, 1]))."
    )


def _join(shape: Shape) -> str:
    return ", ".join("B" if side is None else str(side) for side in shape)
