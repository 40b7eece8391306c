"""How arguments are read: a mistake is one sentence, an option is given once, and a path is not empty.

The help of every command ends with examples, which the tests run.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from kvae.internal.errors import UserError, unknown
from kvae.internal.next_command import kvae_command


class _Exemplified(click.Command):
    """A command whose help ends with examples.

    Args:
        examples: lines that a user can type.
    """

    def __init__(self, *args: Any, examples: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples:  # not wrapped, so that it can be copied
                    formatter.write(f"{' ' * formatter.current_indent}{line}\n")
        super().format_epilog(ctx, formatter)


class Command(_Exemplified):
    """A command that refuses an option that is given twice. Click would take the last value and say nothing."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            _, _, order = self.make_parser(ctx).parse_args(list(args))
        except click.UsageError as error:
            error.ctx = ctx  # which the parser leaves out of some
            raise
        for parameter, count in Counter(order).items():
            if count > 1 and isinstance(parameter, click.Option) and not (parameter.multiple or parameter.is_flag):
                raise UserError(f"Expected {parameter.opts[0]} once. Received it {count} times.")
        return super().parse_args(ctx, args)


class Group(_Exemplified, click.Group):
    """A group of commands that suggests the nearest name for an unknown one."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise unknown("command", args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)


class AnyPath(click.Path):
    """The path of a file or folder, which need not exist."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and (not value or "\0" in value):  # "" would mean the current folder
            self.fail(f"expected a path, received {value!r}", param, ctx)
        return Path(value)


class Choice(click.Choice):
    """One of a few names. For another name, the error suggests the nearest."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value not in self.choices:
            raise unknown("value" if param is None else f"value of {param.opts[0]}:", value, self.choices)
        return value


command = partial(click.command, cls=Command)
PATH = AnyPath()


def one_sentence(error: click.ClickException) -> str:
    """A mistake in the arguments as one line, which says where help is."""
    context = getattr(error, "ctx", None)
    if context is None:
        return error.format_message()
    if isinstance(error, click.NoSuchOption):
        names = [name for parameter in context.command.get_params(context) for name in parameter.opts]
        return str(unknown("option", error.option_name, [name for name in names if name.startswith("-")]))
    help_ = kvae_command(*context.command_path.split()[1:], "--help")
    return f"{error.format_message().strip().rstrip('.')}. See {help_}."
