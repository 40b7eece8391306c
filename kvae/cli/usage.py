"""How arguments are read: a mistake is one sentence, an option is given once, and a path is not empty."""

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import click

from kvae.internal.errors import UserError, unknown


class Command(click.Command):
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


class Group(click.Group):
    """A group of commands that suggests the nearest name for an unknown one."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise unknown("command", args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)


class _Path(click.Path):
    """The path of a file or folder, which need not exist."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and (not value or "\0" in value):  # "" would mean the current folder
            self.fail(f"expected a path, received {value!r}", param, ctx)
        return Path(value)


command = partial(click.command, cls=Command)
PATH = _Path()


def one_sentence(error: click.ClickException) -> str:
    """A mistake in the arguments as one line, which says where help is."""
    context = getattr(error, "ctx", None)
    if context is None:
        return error.format_message()
    if isinstance(error, click.NoSuchOption):
        names = [name for parameter in context.command.get_params(context) for name in parameter.opts]
        return str(unknown("option", error.option_name, [name for name in names if name.startswith("-")]))
    return f"{error.format_message().strip().rstrip('.')}. See {context.command_path} --help."
