"""Writes docs/API.md: what kvae offers in Python, each name with the first sentence of its docstring.

python tools/api_page.py            # after a change of a public name or of its first sentence
"""

import dataclasses
import inspect
import operator
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

import kvae
from kvae.internal import files

PAGE = Path(__file__).parents[1] / "docs" / "API.md"
INTRODUCTION = """# The Python API

`help(kvae.VAE)` in Python, or `?` in a notebook, shows the whole docstring of a name: arguments, shapes, units, errors
and sources. This page has the first sentence of each. It is written by `python tools/api_page.py`.
"""


def _classes(table: Mapping[str, type]) -> list[str]:
    """The names of the classes of a table of parts."""
    return [cls.__name__ for cls in table.values()]


# What each module offers: the names of its `__all__` if none are named here.
MODULES: dict[str, tuple[str, ...]] = {
    "kvae": ("VAE", "load", "UserError"),
    "kvae.data": (),
    "kvae.evaluation": (),
    "kvae.completion": (),
    "kvae.export": (),
    "kvae.runtime": (),
    "kvae.training": ("train", "resume", "Run", "RunConfig", "load_data"),
    "kvae.training.results": ("evaluate", "draw", "complete"),
    "kvae.training.encodings": ("encode", "save"),
    "kvae.training.callbacks": ("Plots", "CodeUse", "AveragedWeights"),
    "kvae.plotting.figures": ("draw", "Subject"),
    "kvae.objectives": (
        *_classes(kvae.objectives.OBJECTIVES),
        "LinearWarmup",
        "CyclicalAnnealing",
        "Objective",
        "Draws",
    ),
    "kvae.priors": (*_classes(kvae.priors.PRIORS), "Prior"),
    "kvae.posteriors": (*_classes(kvae.posteriors.POSTERIORS), "Posterior", "Distribution"),
    "kvae.likelihoods": (*_classes(kvae.likelihoods.LIKELIHOODS), "Likelihood"),
    "kvae.networks": (*_classes(kvae.networks.NETWORKS), "MLPDecoder", "ConvDecoder", "ResidualDecoder"),
    "kvae.sampling": ("image_batches", "draw_z", "elbo_draws"),
}
BASES = ("Decoder", "Distribution", "Likelihood", "Objective", "Posterior", "Prior", "SavedModelDecoder")
METHODS = {  # of classes whose methods are the interface
    "VAE": ("elbo encode decode reconstruct sample generate generate_means log_joint log_likelihood log_prior draw "
            "added_losses added_metrics"),
    "Decoder": "decode sample",
}  # fmt: skip


def page() -> str:
    """The page, in Markdown."""
    parts = [INTRODUCTION]
    for module, names in MODULES.items():
        rows = "\n".join(f"| `{call}` | {sentence} |" for call, sentence in _rows(module, names))
        parts.append(f"## {module}\n\n| name | what it is |\n|---|---|\n{rows}\n")
    return "\n".join(parts)


def _rows(module: str, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """A call and a sentence for each class and function of a module, and for its methods."""
    found = operator.attrgetter(module)(SimpleNamespace(kvae=kvae))
    for name in names or found.__all__:
        value = getattr(found, name)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        yield _call(name, value), _sentence(value)
        for method in METHODS.get(name, "").split():
            yield _call(f"{name}.{method}", getattr(value, method)), _sentence(getattr(value, method))


def _call(name: str, value: Any) -> str:
    """How a function or a class is called, without annotations: further options are three dots."""
    if inspect.isclass(value) and not _is_made_by_users(value):
        return name
    parameters = [each for each in inspect.signature(value).parameters.values() if each.name != "self"]
    parameters = [each for each in parameters if each.kind is not each.VAR_KEYWORD]  # those of Keras
    first = [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD][:4]
    return f"{name}({', '.join([*first, *(['...'] if len(first) < len(parameters) else [])])})"


def _is_made_by_users(cls: type) -> bool:
    """Whether users make objects of a class: not of results, of errors and of base classes."""
    if dataclasses.is_dataclass(cls) or issubclass(cls, (tuple, Exception)) or cls.__name__ in BASES:
        return False
    return inspect.isfunction(cls.__init__)


def _sentence(value: Any) -> str:
    """The first sentence of a docstring, as a cell of a table."""
    text = " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())
    sentence = re.split(r"(?<=[.;]) (?=[A-Z])", text)[0]
    return re.sub("[:;]$", ".", sentence).replace("|", "\\|")


@click.command(help=__doc__.splitlines()[0])  # type: ignore[union-attr]
def main() -> None:
    files.write_text(PAGE, page())
    click.echo(PAGE)


if __name__ == "__main__":
    main()
