"""The use of a finished run: its evaluation, completions of its test images, and its figures."""

import csv
import io
import shutil
import time
import warnings
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kvae import completion, evaluation
from kvae.completion import Completion
from kvae.data import Data
from kvae.data.sources import absolute
from kvae.evaluation import evaluations, evidence
from kvae.internal import files
from kvae.internal.errors import KvaeWarning, UserError, check_seed, check_whole, stacklevel_of_user
from kvae.plotting import drawing, figures
from kvae.plotting.figures import Subject
from kvae.training.config import RunConfig
from kvae.training.runs import Run, read_evaluation
from kvae.training.train_resume import data_for, protocol
from kvae.training.wording import NOT_DRAWN

OF_THE_PLANE = ("lattice", "map", "posterior_contours")  # kinds of figures that need 2 latent dimensions


def subject_of(run: Run) -> Subject:
    """The model, data and history of a run, from which figures are drawn.

    Raises:
        UserError: if the training has not finished, or if the data cannot be loaded.
    """
    held_out = "validation" if run.config.data.validation else "test"
    vae = run.load_model()
    return Subject(vae, data_for(run, vae), run.history(), held_out)


def evaluate(
    run: Run,
    dataset: str | None = None,
    *,
    only: Iterable[str] | None = None,
    samples: int | None = None,
    seed: int = 0,
    verbose: int = 0,
    per_image: Path | None = None,
) -> dict[str, Any]:
    """Evaluates a run on its test set, or on other data, and writes the result into its folder.

    The results of batches of slow evaluations are kept in the run's folder `unfinished` until the end, so that the same
    call continues after an interruption.

    Args:
        run: a run that has finished.
        dataset: the name of other data, which are binarized as the run's data are. The result is then written to
            evaluation-<dataset>.json. By default the run's own data are used.
        only: names of evaluations, some with options, as in `kvae.evaluation.evaluate`. By default those that are not
            slow, and `log_likelihood` if `samples` is given; if only `per_image` is given, `elbo` and `quadrature`, or
            `defensive` for more than 3 latent dimensions.
        samples: the number of draws of the importance-weighted bound, K, as in `kvae.evaluation.evaluate`.
        seed: the seed of all draws.
        verbose: 1 for a progress bar during slow evaluations, 2 for lines. 0 by default.
        per_image: a file for the results of the single images: comma-separated values with a header, in the order of
            the images. It replaces a file of this name. By default none is written.

    Returns:
        The result of `kvae.evaluation.evaluate`.

    Raises:
        UserError: if the training has not finished, if the data cannot be loaded or do not fit the model, if there is
            no such evaluation, if none of them has what `samples` or `per_image` ask for, or if the run is trained
            further in the meantime.

    Warns:
        KvaeWarning: if the file has results of evaluations that are not asked for, which it loses.
    """
    files.check_folder(run.folder)
    if per_image is not None:
        files.check_file(per_image)  # before the evaluation, which may take long
    digest, vae = run.model_digest(), run.load_model()
    data = data_for(run, vae, dataset)
    if only is None and samples is None and per_image is not None:
        only = ["elbo", "quadrature" if vae.latent_dim in evidence.POINTS else "defensive"]
    names = None if only is None else list(only)
    asked = evaluations.asked_for(names, samples)
    if per_image is not None and not any(evaluations.find(name).of_images for name in asked):
        raise UserError(f"Expected an evaluation of single images, such as elbo. {', '.join(asked)}: these have none.")
    kept_in = None if dataset is None else absolute(dataset)
    _warn_of_replaced(run.evaluation_file(kept_in), asked)
    images = data.labelled_test() if evaluations.need_labels(names) else data.test
    images = images if dataset is None else images.rebatch(100)
    data_protocol = protocol(data)
    if dataset is not None:
        data_protocol["train"] = f"{run.config.data.train} of {run.config.data.source}"
    measured = evaluation.measure(
        vae,
        images,
        only=names,
        samples=samples,
        seed=seed,
        protocol=data_protocol,
        verbose=verbose,
        keep=run.unfinished_evaluation,
    )
    result = measured.as_json()
    with run.locked():
        if run.model_digest() != digest:
            raise UserError(f"{run.folder} was trained further while it was evaluated. Evaluate it again.")
        run.write_evaluation(result, kept_in)
    if per_image is not None:
        _write_per_image(per_image, data, measured.per_image())
    shutil.rmtree(run.unfinished_evaluation, ignore_errors=True)
    return result


def _warn_of_replaced(path: Path, asked: Collection[str]) -> None:
    """Warns of the evaluations in a file that is replaced by one without them."""
    try:
        before = read_evaluation(path)["protocol"].get("evaluations", ()) if path.is_file() else ()
    except UserError:  # it is damaged, and so there is nothing to lose
        return
    if lost := [name for name in before if name not in asked]:
        both = ",".join([*lost, *asked])
        message = (
            f"{path.name} will lose the results of {', '.join(lost)}. To have all in it, evaluate {both} together."
        )
        warnings.warn(message, KvaeWarning, stacklevel=stacklevel_of_user())


def _write_per_image(path: Path, data: Data, columns: dict[str, np.ndarray]) -> None:
    """Writes a line for each test image: its index, its file and class if it has them, and its results.

    An evaluation of the first images alone has no results for the others.
    """
    if not columns:
        raise UserError(
            f"{path} is not written: no evaluation has results of single images. The others are in the run."
        )
    places = np.arange(max(map(len, columns.values())))
    known: dict[str, Any] = {"index": places, "file": data.files_at("test", places)}
    if data.has_labels("test"):
        known["class"] = [data.class_name(label) for label in data.labels_at("test", places)]
    named = {name: column for name, column in known.items() if column is not None}
    values = {
        name: [f"{value:.9g}" for value in column] + [""] * (len(places) - len(column))
        for name, column in columns.items()
    }
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*named, *values])
    table.writerows(zip(*named.values(), *values.values(), strict=True))
    files.write_text(path, text.getvalue())


def draw(
    run: Run, kinds: Iterable[str] = (), suffix: str = ".png", folder: Path | None = None, **options: Any
) -> Iterator[Path | str]:
    """Draws figures of a run.

    Args:
        run: a run that has finished.
        kinds: names in `kvae.plotting.figures.KINDS`, as in `kvae.plotting.figures.parse`. By default all kinds that
            suit the run.
        suffix: the suffix of the files, `.png`, `.svg` or `.pdf`.
        folder: the folder of the files. By default the run's folder of figures.
        **options: options of the kinds. Each kind gets the options that it has. They win over those that the run's
            configuration has for this kind in `training.plots`.

    Yields:
        The path of each figure. If no kinds were given, also a line for each kind that does not suit the run.

    Raises:
        UserError: if a kind is unknown, or if a kind that was given does not suit the run.
    """
    figures.check_kinds(kinds)
    folder = folder or run.plots
    files.check_folder(folder)
    kinds = tuple(kinds)
    if any(figures.parse(kind)[0] in OF_THE_PLANE for kind in kinds):
        evidence.check_plane(run.config.model)  # before the data are loaded
    subject = subject_of(run)
    for kind in kinds or figures.KINDS:
        name, given = figures.parse(kind)
        accepted = {option: value for option, value in options.items() if option in figures.options_of(name)}
        chosen = {**plot_options(run.config, name), **given, **accepted}
        try:
            yield from figures.draw(name, subject, folder, suffix=suffix, **chosen)
        except figures.Unsuitable as error:
            if kinds:
                raise
            yield f"{kind}{NOT_DRAWN}{error}"


def plot_options(config: RunConfig, kind: str) -> dict[str, Any]:
    """The options that a configuration has for a kind of figure in `training.plots`, such as
    `lattice(n=50, seamless=true)`.
    """
    return dict(figures.parse(text) for text in config.training.plots).get(kind, {})


class Completed(NamedTuple):
    """Completions of test images, with their scores and files."""

    result: dict[str, Any]  # the scores and their protocol, as written to complete.json
    completion: Completion
    seconds: float  # the time of inference and prediction
    files: list[Path]  # the figures and complete.json


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
    """Completes test images of a run from their observed pixels, computes the scores, and draws the figures.

    Args:
        run: a run that has finished.
        observed: the name of a mask, as in `kvae.completion.complete`.
        digit: the class of the test images, by number or name. The first images of this class are used.
        index: the index of a single test image, counted from 0. It excludes `digit` and `number`.
        number: the number of test images. 100 by default, or 1 with `digit`.
        samples: the number of draws of z per image; at least 3.
        seed: the seed of all random numbers.
        plain: whether to infer with the plain gradient steps of the article that kvae reproduces.
        exact: whether to add the scores by quadrature, for models with 1 to 3 latent dimensions.
        folder: the folder of the figures and of complete.json. By default the run's folder of figures.

    Raises:
        UserError: if an argument is not valid or contradicts another, or if there are no such images.
    """
    check_seed("seed", seed)
    check_whole("samples", samples, least=3)
    if number is not None:
        check_whole("number", number)
    if index is not None and (digit is not None or number is not None):
        raise UserError(
            "Expected either index=, or digit= and number=. Received index= together with one of the others."
        )
    folder = folder or run.plots
    files.check_folder(folder)
    for given, check in ((plain, evidence.check_plane), (exact, evidence.check_latent_dim)):
        if given:
            check(run.config.model)  # before the inference, which takes long
    subject = subject_of(run)
    vae, data = subject.vae, subject.test()
    if index is not None:
        indices = np.array([index])
    elif digit is not None:
        indices = data.places_of("test", digit, number or 1)
    else:
        indices = np.arange(min(number or 100, data.info.sizes["test"]))
    x = data.images_at("test", indices)
    condition = None if vae.condition_shape is None else data.labels_at("test", indices)
    options = completion.article_options(vae) if plain else {}
    start = time.monotonic()
    completed = completion.complete(vae, x, observed, samples=samples, seed=seed, condition=condition, **options)
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
        condition=condition,
    )
    test_images = f"the first {len(x)}" if index is None else f"the image with index {index}, counted from 0"
    result["protocol"] = {
        **protocol(data),
        "test_images": test_images if digit is None else f"{test_images} of class {digit}",
        "observed": observed,
        "inference": f"{completed.inferred.losses.shape[1]} {'plain' if plain else 'Adam'} steps",
        "latent_samples": samples,
        "seed": seed,
        "units": "nats per image",
    }
    drawings = {
        "complete": figures.completion_rows(x[:10], completed.head(10), subject.originals(x[:10], indices[:10]))
    }
    if vae.latent_dim == 2 and condition is None:
        drawings["complete_contours"] = figures.contour_panels(vae, x[0], completed.observed[0], completed.inferred)
    for name, picture in drawings.items():
        drawing.save(picture, folder / f"{name}.png")
    files.write_json(folder / "complete.json", result)
    written = [folder / f"{name}.png" for name in drawings]
    return Completed(result, completed, seconds, [*written, folder / "complete.json"])
