"""What every key of a configuration is: its type, its default and its meaning, as `kvae keys` prints them.

The keys are the fields of the models in `config.py`. The options of a part of the model are the arguments of its class,
whose docstring says what they mean.
"""

import re
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel

from kvae.training import config
from kvae.training.part_tables import KINDS, SHORT

_YEAR = re.compile(r"\((19|20)\d\d\)")
TYPES = {int: "whole number", float: "number", str: "text", bool: "true or false", tuple: "list", list: "list"}


class Section(NamedTuple):
    """A section of a configuration, or a kind of a part of the model."""

    name: str  # e.g. `data` or `model.network`; empty for the keys of no section
    kind: str | None  # the kind of the part
    meaning: str
    paper: str = ""  # the papers that introduce the kind


class Key(NamedTuple):
    """A key of a configuration."""

    section: str  # e.g. `data` or, for an option of a part, `model.network`; empty for the keys of no section
    kind: str | None  # the kind of the part that has this option; None if it is not the option of a part
    name: str  # the whole dotted key
    type: str
    default: Any
    meaning: str


def sections() -> list[Section]:
    """The sections of a configuration. It needs no TensorFlow."""
    fields = config.RunConfig.model_fields.items()
    named = [(name, info.annotation.__doc__) for name, info in fields if _is_section(info.annotation)]
    return [Section("", None, "The run as a whole."), *(Section(name, None, _text(doc)) for name, doc in named)]


def kinds() -> list[Section]:
    """The kinds of each part of the model, which imports TensorFlow."""
    from kvae.training import build

    return [
        Section(f"model.{part}", kind, *_meaning_and_paper(cls))
        for part in KINDS
        for kind, cls in build.TABLES[part][0].items()
    ]


def of_sections(cls: type[BaseModel] = config.RunConfig, section: str = "") -> Iterator[Key]:
    """The keys of a configuration, without the options of the parts of its model. It needs no TensorFlow."""
    for name, info in cls.model_fields.items():
        inner: Any = info.annotation
        if _is_section(inner):
            yield from of_sections(inner, name)
        else:
            default = info.default.kind if isinstance(info.default, config.PartConfig) else info.default
            key = f"{section}.{name}".lstrip(".")
            yield Key(section, None, key, _type(inner), default, _text(info.description))


def of_parts() -> Iterator[Key]:
    """The options of each kind of each part of the model, which imports TensorFlow."""
    from kvae.training import build

    for part in KINDS:
        for kind, cls in build.TABLES[part][0].items():
            common = build.NETWORK_DEFAULTS if part == "network" else {}
            for name, default in {**build.options_of(cls), **common}.items():
                meaning = build.NETWORK_MEANINGS[name] if name in common else _argument(cls, name)
                if name in SHORT:
                    meaning += f" Short key: model.{name}."
                type_ = _option_type(cls, name, default)
                yield Key(f"model.{part}", kind, f"model.{part}.{name}", type_, default, meaning)


def choices(key: str) -> list[str]:
    """The values that a key may have if these are a few names, else nothing."""
    section, _, name = key.rpartition(".")
    cls: Any = config.RunConfig.model_fields[section].annotation if section else config.RunConfig
    return [value for value in _literals(cls.model_fields[name].annotation) if isinstance(value, str)]


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation is not config.PartConfig


def _literals(annotation: Any) -> Iterator[Any]:
    """The values of the `Literal`s in an annotation."""
    for argument in get_args(annotation):
        if get_origin(annotation) is Literal:
            yield argument
        else:
            yield from _literals(argument)


def _type(annotation: Any) -> str:
    """The type of a key in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return ", ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(_type(argument) for argument in arguments if argument is not types.NoneType)
    if origin is tuple:
        return "list of texts"
    return "name of a kind" if annotation is config.PartConfig else TYPES[annotation]


def _text(text: str | None) -> str:
    """A docstring or a part of one as one line, without the marks of code."""
    return " ".join((text or "").split()).replace("`", "")


def _meaning_and_paper(cls: type) -> tuple[str, str]:
    """What a class is, from the first paragraph of its docstring; and its papers.

    Papers are the sentences, or parts of one after a semicolon, with a year in parentheses, before the arguments.
    """
    about = re.split(r"\n\s*(?:Args|Attributes|Raises):", cls.__doc__ or "")[0].split("\n\n")
    sentences = [re.split(r"(?<=[.;]) (?=[A-Z])", _text(paragraph)) for paragraph in about]
    meaning = " ".join(sentence for sentence in sentences[0] if not _YEAR.search(sentence))
    papers = [sentence for paragraph in sentences for sentence in paragraph if _YEAR.search(sentence)]
    return re.sub(";$", ".", meaning), " ".join(papers)


def _option_type(cls: type, name: str, default: Any) -> str:
    """The type of an option of a part in words: that of its default, or else that of its annotation."""
    if default is not None:
        return TYPES.get(type(default), "text")
    for base in cls.__mro__:
        hints = typing.get_type_hints(vars(base).get("__init__", object))
        if name in hints:
            return " or ".join(TYPES.get(each, "text") for each in get_args(hints[name]) if each is not types.NoneType)
    return "text"


def _argument(cls: type, name: str) -> str:
    """What the docstring of a class, or of one of its base classes, says of an argument."""
    for base in cls.__mro__:
        found = re.search(rf"^ +{name}: (.*?)(?=^ +\S+: |^\s*$|\Z)", base.__doc__ or "", re.MULTILINE | re.DOTALL)
        if found:
            text = _text(found[1])
            return text[:1].upper() + text[1:]
    return ""


def shown_default(key: Key) -> str:
    """The default as `--set` takes it; empty for a key that has none."""
    if key.default is None or isinstance(key.default, str):
        return key.default or ""
    if isinstance(key.default, list | tuple):
        return "[" + ",".join(map(str, key.default)) + "]"
    return f"{key.default:g}" if isinstance(key.default, float) else str(key.default).lower()
