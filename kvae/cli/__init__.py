"""The `kvae` command: parsing and printing. Commands import TensorFlow themselves, once they know that they need it."""

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
    epilog="--debug, anywhere on the line, shows the traceback of an error.",
)
@click.version_option(__version__)
def main() -> None:
    """Variational autoencoders with Keras: train, evaluate, plot, complete, export, sample."""


def run() -> None:
    """The console command: exit status 0 on success, 2 for a user's mistake, 1 for anything else."""
    debug = "--debug" in sys.argv
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what is half done is cleared away
    warnings.showwarning = one_line  # type: ignore[assignment]
    try:
        main([argument for argument in sys.argv[1:] if argument != "--debug"], "kvae", standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit("Interrupted.")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone; nothing is wrong
        sys.exit(0)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except UserError as error:
        if debug:
            raise
        print(f"kvae: {error}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        if debug:
            raise
        print(f"kvae: {type(error).__name__}: {error} (--debug shows where)", file=sys.stderr)
        sys.exit(1)


for _command in (*training.COMMANDS, *results.COMMANDS, *exports.COMMANDS):
    if _command.name not in ("demo", "recipes"):
        _command.params.append(import_option())
    main.add_command(_command)
