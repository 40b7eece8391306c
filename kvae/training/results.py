"""What a finished run is used for: its evaluation, completions of its test images, and its pictures."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kvae import completion, evaluation
from kvae.completion import Completion
from kvae.internal import files
from kvae.internal.errors import UserError, check_seed, check_whole
from kvae.plotting import figures, plots
from kvae.plotting.figures import Subject
from kvae.training.runs import Run
from kvae.training.train_resume import load_data, protocol


def subject_of(run: Run) -> Subject:
    """A run as what pictures are made of.

    Raises:
        UserError: if the training has not finished, or the data are not there.
    """
    held_out = "validation" if run.config.data.validation else "test"
    data = load_data(run.config)
    return Subject(run.load_model(), data, run.history(), held_out)


def evaluate(
    run: Run,
    dataset: str | None = None,
    *,
    only: Iterable[str] | None = None,
    samples: int | None = None,
    seed: int = 0,
    verbose: int = 0,
) -> dict[str, Any]:
    """Evaluates a run on its test set, or on other data, and writes the result into its folder.

    Args:
        run: a run that has finished.
        dataset: other data than the run's own, binarized the same way; the result then goes to
            evaluation-<dataset>.json. The run's own data by default.
        only: as in `kvae.evaluation.evaluate`, as the next three.
        samples: number of draws of the importance-weighted bound.
        seed: seed of all draws.
        verbose: 1 shows a progress bar for what takes long.

    Raises:
        UserError: if the training has not finished, or the data are not there.
    """
    vae, config = run.load_model(), run.config
    if dataset is not None:  # of any size, so in batches that no set is too small for
        changes = {"source": dataset, "train": "train", "validation": None, "test": "test", "batch_size": 1}
        config = config.model_copy(update={"data": config.data.model_copy(update=changes)})
    data = load_data(config)
    images = data.test if dataset is None else data.test.rebatch(100)
    stated = protocol(data)
    if dataset is not None:
        stated["train"] = f"{run.config.data.train} of {run.config.data.source}"
    result = evaluation.evaluate(vae, images, only=only, samples=samples, seed=seed, protocol=stated, verbose=verbose)
    run.write_evaluation(result, dataset)
    return result


def draw(run: Run, kinds: Iterable[str] = (), suffix: str = ".png", **options: Any) -> Iterator[Path | str]:
    """Draws pictures of a run into its folder.

    Args:
        run: a run that has finished.
        kinds: names in `kvae.plotting.figures.KINDS`; all that suit the run by default.
        suffix: suffix of the files, `.png`, `.svg` or `.pdf`.
        **options: options of the kinds; each kind gets those that it has.

    Yields:
        The path of every picture; for a kind that does not suit, if none was asked for, a sentence that says why.

    Raises:
        UserError: if a kind is unknown, or one that was asked for cannot be drawn of this run.
    """
    figures.check_kinds(kinds)
    kinds, subject = tuple(kinds), subject_of(run)
    for kind in kinds or figures.KINDS:
        taken = {name: value for name, value in options.items() if name in figures.options_of(kind)}
        try:
            yield from figures.draw(kind, subject, run.plots, suffix=suffix, **taken)
        except figures.Unsuitable as error:
            if kinds:
                raise
            yield f"{kind}: left out. {error}"


class Completed(NamedTuple):
    """Completions of test images."""

    result: dict[str, Any]  # the scores and their protocol, JSON-ready
    completion: Completion
    seconds: float  # that inference and prediction took
    files: list[Path]  # pictures and complete.json


def complete(
    run: Run,
    observed: str = "top",
    *,
    digit: str | None = None,
    index: int | None = None,
    number: int | None = None,
    samples: int = 500,
    seed: int = 0,
    plain: bool = False,
    exact: bool = False,
    folder: Path | None = None,
) -> Completed:
    """Completes test images of a run from the pixels that a mask leaves, scores them, and draws them.

    Args:
        run: a run that has finished.
        observed: name of a mask, as in `kvae.completion.complete`.
        digit: class of the test images, by number or name; the first ones of it are taken.
        index: place of one test image, from 0; not together with `digit` or `number`.
        number: number of test images, 100 by default, 1 with `digit`.
        samples: number of draws of z per image.
        seed: seed of everything random.
        plain: infer by the article's plain gradient steps.
        exact: add the scores by quadrature, for 2 latent dimensions.
        folder: folder for the pictures and complete.json; the run's plots by default.

    Raises:
        UserError: if arguments contradict each other, or there are no such images.
    """
    check_seed("seed", seed)
    check_whole("samples", samples, least=3)
    if number is not None:
        check_whole("number", number)
    if index is not None and (digit is not None or number is not None):
        raise UserError("Expected an index alone, or a digit and a number. Received an index with another.")
    subject = subject_of(run)
    vae, data = subject.vae, subject.test()
    if index is not None:
        places = np.array([index])
    elif digit is not None:
        places = data.places_of("test", digit, number or 1)
    else:
        places = np.arange(min(number or 100, data.info.sizes["test"]))
    x = data.images_at("test", places)
    options = completion.article_options(vae) if plain else {}
    start = time.monotonic()
    completed = completion.complete(vae, x, observed, samples=samples, seed=seed, **options)
    seconds = time.monotonic() - start
    result = completion.evaluate(
        vae,
        x,
        completed,
        pixel_mean=data.pixel_mean,
        training_images=data.info.sizes["train"],
        samples=samples,
        seed=seed,
        exact=exact,
    )
    which = f"the first {len(x)}" if index is None else f"the one at place {index}, from 0"
    result["protocol"] = {
        **protocol(data),
        "test_images": which if digit is None else f"{which} of class {digit}",
        "observed": observed,
        "inference": f"{completed.inferred.losses.shape[1]} {'plain' if plain else 'Adam'} steps",
        "latent_samples": samples,
        "seed": seed,
        "units": "nats per image",
    }
    folder = folder or run.plots
    drawings = {"complete": figures.completion_rows(x[:10], completed.head(10))}
    if vae.latent_dim == 2:
        drawings["complete_contours"] = figures.contour_panels(vae, x[0], completed.observed[0], completed.inferred)
    for name, drawing in drawings.items():
        plots.save(drawing, folder / f"{name}.png")
    files.write_json(folder / "complete.json", result)
    written = [folder / f"{name}.png" for name in drawings]
    return Completed(result, completed, seconds, [*written, folder / "complete.json"])
