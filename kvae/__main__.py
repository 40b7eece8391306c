"""`python -m kvae` is the `kvae` command."""

from kvae.cli import run

run()
