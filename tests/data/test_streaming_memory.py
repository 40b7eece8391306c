"""A dataset larger than memory, under a limit that the operating system enforces: streamed, or of a mapped file."""

import os
import subprocess
import sys

import numpy as np
import pytest

IMAGES, SIDE, SHARDS = 60_000, 96, 8
CAP = 1024  # MB more than a small training takes; the images are 1,659 MB

# Trains on 200 images, caps the memory at what that took and CAP more, then trains on all of them.
CHILD = """
import resource, sys, time
import kvae
from kvae.internal.tensorflow import tf

def load(train, streaming):
    return kvae.data.load("larger_than_memory", train=train, test="test", batch_size=100, streaming=streaming)

def data_segment():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmData"))  # kB

vae = kvae.VAE(2, hidden_units=(4,), seed=0)
vae.compile(optimizer="adam", jit_compile=False)  # the threads of a compiler would be what reaches the limit
vae.fit(load("train[:200]", True).train, verbose=0)
cap = (data_segment() + int(sys.argv[2]) * 1024) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (cap, cap))
data = load("train", {"stream": True, "decoded": "decoded", "memory": False}[sys.argv[1]])
start = time.perf_counter()
history = vae.fit(data.train, verbose=0).history
print("trained", int(vae.optimizer.iterations), time.perf_counter() - start, history["loss"][0])
"""


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    """A dataset as TFDS prepares one: PNG in TFRecord shards. 100 different pictures, over and over."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds") / "larger_than_memory" / "1.0.0"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    tiles = rng.integers(0, 256, (100, 4, 4, 3), np.uint8)
    pictures = [tf.io.encode_png(np.kron(tile, np.ones((24, 24, 1), np.uint8))).numpy() for tile in tiles]
    examples = [
        tf.train.Example(
            features=tf.train.Features(
                feature={"image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[picture]))}
            )
        ).SerializeToString()
        for picture in pictures
    ]
    splits = []
    for split, shards, each in (("train", SHARDS, IMAGES // SHARDS), ("test", 1, 100)):
        for shard in range(shards):
            name = f"larger_than_memory-{split}.tfrecord-{shard:05d}-of-{shards:05d}"
            with tf.io.TFRecordWriter(str(folder / name)) as writer:
                for place in range(each):
                    writer.write(examples[place % 100])
        splits.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[each] * shards,
                num_bytes=0,
                filename_template=tfds.core.ShardedFileTemplate(
                    data_dir=folder, dataset_name="larger_than_memory", split=split, filetype_suffix="tfrecord"
                ),
            )
        )
    features = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(SIDE, SIDE, 3))})
    tfds.folder_dataset.write_metadata(data_dir=folder, features=features, split_infos=splits)
    return folder.parent.parent


@pytest.mark.exhaustive
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux's memory limits")
@pytest.mark.parametrize(("way", "fits"), [("stream", True), ("decoded", True), ("memory", False)])
def test_a_stream_trains_in_memory_that_the_images_do_not_fit_into(way, fits, tfds_folder, tmp_path):
    environment = {**os.environ, "TFDS_DATA_DIR": str(tfds_folder), "CUDA_VISIBLE_DEVICES": "-1"}
    environment["KVAE_CACHE"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, way, str(CAP)], capture_output=True, text=True, env=environment, check=False
    )
    if fits:
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.startswith(f"trained {2 + IMAGES // 100} ")
    else:  # the limit is a real one: to hold the images at once is more than it allows
        assert done.returncode != 0
        assert "Unable to allocate" in done.stderr
