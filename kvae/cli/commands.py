"""The command `kvae` with its subcommands."""

import click

from kvae import __version__
from kvae.cli import comparing, encoding, exports, pretrained, results, settings, sweeping, training
from kvae.cli.shared import import_option
from kvae.cli.usage import Group


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    examples=("kvae demo", "kvae train --help", "kvae recipes"),
    epilog="With --debug, anywhere on the line, an error shows its traceback.",
)
@click.version_option(__version__)
def main() -> None:
    """Variational autoencoders with Keras: train, evaluate, compare, encode, plot, complete, export, sample."""


for _command in (
    *training.COMMANDS,
    *sweeping.COMMANDS,
    *settings.COMMANDS,
    *comparing.COMMANDS,
    *results.COMMANDS,
    *encoding.COMMANDS,
    *exports.COMMANDS,
    *pretrained.COMMANDS,
):
    # These open no model or data of a user.
    if _command not in (training.demo, *settings.COMMANDS, *comparing.COMMANDS, *pretrained.COMMANDS):
        _command.params.append(import_option())
    main.add_command(_command)
