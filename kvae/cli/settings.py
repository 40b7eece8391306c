"""`kvae recipes`, `kvae keys`: what a training can be asked for."""

import difflib
import json
from typing import Any

import click

from kvae.cli.output import say
from kvae.cli.shared import console, json_option, quiet_tensorflow
from kvae.cli.shell import KEY_WORDS, RECIPE
from kvae.cli.usage import command
from kvae.internal.errors import UserError, unknown
from kvae.internal.next_command import kvae_command

MODEL = "model"  # the section whose parts have options of their own


@command(examples=("kvae recipes", "kvae recipes mnist_2d > mine.toml"))
@click.argument("name", required=False, type=RECIPE)
@json_option
def recipes(name: str | None, as_json: bool) -> None:
    """List the recipes of kvae, or print one of them.

    A recipe is the settings of a training as TOML, ready to copy and change.
    """
    from kvae.training import config
    from kvae.training.config import RunConfig, load_values

    available = config.recipes()
    if name is not None and name not in available:
        raise unknown("recipe", name, available)
    if name is not None:
        print(json.dumps(load_values(name)) if as_json else available[name], end="\n" if as_json else "")
        return
    about = {name: RunConfig.from_dict(load_values(name)).description for name in available}
    if as_json:
        print(json.dumps(about))
        return
    width = max(map(len, about))
    for recipe, description in about.items():
        say(f"{recipe:{width}}  {description}")


@command(examples=("kvae keys", "kvae keys training", "kvae keys learning rate", "kvae keys model --json"))
@click.argument("words", nargs=-1, metavar="[SECTION] [WORD ...]", type=KEY_WORDS)
@json_option
def keys(words: tuple[str, ...], as_json: bool) -> None:
    """List all settings: keys, types, defaults and meanings, and all parts of models with their papers.

    A key is set in a recipe, or with --set KEY=VALUE. SECTION is one of data, model and training. With WORDs, only
    the keys and parts are listed that have all of them in their name or meaning. A part of the model, such as
    model.network, has options of its own, which depend on its kind.
    """
    from kvae.training import keys as keys_

    sections, found, kinds = keys_.sections(), list(keys_.of_sections()), []
    section = words[0] if words and words[0] in {each.name for each in sections} else None
    if section in (None, MODEL):
        quiet_tensorflow()
        kinds = keys_.kinds()
        found += keys_.of_parts()
    if section is not None:
        sections = [each for each in sections if each.name == section]
        found = [key for key in found if key.section.partition(".")[0] == section]
    wanted = [word.lower() for word in words[section is not None :]]
    found = [key for key in found if _has(wanted, key.name, key.kind, key.type, key.meaning)]
    kinds_found = [each for each in kinds if _has(wanted, each.name, each.kind, each.meaning, each.paper)]
    if not found and not kinds_found:
        raise _nothing(words, [key.name for key in keys_.of_sections()])
    if as_json:
        listed = [{**key._asdict(), "section": key.section or None} for key in found]
        print(json.dumps({"keys": listed, "kinds": [each._asdict() for each in kinds_found]}))
        return
    for each in [*sections, *kinds]:
        within = [key for key in found if (key.section, key.kind) == (each.name, each.kind)]
        if within or each in kinds_found or not wanted:
            _print_section(each, within)


def _has(words: list[str], *texts: str | None) -> bool:
    """Whether all of these words, in lower case, stand in the texts."""
    text = " ".join(text for text in texts if text).lower()
    return all(word in text for word in words)


def _nothing(words: tuple[str, ...], names: list[str]) -> UserError:
    """The error for words that no key has."""
    if len(words) == 1:
        nearest = difflib.get_close_matches(words[0], [name.rpartition(".")[2] for name in names], n=3)
        nearest = [name for name in names if name.rpartition(".")[2] in nearest]
        return unknown("key", words[0], names, nearest, f"To list all keys: {kvae_command('keys')}")
    return UserError(
        f"Expected words that stand in the name or the meaning of a key. No key has all of: {' '.join(words)}."
    )


def _print_section(section: Any, keys: list[Any]) -> None:
    """Prints a section as TOML would begin it, and its keys as a table."""
    from rich.table import Table

    from kvae.training.keys import shown_default

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=bool(keys), pad_edge=False)
    table.add_column("key", no_wrap=True)
    table.add_column("default")
    table.add_column("type", max_width=16)
    table.add_column("meaning", ratio=1)
    for key in keys:
        table.add_row(f"  {key.name}", shown_default(key), key.type, key.meaning)
    out = console()
    heading = f"[{section.name}]  " if section.name else ""
    heading += f'kind = "{section.kind}": ' if section.kind else ""
    out.print(heading + section.meaning, soft_wrap=True)
    if section.paper:
        out.print(f"  {section.paper}", soft_wrap=True)
    if keys:
        out.print(table)
    out.print()


COMMANDS = (recipes, keys)
