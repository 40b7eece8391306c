"""The command `kvae`: parsing and printing. Each command imports TensorFlow only when it needs it."""

import logging
import os
import signal
import sys
import threading
import warnings

import click

from kvae import __version__
from kvae.cli import exports, results, training
from kvae.cli.shared import import_option, one_line
from kvae.internal.errors import UserError


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="With --debug, anywhere on the line, an error shows its traceback.",
)
@click.version_option(__version__)
def main() -> None:
    """Variational autoencoders with Keras: train, evaluate, plot, complete, export, sample."""


def run(command: click.Command = main, name: str = "kvae") -> None:
    """Runs a command with the arguments of this process.

    The exit status is 2 after a mistake of the user, 130 after an interruption, and 1 after any other error.

    Args:
        command: the command, by default `kvae` with its subcommands.
        name: the name of the command in messages.
    """
    debug = "--debug" in sys.argv
    logging.getLogger("absl").setLevel(logging.ERROR)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # whichever command imports TensorFlow
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that unfinished files are removed
    warnings.showwarning = one_line  # type: ignore[assignment]
    try:
        command([argument for argument in sys.argv[1:] if argument != "--debug"], name, standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except (click.Abort, KeyboardInterrupt):
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has ended, which is no error
        sys.exit(0)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except UserError as error:
        if debug:
            raise
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        if debug:
            raise
        print(f"{name}: {type(error).__name__}: {error} (--debug shows where)", file=sys.stderr)
        sys.exit(1)


for _command in (*training.COMMANDS, *results.COMMANDS, *exports.COMMANDS):
    if _command.name not in ("demo", "recipes"):
        _command.params.append(import_option())
    main.add_command(_command)
