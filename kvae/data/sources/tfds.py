"""Any image dataset of TensorFlow Datasets: `mnist`, `fashion_mnist`, `kmnist`, `cifar10`, ..."""

import difflib
import os
import re
import socket
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kvae.data.sources import decoded
from kvae.data.split import Source, Split, hold_out, refuse_ones
from kvae.internal.errors import UserError, first_line
from kvae.internal.files import has_pattern
from kvae.internal.next_command import quoted
from kvae.internal.tensorflow import tf, unconverted
from kvae.internal.visible import visible

SHUFFLE_BUFFER = 100_000  # the number of encoded images that a stream keeps in memory to shuffle them
PARTS = ("train", "validation", "test")
SOME = 100  # images of a stream whose pixels are looked at


def _builder(name: str) -> Any:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    if not re.fullmatch(r"\w+([/:][\w.:-]+)?", name):  # TFDS can parse name, name/config and name:version
        raise _unknown(name)
    try:
        builder = tfds.builder(name)
        _ = builder.info.features, builder.info.splits  # reads the files that describe it
        return builder
    except DatasetNotFoundError:
        raise _unknown(name) from None
    except Exception as error:  # the files that describe a dataset are JSON, protocol buffers and Python
        raise UserError(f"Could not open the dataset {name!r}: {first_line(error)}.") from error


@contextmanager
def _damage_named(builder: Any, what: str) -> Iterator[None]:
    """Turns the errors of TensorFlow and TFDS in the block into a `UserError` that names the folder of the dataset."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of tf.data, or for files that describe the dataset and are damaged
        of_machine = (MemoryError, PermissionError, tf.errors.PermissionDeniedError, tf.errors.ResourceExhaustedError)
        advice = "" if isinstance(error, of_machine) or "Too many open files" in str(error) else (
            f" Its files are damaged or missing: remove the folder {builder.data_path} to prepare the dataset again."
        )  # fmt: skip
        raise UserError(f"Could not read {what} of {builder.name}: {first_line(error)}.{advice}") from error


def _unknown(name: str) -> UserError:
    import tensorflow_datasets as tfds

    from kvae.data.sources import READERS, paths

    if (source := paths.source_of(name)) is not None:
        what = "a folder" if os.path.isdir(name) else "a file"
        return UserError(f"Unknown dataset {name!r}. It is {what}; to read it, write {visible(quoted(source))}")
    kind, colon, place = name.partition(":")
    near = [f"{reader}:{place}" for reader in difflib.get_close_matches(kind, READERS, n=1) if colon]
    if not near:
        near = difflib.get_close_matches(name, ["mnist5k", *tfds.list_builders(with_community_datasets=False)], n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UserError(
        f"Unknown dataset {name!r}.{hint} Expected mnist5k (part of kvae), a name of TensorFlow Datasets, "
        "idx:DIR, csv:FILE, npz:FILE or images:DIR."
    )


def _is_prepared(builder: Any) -> bool:
    folder = Path(builder.data_path)
    # TFDS looks for its files with a pattern of paths, and so does not find them in a folder named like one.
    return (has_pattern(folder) and (folder / "dataset_info.json").is_file()) or builder.is_prepared()


def _prepare(builder: Any) -> None:
    if _is_prepared(builder):
        return
    if not _reachable(builder):
        raise _no_download(builder, "no network")
    print(f"Downloading {builder.name} (mnist5k, which is part of kvae, needs no download) ...", file=sys.stderr)
    try:
        builder.download_and_prepare()
    except Exception as error:  # of requests, urllib, the file system or TFDS itself
        raise _no_download(builder, f"{type(error).__name__}: {first_line(error)}") from error


def _reachable(builder: Any) -> bool:
    """Whether the name of a host of the dataset can be resolved. Without a network, TFDS would retry for minutes."""
    hosts = {urllib.parse.urlsplit(url).hostname for url in builder.url_infos} - {None}
    if not hosts or urllib.request.getproxies():
        return True
    for host in hosts:
        try:
            socket.getaddrinfo(host, 443)
        except OSError:
            continue
        return True
    return False


def _no_download(builder: Any, reason: str) -> UserError:
    return UserError(
        f"Could not download {builder.name} ({reason}). Without a network, use --dataset mnist5k, or set TFDS_DATA_DIR "
        f"to a folder in which TFDS has prepared {builder.name} "
        f"(now {os.environ.get('TFDS_DATA_DIR', 'unset: ~/tensorflow_datasets')})."
    )


def _split(builder: Any, part: str, streaming: bool) -> Split:
    import tensorflow_datasets as tfds

    features = dict(builder.info.features)
    shape = tuple(features["image"].shape)
    labelled = isinstance(features.get("label"), tfds.features.ClassLabel)
    readers = os.cpu_count() or 1
    read_config = tfds.ReadConfig(
        try_autocache=False,
        add_tfds_id=False,
        interleave_cycle_length=16,  # shards that are read in turns, in at most as many threads as there are processors
        num_parallel_calls_for_interleave_files=min(16, readers),
        num_parallel_calls_for_decode=readers,
    )
    read_config.options.autotune.enabled = False  # autotune can stall the end of an iteration for seconds
    read_config.options.deterministic = True

    @unconverted
    def image_and_label(example: Any) -> Any:
        return example["image"], example["label"] if labelled else tf.constant(-1, tf.int64)

    def encoded(start: int, stop: int) -> Any:
        instruction = tfds.core.ReadInstruction(part, from_=start, to=stop, unit="abs")
        dataset = builder.as_dataset(
            split=instruction,
            decoders={"image": tfds.decode.SkipDecoding()},
            read_config=read_config,
            shuffle_files=False,
        )
        return dataset.map(image_and_label)

    def decode(image: Any) -> Any:
        decoded = tf.io.decode_image(image, channels=shape[2], expand_animations=False)
        return tf.ensure_shape(decoded, shape)

    count = builder.info.splits[part].num_examples
    if streaming:

        def stream(start: int, stop: int) -> Any:
            images = encoded(start, stop).map(unconverted(lambda image, _: image))
            return images.enumerate(start)

        def check(start: int, stop: int) -> None:
            # Every record has a checksum, so that the pictures need not be decoded.
            with _damage_named(builder, f"the split {part}"):
                found = sum(1 for _ in encoded(start, stop).batch(1000))
                if found != -(-(stop - start) // 1000):
                    raise ValueError(f"it has fewer than {stop - start} images between {start} and {stop}")
                some = encoded(start, min(stop, start + SOME)).map(unconverted(lambda image, _: decode(image)))
                greatest = max((int(image.max()) for image in some.as_numpy_iterator()), default=0)
            refuse_ones(greatest, f"the split {part} of {builder.name}")

        def read_labels(start: int, stop: int) -> np.ndarray:
            with _damage_named(builder, f"the labels of {part}"):
                batches = encoded(start, stop).map(unconverted(lambda _, label: label)).batch(1000).as_numpy_iterator()
                return np.concatenate(list(batches))

        def state() -> tuple[str, Any]:
            try:
                return str(builder.data_path), decoded.state_of(Path(builder.data_path))
            except OSError as error:
                raise UserError(f"Could not list the files of {builder.name}: {first_line(error)}.") from error

        return Split(
            None,
            None,
            count,
            shape,
            stream,
            decode,
            shuffle_buffer=SHUFFLE_BUFFER,
            check=check,
            read_labels=read_labels if labelled else None,
            state=state,
        )

    decoded.check_memory(builder.name, part, (count, *shape))

    @unconverted
    def decode_image(image: Any, label: Any) -> Any:
        return decode(image), label

    dataset = encoded(0, count).map(decode_image, num_parallel_calls=4).batch(1000)
    images, labels = np.empty((count, *shape), np.uint8), np.empty(count, np.int64)
    start = 0
    for image_batch, label_batch in dataset.prefetch(2).as_numpy_iterator():
        images[start : start + len(image_batch)] = image_batch
        labels[start : start + len(image_batch)] = label_batch
        start += len(image_batch)
    if start != count:
        raise ValueError(f"expected {count} images, found {start}")
    return Split.from_arrays(images, labels if labelled else None)


def read(name: str, streaming: bool = False) -> Source:
    """Reads the splits of a TFDS image dataset. The first use downloads it to TFDS_DATA_DIR.

    Args:
        name: the name of the dataset in TFDS, for example `mnist` or `mnist:3.0.1`.
        streaming: whether to read and decode the records when they are needed, instead of keeping all images in
            memory. The labels of a stream are read when they are needed.

    Raises:
        UserError: if there is no such dataset, if it cannot be downloaded, or if it has no 8-bit feature `image` of a
            fixed size or no split `train`.
    """
    kept = None if streaming else decoded.load(name)
    if kept is not None:
        return _source(name, *kept)
    builder = _builder(name)
    feature = dict(builder.info.features or {}).get("image")
    if feature is None or len(feature.shape) != 3 or None in feature.shape or feature.np_dtype != np.uint8:
        raise UserError(
            f"Expected a dataset with one 8-bit `image` of a fixed size. {name} has "
            f"{'none' if feature is None else f'{feature.shape} {feature.np_dtype.__name__}'}."
        )
    _prepare(builder)
    splits = {}
    for part in PARTS:
        if part in builder.info.splits:
            with _damage_named(builder, f"the split {part}"):
                splits[part] = _split(builder, part, streaming)
    if "train" not in splits:
        raise UserError(f"Expected a split called train in {name}. Received {', '.join(builder.info.splits)}.")
    label = dict(builder.info.features).get("label")
    names = tuple(getattr(label, "names", None) or ()) or None
    if not streaming:
        decoded.keep(name, Path(builder.data_path), splits, names)
    return _source(name, splits, names)


def _source(name: str, splits: dict[str, Split], label_names: tuple[str, ...] | None) -> Source:
    return Source(name, splits, label_names) if "test" in splits else hold_out(name, splits, label_names)
