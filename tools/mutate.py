"""Breaks the estimators of `kvae.evaluation`, one line at a time, and shows that the tests notice.

Each mutation changes one piece of code in a copy of the repository and runs the tests of its module there, which must
fail. A mutation that survives is a fault that no test would find; the exit status is then 1. All of them take about ten
minutes on one core.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import click

from kvae import cli

ROOT = Path(__file__).parents[1]
COPIED = ("kvae", "tests", "tools", "pyproject.toml")


class Mutation(NamedTuple):
    """A change of the code that makes a number wrong."""

    fault: str
    module: str  # of kvae/evaluation
    code: str  # which occurs there once
    changed: str
    tests: str  # what must fail: a file of tests/evaluation


MUTATIONS = (
    Mutation(
        "the bound lacks log K",
        "importance_weighted.py",
        "log_sum - math.log(samples), -np.inf",
        "log_sum, -np.inf",
        "test_bounds.py",
    ),
    Mutation(
        "each bound is divided by the largest K",
        "importance_weighted.py",
        "_bound(log_sum[sizes.index(size)], size)",
        "_bound(log_sum[sizes.index(size)], sizes[-1])",
        "test_bounds.py",
    ),
    Mutation(
        "the sign of the ELBO is flipped",
        "elbo_terms.py",
        "        Estimate(elbo_),\n",
        "        Estimate(-elbo_),\n",
        "test_evaluation.py",
    ),
    Mutation(
        "the standard error is divided by N",
        "estimate.py",
        "/ math.sqrt(len(self.per_example)))",
        "/ len(self.per_example))",
        "test_evaluation.py",
    ),
    Mutation(
        "the integral lacks the volume of a cell",
        "evidence.py",
        "math.log(sums.sum()) + math.log(cell)",
        "math.log(sums.sum())",
        "test_quadrature.py",
    ),
    Mutation(
        "the error of the integral is that of the same grid",
        "evidence.py",
        "np.abs(np.log(shares)).max()",
        "np.abs(np.log(shares)).min()",
        "test_quadrature.py",
    ),
    Mutation(
        "annealing lacks log K",
        "annealed.py",
        "_log_sum(log_weights) - math.log(len(log_weights))",
        "_log_sum(log_weights)",
        "test_annealed.py",
    ),
    Mutation(
        "the density of the mixture lacks the shares",
        "mixture_proposals.py",
        "log_densities + log_shares[:, None, None]",
        "log_densities",
        "test_mixture_proposals.py",
    ),
    Mutation(
        "the sign of k is flipped",
        "pareto.py",
        "return shape, -shape / best",
        "return -shape, -shape / best",
        "test_pareto.py",
    ),
    Mutation(
        "the approximation gap is counted from the encoder's ELBO",
        "inference_gaps.py",
        "log_evidence - best, best",
        "log_evidence - encoders, best",
        "test_gaps.py",
    ),
    Mutation(
        "the aggregate posterior is a sum and not a mean",
        "code_use.py",
        "np.logaddexp(others, own) - math.log(images)",
        "np.logaddexp(others, own)",
        "test_information.py",
    ),
    Mutation(
        "the kernel distance counts an image with itself",
        "samples.py",
        "/ (len(b) - own)",
        "/ len(b)",
        "test_samples.py",
    ),
    Mutation(
        "the initial bits of a message are not counted",
        "lossless_compression.py",
        "(8 * len(message) - coded.sum()) / count",
        "0.0",
        "test_compression.py",
    ),
)


@click.command(help=__doc__)
@click.argument("modules", nargs=-1, metavar="[MODULE ...]", type=click.Choice([each.module for each in MUTATIONS]))
@click.option("--list", "only_list", is_flag=True, help="Print the mutations and make none.")
def main(modules: tuple[str, ...], only_list: bool) -> None:
    """Makes the mutations, those of MODULE alone if it is given."""
    chosen = [each for each in MUTATIONS if not modules or each.module in modules]
    survivors = 0
    for mutation in chosen:
        if only_list:
            click.echo(f"{mutation.module}: {mutation.fault}")
            continue
        killed = is_killed(mutation)
        survivors += not killed
        click.echo(f"{'killed' if killed else 'SURVIVED'}: {mutation.module}: {mutation.fault}")
    if not only_list:
        click.echo(f"{len(chosen) - survivors} of {len(chosen)} mutations were killed.")
    sys.exit(1 if survivors else 0)


def is_killed(mutation: Mutation) -> bool:
    """Whether the tests fail with a mutation. Tests that cannot be run are an error, and not a failure."""
    with tempfile.TemporaryDirectory() as folder:
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, Path(folder) / name)
        path = Path(folder) / "kvae" / "evaluation" / mutation.module
        path.write_text(mutate(path.read_text(encoding="utf-8"), mutation), encoding="utf-8")
        command = [sys.executable, "-P", "-m", "pytest", "-n0", "-x", "-q"]
        command += ["-m", "", f"tests/evaluation/{mutation.tests}"]
        environment = {**os.environ, "PYTHONPATH": folder}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise click.ClickException(f"The tests of {mutation.tests} could not be run:\n{done.stdout}{done.stderr}")
    return done.returncode == 1


def mutate(code: str, mutation: Mutation) -> str:
    """The code of a module with a mutation; an error if what it changes does not occur exactly once."""
    if code.count(mutation.code) != 1:
        raise click.ClickException(
            f"Expected {mutation.code!r} once in {mutation.module}. Found it {code.count(mutation.code)} times."
        )
    return code.replace(mutation.code, mutation.changed)


if __name__ == "__main__":
    cli.run(main, "mutate.py")
