"""A small MNIST in the files of TensorFlow Datasets."""

import json
from pathlib import Path

import numpy as np

from kvae.internal.tensorflow import tf

FEATURES = {
    "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
    "featuresDict": {
        "features": {
            "image": {
                "pythonClassName": "tensorflow_datasets.core.features.image_feature.Image",
                "image": {"dtype": "uint8", "shape": {"dimensions": ["28", "28", "1"]}},
            },
            "label": {
                "pythonClassName": "tensorflow_datasets.core.features.class_label_feature.ClassLabel",
                "classLabel": {"numClasses": "10"},
            },
        }
    },
}
COUNT = 12


def record(place: int) -> bytes:
    image = tf.io.encode_png(np.full((28, 28, 1), 10 * place, np.uint8)).numpy()
    values = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[place % 10])),
    }
    return tf.train.Example(features=tf.train.Features(feature=values)).SerializeToString()


def write(root: Path) -> Path:
    """Writes a small MNIST as TFDS prepares it into the folder of all datasets, and returns its own folder."""
    folder = root / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    for part in ("train", "test"):
        with tf.io.TFRecordWriter(str(folder / f"mnist-{part}.tfrecord-00000-of-00001")) as writer:
            for place in range(COUNT):
                writer.write(record(place))
    name = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    splits = [{"name": part, "numBytes": "1", "shardLengths": [str(COUNT)]} for part in ("train", "test")]
    info = {"name": "mnist", "version": "3.0.1", "fileFormat": "tfrecord"}
    info["splits"] = [{**split, "filepathTemplate": name} for split in splits]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "features.json").write_text(json.dumps(FEATURES))
    return folder
