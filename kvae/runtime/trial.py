"""A trial of a decoder in a process of its own: `python -m kvae.runtime.trial PATH`, as `children.try_decoder` does."""

import sys

import numpy as np

from kvae.internal.errors import UserError
from kvae.runtime import children
from kvae.runtime.formats import open_decoder


def _main(path: str) -> None:
    children.end_with_parent()
    try:
        decoder = open_decoder(path)
        conditions = None if decoder.condition_shape is None else np.zeros((3, *decoder.condition_shape))
        decoder.decode(decoder.sample(range(3), conditions).z, conditions)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    _main(*sys.argv[1:])
