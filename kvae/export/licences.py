"""What a model card states of licences. A further dataset is a line in `DATASETS`."""

from typing import Any, NamedTuple

from kvae.internal.errors import UserError

CODE = "Apache-2.0 for sample.py and the code in README.md and in the web page, which are parts of kvae"
STATED = "stated by the person who exported the model"
MNIST = "as Keras says of keras.datasets.mnist; TensorFlow Datasets names no licence"


class Dataset(NamedTuple):
    """What is known of the licence of a dataset."""

    licence: str
    source: str  # who says so
    hub: str  # the name of the dataset on huggingface.co


DATASETS = {  # by the name of the source, as in `--dataset`
    "mnist": Dataset("CC-BY-SA-3.0", MNIST, "ylecun/mnist"),
    "mnist5k": Dataset("CC-BY-SA-3.0", f"{MNIST}; mnist5k is a part of MNIST", "ylecun/mnist"),
    "fashion_mnist": Dataset(
        "MIT", "as the file LICENSE of github.com/zalandoresearch/fashion-mnist says", "zalando-datasets/fashion_mnist"
    ),
}


def entry(dataset: str | None, licence: str | None, data_licence: str | None) -> dict[str, Any]:
    """What a card states of licences; None for what is not known.

    Args:
        dataset: the name of the data of the model, or None.
        licence: the licence of the model, or None if it was not stated.
        data_licence: the licence of the data, or None for that in `DATASETS`.
    """
    known = DATASETS.get(dataset) if dataset is not None else None
    if data_licence is not None:
        of_data: tuple[str | None, str | None] = data_licence, STATED
    else:
        of_data = (None, None) if known is None else (known.licence, known.source)
    return {
        "model": licence,
        "data": {"dataset": dataset, "licence": of_data[0], "source": of_data[1]},
        "code": CODE,
    }


def check(name: str, licence: str | None) -> None:
    """Raises `UserError` if a licence is not a text with at least one letter; `name` is that of the argument."""
    if licence is not None and not (isinstance(licence, str) and licence.strip()):
        raise UserError(f"Expected {name} to be the name of a licence, such as MIT or CC-BY-4.0. Received {licence!r}.")
