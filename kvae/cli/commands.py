"""The command `kvae` with its subcommands."""

import click

from kvae import __version__
from kvae.cli import comparing, encoding, exports, results, sweeping, training
from kvae.cli.shared import import_option
from kvae.cli.usage import Group


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="With --debug, anywhere on the line, an error shows its traceback.",
)
@click.version_option(__version__)
def main() -> None:
    """Variational autoencoders with Keras: train, evaluate, compare, encode, plot, complete, export, sample."""


for _command in (
    *training.COMMANDS,
    *sweeping.COMMANDS,
    *comparing.COMMANDS,
    *results.COMMANDS,
    *encoding.COMMANDS,
    *exports.COMMANDS,
):
    if _command.name not in ("demo", "recipes", "list", "compare"):
        _command.params.append(import_option())
    main.add_command(_command)
