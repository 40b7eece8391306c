"""What a shell completes: runs, recipes, keys, plot kinds and datasets, by click's own mechanism.

`_KVAE_COMPLETE=bash_source kvae` prints the lines that a shell needs; docs/COMMANDS.md says where they belong. The
shell then calls `kvae` at every press of the tab key, so nothing here imports TensorFlow.
"""

import ast
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

import kvae
from kvae.cli.usage import AnyPath
from kvae.runtime import pretrained

SAVED_MODELS = Path("saved_models")
SOURCES = {
    "mnist5k": "5,000 digits, a part of kvae",
    "mnist": "TensorFlow Datasets",
    "fashion_mnist": "TensorFlow Datasets",
    "idx:": "a folder of IDX files",
    "csv:": "a CSV file",
    "npz:": "a file of NumPy",
    "images:": "a folder of pictures",
}
PARTS = {  # the module and the table with the kinds of each part
    part: (f"model/{part}s", f"{part.upper()}S")
    for part in ("network", "likelihood", "prior", "posterior", "objective")
}


def _beginning_with(incomplete: str, items: Iterable[tuple[str, str]]) -> list[CompletionItem]:
    return [CompletionItem(value, help=about or None) for value, about in items if value.startswith(incomplete)]


class _Words(click.ParamType):
    """A text of which a shell completes some values. Every other value is accepted as well.

    Args:
        name: the name of the type.
        items: a function that returns the values, each with a few words about it.
        files: whether a shell completes the names of files if there is no such value.
    """

    def __init__(self, name: str, items: Any, files: bool = False) -> None:
        self.name = name
        self.items = items
        self.files = files

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        found = _beginning_with(incomplete, self.items())
        return found or ([CompletionItem(incomplete, type="file")] if self.files else [])


class _Run(AnyPath):
    """The folder of a run: those in `saved_models`, or in the folder that the user has begun to write."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        begun = os.path.dirname(incomplete)
        folders = (Path(begun),) if begun else (Path(), SAVED_MODELS)
        runs = sorted(str(file.parent) for folder in folders for file in folder.glob("*/config.json"))
        found = _beginning_with(incomplete, ((run, "") for run in runs))
        return found or [CompletionItem(incomplete, type="file")]


class _RunOrName(_Run):
    """A run, as above, or a pretrained model by name."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        names = _beginning_with(incomplete, ((name, "pretrained") for name in pretrained.folders()))
        runs = [item for item in super().shell_complete(ctx, param, incomplete) if not (names and item.type == "file")]
        return [*runs, *names]


class _Setting(click.ParamType):
    """`KEY=VALUE`: a key is completed with its default value, and the value of a key with its choices."""

    name = "setting"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from kvae.training import keys
        from kvae.training.part_tables import SHORT

        key, equals, _ = incomplete.partition("=")
        known = {each.name: each for each in keys.of_sections()}
        part = key.removeprefix("model.").removesuffix(".kind")
        if equals and part in PARTS:
            return _beginning_with(incomplete, ((f"{key}={kind}", "") for kind, _ in _names_in(*PARTS[part])))
        if equals:
            values = keys.choices(key) if key in known else []
            return _beginning_with(incomplete, ((f"{key}={value}", "") for value in values))
        items = [(f"{name}={keys.shown_default(each)}", each.meaning) for name, each in known.items()]
        items += [(f"model.{name}=", f"option of model.{part}") for name, (part, _) in SHORT.items()]
        if incomplete.startswith("model."):  # otherwise the short keys are enough
            items += [(f"model.{part}.kind=", f"kind of model.{part}") for part in PARTS]
            items += [(f"{name}=", about) for name, about in _options_of_parts()]
        return _beginning_with(incomplete, items)


def _names_in(module: str, table: str) -> list[tuple[str, str]]:
    """The names in a table, a dictionary in a module of kvae, which is read and not imported: it needs TensorFlow."""
    path = Path(kvae.__file__).parent / module
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == table and isinstance(node.value, ast.Dict):
            return [(str(key.value), "") for key in node.value.keys if isinstance(key, ast.Constant)]
    return []


def _options_of_parts() -> list[tuple[str, str]]:
    """The keys `model.PART.OPTION`, each with the kinds of the part that have the option."""
    from kvae.training.part_tables import OF_ANOTHER_PART, OPTIONS

    return [
        (f"model.{part}.{name}", f"option of {', '.join(kinds)}" if kinds else "option of every kind")
        for name, (part, kinds) in (*OPTIONS.items(), *OF_ANOTHER_PART.items())
    ]


def _binarizations() -> list[tuple[str, str]]:
    from kvae.training import keys

    return [(name, "") for name in keys.choices("data.binarize")]


def _recipes() -> list[tuple[str, str]]:
    from kvae.training.config import load_values, recipes

    return [(name, load_values(name).get("description", "")) for name in recipes()]


def _key_words() -> list[tuple[str, str]]:
    from kvae.training import keys

    sections = [(each.name, each.meaning) for each in keys.sections() if each.name]
    return [*sections, *((key.name, key.meaning) for key in keys.of_sections()), *_options_of_parts()]


RUN = _Run()
RUN_OR_NAME = _RunOrName()
SETTING = _Setting()
RECIPE = _Words("recipe", _recipes)
RECIPE_OR_FILE = _Words("recipe", _recipes, files=True)
KEY_WORDS = _Words("word", _key_words)
PLOT_KIND = _Words("kind", partial(_names_in, "plotting/figures", "KINDS"))
SOURCE = _Words("source", SOURCES.items)
NETWORK = _Words("network", partial(_names_in, *PARTS["network"]))
LIKELIHOOD = _Words("likelihood", partial(_names_in, *PARTS["likelihood"]))
BINARIZATION = _Words("binarization", _binarizations)
