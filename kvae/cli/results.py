"""`kvae evaluate`, `kvae plot`, `kvae complete`: numbers and figures of a run."""

import json
from pathlib import Path
from typing import Any

import click

from kvae.cli import stopping
from kvae.cli.output import say
from kvae.cli.shared import (
    console,
    json_option,
    print_evaluation,
    print_protocol,
    print_table,
    progress,
    quiet_option,
    quiet_tensorflow,
    three_digits,
)
from kvae.cli.shell import PLOT_KIND, RUN, SOURCE
from kvae.cli.usage import PATH, Choice, command
from kvae.internal import with_options
from kvae.internal.errors import UserError, check_seed, check_whole


@command(
    examples=(
        "kvae evaluate saved_models/demo",
        "kvae evaluate saved_models/demo --samples 100 --json",
        "kvae evaluate saved_models/demo --only elbo",
        "kvae evaluate saved_models/demo --only elbo --per-image scores.csv",
    )
)
@click.argument("run_folder", metavar="RUN", type=RUN)
@click.option(
    "--dataset",
    metavar="SOURCE",
    type=SOURCE,
    help="Evaluate on these data and not on the run's own. They are binarized in the same way.",
)
@click.option(
    "--only",
    metavar="NAME,...",
    help="Evaluations to compute: elbo, log_likelihood, bounds, defensive, quadrature (1 to 3 latent dimensions), ais, "
    "bdmc, gaps, information, representation, sample_quality, compression, classification (of a conditional model). "
    "Some have options, as in 'ais(images=100)' or 'bounds(images=1000, sample_sizes=[1, 50])'.  [default: elbo; with "
    "--samples elbo and log_likelihood]",
)
@click.option(
    "--samples",
    metavar="K",
    type=int,
    help="Add log_likelihood with K draws of z per image. With --only: the draws of each of these that has samples.",
)
@click.option(
    "--per-image",
    metavar="FILE",
    type=PATH,
    help="Write the results of each image into this file too: comma-separated values, a line per image. Without --only "
    "and --samples, these are elbo and quadrature, or defensive for more than 3 latent dimensions.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of all random draws.")
@quiet_option
@json_option
def evaluate(
    run_folder: Path,
    dataset: str | None,
    only: str | None,
    samples: int | None,
    per_image: Path | None,
    seed: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Compute the ELBO of the test images, with standard errors.

    The ELBO is minus the sum of the reconstruction error and the KL term. It is a lower bound of log p(x), so a higher
    value is better. log_likelihood is a closer lower bound, by importance sampling. All are means per image in nats:
    units of log-likelihood with the natural logarithm; 1 nat = 1.44 bits. If a long evaluation is interrupted, the same
    command continues it. Each call replaces evaluation.json in the folder of the run, so name together what it should
    contain.
    """
    from kvae.training.runs import Run

    check_seed("--seed", seed)
    if samples is not None:
        check_whole("--samples", samples)
    trained = Run.open(run_folder)
    quiet_tensorflow()
    from kvae.training import results

    names = None if only is None else with_options.split(only)
    with stopping.evaluation(trained.unfinished_evaluation), progress(quiet or as_json) as verbose:
        result = results.evaluate(
            trained, dataset, only=names, samples=samples, seed=seed, verbose=verbose, per_image=per_image
        )
    if as_json:
        print(json.dumps(result))
    else:
        print_evaluation(result)


@command(
    examples=(
        "kvae plot saved_models/demo",
        "kvae plot saved_models/demo lattice -n 30 --extent 3",
        "kvae plot saved_models/demo samples lattice --format svg --out pictures",
        "kvae plot saved_models/demo interpolation --pair 0,5 --steps 8",
    )
)
@click.argument("run_folder", metavar="RUN", type=RUN)
@click.argument("kinds", metavar="[KIND ...]", nargs=-1, type=PLOT_KIND)
@click.option(
    "-n", type=int, help="samples, latent_scatter, outliers: number of images; lattice, map: images per side."
)
@click.option("--seed", type=int, help="Seed of all random draws.  [default: 0]")
@click.option(
    "--extent",
    type=float,
    help="lattice, map: show the square from -EXTENT to EXTENT in both dimensions.  [default: around the encoded test "
    "images]",
)
@click.option(
    "--quantiles", is_flag=True, default=None, help="lattice: place points at quantiles of the normal distribution."
)
@click.option("--seamless", is_flag=True, default=None, help="lattice: draw the images alone, without axes and gaps.")
@click.option(
    "--pair",
    "pairs",
    metavar="A,B",
    multiple=True,
    help="interpolation: from class A to class B. Can be given several times.",
)
@click.option(
    "--between", metavar="I,J", multiple=True, help="interpolation: from test image I to J. Can be given several times."
)
@click.option("--steps", type=int, help="interpolation: images per path, including both ends.  [default: 10]")
@click.option("--spherical", is_flag=True, default=None, help="interpolation: along great circles, not straight lines.")
@click.option(
    "--observed", metavar="MASK", help="completion, posterior_contours: the observed pixels, as in `kvae complete`."
)
@click.option(
    "--index",
    "places",
    type=int,
    multiple=True,
    help="completion: index of a test image, from 0. Can be given several times. posterior_contours: one index.",
)
@click.option("--plain", is_flag=True, default=None, help="completion, posterior_contours: as in `kvae complete`.")
@click.option(
    "--format",
    "suffix",
    type=Choice(["png", "svg", "pdf"]),
    default="png",
    show_default=True,
    help="Format of the files.",
)
@click.option("--out", type=PATH, help="Folder of the files.  [default: RUN/plots]")
@quiet_option
@json_option
def plot(
    run_folder: Path,
    kinds: tuple[str, ...],
    suffix: str,
    out: Path | None,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Draw figures of a run.

    Without KIND, all kinds are drawn that are possible for the run.

    KIND: samples, reconstructions, latent_scatter, lattice, map, interpolation, outliers, learning_curves, completion,
    posterior_contours.
    """
    from kvae.training.runs import Run

    given = {name: value for name, value in options.items() if value not in (None, ())}
    for name in {"pairs", "between"} & given.keys():
        given[name] = [_pair(text, int if name == "between" else str) for text in given[name]]
    trained = Run.open(run_folder)
    quiet_tensorflow()
    from kvae.plotting import figures
    from kvae.training import results
    from kvae.training.wording import NOT_DRAWN

    figures.check_kinds(kinds)
    for name in given:
        if not any(name in figures.options_of(figures.parse(kind)[0]) for kind in kinds or figures.KINDS):
            owners = [kind for kind in figures.KINDS if name in figures.options_of(kind)]
            raise UserError(
                f"Expected an option of {', '.join(kinds)}. Received an option of {', '.join(owners)}. Name one of "
                "these kinds too, or leave the option out."
            )
    drawn = results.draw(trained, kinds, f".{suffix}", folder=out, **given)
    if as_json:
        files, left_out = [], {}
        for each in drawn:
            if isinstance(each, Path):
                files.append(str(each))
            else:
                kind, _, reason = each.partition(NOT_DRAWN)
                left_out[kind] = reason
        print(json.dumps({"files": files, "left_out": left_out}))
        return
    for path in drawn:
        if isinstance(path, Path) or not quiet:  # or the kind that was left out, with the reason
            say(path)


@command(
    examples=(
        "kvae complete saved_models/demo --observed top",
        "kvae complete saved_models/demo --digit 3 --observed random:0.3 --samples 100",
        "kvae complete saved_models/demo --index 7 --exact --out completed --json",
    )
)
@click.argument("run_folder", metavar="RUN", type=RUN)
@click.option(
    "--observed",
    metavar="MASK",
    default="top",
    show_default=True,
    help="Observed pixels: top, bottom, left, right, random, random:FRACTION, or a picture that is white at these "
    "pixels.",
)
@click.option(
    "--digit",
    metavar="CLASS",
    help="Complete the first test image of this class, a number or a name; with -n, the first images.",
)
@click.option("--index", type=int, help="Complete the test image with this index, counted from 0.")
@click.option("-n", "number", type=int, help="Number of test images.  [default: 100, or 1 with --digit]")
@click.option("--samples", metavar="K", type=int, default=500, show_default=True, help="Draws of z per image.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of all random draws.")
@click.option(
    "--plain",
    is_flag=True,
    help="Infer z as in the article of the recipe article_2d: 200 plain gradient steps from z = (2, -2).",
)
@click.option(
    "--exact",
    is_flag=True,
    help="Add the exact score, by integration over z (up to 3 latent dimensions; half a second per image with 2).",
)
@click.option(
    "--out",
    type=PATH,
    help="Folder of the figures and of complete.json.  [default: RUN/plots]",
)
@quiet_option
@json_option
def complete(
    run_folder: Path,
    observed: str,
    digit: str | None,
    index: int | None,
    number: int | None,
    samples: int,
    seed: int,
    plain: bool,
    exact: bool,
    out: Path | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Complete test images from some of their pixels.

    The result is scored by log p(missing | observed), the log-probability of the true missing pixels, in nats per
    image; a higher score is better. 1 nat = 1.44 bits.
    """
    from kvae.training.runs import Run

    check_seed("--seed", seed)
    check_whole("--samples", samples, least=3)
    if number is not None:
        check_whole("-n", number)
    if index is not None and (digit is not None or number is not None):
        raise UserError("Expected either --index, or --digit and -n. Received --index together with one of the others.")
    trained = Run.open(run_folder)
    quiet_tensorflow()
    from kvae.training import results

    completed = results.complete(
        trained,
        observed,
        digit=digit,
        index=index,
        number=number,
        samples=samples,
        seed=seed,
        plain=plain,
        exact=exact,
        folder=out,
    )
    if as_json:
        print(json.dumps({**completed.result, "files": [str(path) for path in completed.files]}))
        return
    losses = completed.completion.inferred.losses
    if plain and not quiet:
        for step in range(10, losses.shape[1] + 1, 10):
            say(f"step {step:3}: loss {losses.mean(axis=0)[step - 1]:.2f}")
    _report_completion(completed.result, len(losses), float(losses[:, -1].mean()), completed.seconds)
    for path in completed.files:
        say(path)


def _report_completion(result: dict[str, Any], images: int, loss: float, seconds: float) -> None:
    """Prints the scores of completions as a table, with their protocol."""
    from rich.table import Table

    from kvae.completion.scoring import LEAST_EFFECTIVE

    table = Table(title=None)
    table.add_column("log p(missing | observed)")
    table.add_column("mean, nats per image" if images > 1 else "nats", justify="right")
    if images > 1:
        table.add_column("standard error", justify="right")
    names = {
        "kvae": "kvae, importance sampling",
        "quadrature": "kvae, numerical integration (exact)",
        "zero_filled": "baseline: encode with 0 for missing pixels",
        "pixel_means": "baseline: mean of each training pixel",
    }
    for name, title in names.items():
        if name in result:
            error = [three_digits(result[name]["standard_error"])] if images > 1 else []
            table.add_row(title, three_digits(result[name]["mean"]), *error)
    print_table(table)
    if images == 1:
        say("One image says little about the model. For the mean over 100 images: -n 100, without --index.")
    scores = result["kvae"]
    say(
        f"Inference of z: the loss is {loss:.2f} nats per image; {result['converged']} of {images} images converged; "
        f"inference and prediction took {seconds:.1f} s.",
        f"Importance sampling with {result['protocol']['latent_samples']} draws of z, as good as "
        f"{scores['effective_samples']:.0f} exact ones: the error of the score is about "
        f"{scores['monte_carlo_standard_error']:.3f} nats per image.",
    )
    if scores["unreliable"]:
        console().print(
            f"Warning: the score of {scores['unreliable']} of {images} images is unreliable, because fewer than "
            f"{LEAST_EFFECTIVE} draws of z count for it. Use --samples with more than "
            f"{result['protocol']['latent_samples']}, or --exact if there are at most 3 latent dimensions.",
            soft_wrap=True,
        )
    print_protocol(result["protocol"])


def _pair(text: str, kind: type) -> tuple[Any, Any]:
    """`A,B` as two values."""
    parts = [part.strip() for part in text.split(",")]
    try:
        first, second = (kind(part) for part in parts)
    except ValueError:
        expected = "two indices, e.g. 3,17" if kind is int else "two classes, e.g. 0,5"
        raise UserError(f"Expected {expected}. Received {text!r}.") from None
    return first, second


COMMANDS = (evaluate, plot, complete)
