"""The bundle: a folder with the exported decoders of a model and its model card.

bundle/
  saved_model/           all endpoints, for any batch size
  saved_model_decoder/   only decode and sample; on request
  decoder.tflite         float32; likewise decoder_float16.tflite and decoder_int8.tflite
  decoder.onnx           for ONNX Runtime; on request
  model_card.json        a description of the model and its inputs and outputs, its metrics, the parity report, the
                         licences and the SHA-256 of each file
  README.md              the model card for people and model hubs: which file is for what, and code that draws images
  preview.png            the means of images that `kvae sample` draws
  sample.py              a stand-alone script that needs only numpy and ai-edge-litert
  web/index.html         a web page with int8 weights, which needs no network; index_float32.html on request
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kvae import runtime, training
from kvae.data import Data
from kvae.export import endpoints, interface, licences, litert, parity, preview, readme, snippets, statements, steps
from kvae.export.formats import Plan, describe, find, plan, possible, write
from kvae.export.web import POINTS, About
from kvae.internal import files, replacing, sealed
from kvae.internal.errors import UserError
from kvae.model import likelihoods, sampling
from kvae.model.vae import VAE
from kvae.plotting.subject import Subject
from kvae.runtime import cards
from kvae.runtime.keras import KerasDecoder
from kvae.training import runs
from kvae.training.runs import Run

DIGITS = ("mnist5k", "mnist")  # sources whose pictures were centred and scaled as MNIST
RUN_FILES = ("config.json", cards.MODEL)  # the files of a run whose SHA-256 the card contains


def bundle(
    vae: VAE,
    folder: str | os.PathLike[str],
    *,
    formats: Iterable[str] | None = None,
    variants: Iterable[str] = litert.DEFAULT_VARIANTS,
    test: Any = None,
    tolerances: Mapping[str, float] | None = None,
    overwrite: bool = False,
    name: str | None = None,
    description: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    run: Mapping[str, Any] | None = None,
    conditions: Any = None,
    class_names: Iterable[str] | None = None,
    about: About | None = None,
    dataset: str | None = None,
    licence: str | None = None,
    data_licence: str | None = None,
    quick: bool = False,
    verbose: int = 0,
) -> dict[str, Any]:
    """Writes a bundle: either all of it, or nothing if there is an error.

    Args:
        vae: a built model.
        folder: the folder of the bundle.
        formats: names of formats: `savedmodel`, `savedmodel_decoder` (without the encoder's weights), `tflite`,
            `onnx`, `web`, or `module:name` for a format in an imported file. By default `savedmodel`, `tflite`, and
            `web` if the web page knows the model.
        variants: the variants of the .tflite files: `float32`, `float16`, `int8`, `full_int8`; and of the web page:
            `web_int8` and `web_float32`.
        test: the test images for the change of the ELBO, a `tf.data.Dataset` of batches or an array `[N, *image]`. For
            a conditional model, batches (x, y) or the arrays (x, y). By default the change is not measured.
        tolerances: for each variant, the largest permitted error of the means, in (0, 1], in place of that in
            `kvae.export.TOLERANCES`. The export fails if the error is larger.
        overwrite: whether to replace an existing bundle. False by default.
        name: the name of the model, for the model card.
        description: a sentence about the model, for the model card.
        metrics: metrics of the model for the model card, e.g. the result of `kvae.evaluation.evaluate`.
        run: the files of the model's run with their SHA-256, for the model card.
        conditions: for a conditional model, examples `[M, ...]`. At most 100 of them are used to compare the variants
            and are written to the model card. By default those of `test`.
        class_names: for a model of C classes, their names, for the model card. `kvae sample --label` finds them there.
        about: what the web page says of the model, e.g. the encoded test images. By default its name and description.
            The names of its classes are `class_names`.
        dataset: the name of the data of the model, as in `kvae.data.load`, whose licence is known for some.
        licence: the licence of the model for the model card, e.g. `CC-BY-4.0`. By default the card says that it is not
            stated.
        data_licence: the licence of the data. By default that of `dataset`, if it is known.
        quick: whether to compare a tenth of the samples, and to measure times with 1 thread alone. False by default.
        verbose: 0 to print nothing, which is the default; 1 for a line for each step above a bar, 2 for lines alone.

    Returns:
        The model card.

    Raises:
        UserError: if a format or variant is unknown, if the folder exists or cannot be written, if the model cannot be
            exported, or if the error of a variant exceeds its tolerance. In all these cases nothing is written.
    """
    folder = Path(folder)
    plans = check_options(folder, formats, variants, tolerances, overwrite, licence, data_licence)
    facts = {
        "name": name,
        "description": description,
        "licence": licences.entry(dataset, licence, data_licence),
        "metrics": metrics,
        "run": dict(run or {}),
    }
    names = {} if class_names is None else {cards.CLASS_NAMES: list(map(str, class_names))}
    if names and vae.condition_shape != (len(names[cards.CLASS_NAMES]),):
        raise UserError(
            f"Expected class_names= for a model of so many classes. Received {len(names[cards.CLASS_NAMES])} names for "
            f"a model with condition_shape {vae.condition_shape}."
        )
    try:
        json.dumps(facts, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"Expected name, description, metrics and run as values that JSON has. Received another value: {error}."
        ) from error
    replace = folder.exists()
    if vae.image_shape is not None:
        plans = possible(vae, plans, by_default=formats is None, say=steps.line if verbose else steps.silent)
        plans = [plan._replace(tolerance=parity.tolerance_for(vae.image_shape, plan.tolerance)) for plan in plans]
        conditions = endpoints.conditions_of(vae, conditions, test)
    if not vae.prior.exact:
        plans = [plan._replace(tolerance={"z": parity.Z_TOLERANCE, **plan.tolerance}) for plan in plans]
    number = len({plan.format for plan in plans}) + 1 + (test is not None) + len(plans)
    with files.atomic_folder(folder, overwrite=replace) as partial, steps.told(verbose, number) as begin:
        told = about or About(name, description)
        if names:
            told = told._replace(class_names=tuple(names[cards.CLASS_NAMES]))
        write(vae, partial, plans, conditions, told, begin)
        decoders = {
            plan.variant: runtime.open_decoder(partial / plan.file, name=_reader(plan.format)) for plan in plans
        }
        reports = _report(vae, partial, plans, decoders, test, conditions, quick, begin)
        card = {
            **_card(vae, facts, names, reports, conditions, quick),
            "variants": reports,
            "tolerances": {plan.variant: dict(plan.tolerance) for plan in plans},
        }
        if card["preview"] is not None:
            preview.write(partial, card["preview"], decoders[card["preview"]["variant"]], conditions)
        (partial / readme.FILE).write_text(readme.render(card, _first_z(vae)), encoding="utf-8")
        written = sorted(path for path in partial.rglob("*") if path.is_file())
        card["files"] = {
            path.relative_to(partial).as_posix(): {"bytes": path.stat().st_size, "sha256": files.digest(path)}
            for path in written
        }
        sealed.write(partial / cards.CARD, card)
    return card


def check_options(
    folder: Path,
    formats: Any,
    variants: Any,
    tolerances: Mapping[str, float] | None,
    overwrite: bool,
    licence: str | None = None,
    data_licence: str | None = None,
) -> list[Plan]:
    """Checks arguments of `bundle`, which has the same names, before anything slow is done.

    Returns:
        The variants that `bundle` would write.

    Raises:
        UserError: if an argument is not valid, or if the folder must not be written.
    """
    licences.check("licence", licence)
    licences.check("data_licence", data_licence)
    plans = plan(formats, variants, tolerances)
    replacing.check_free(folder, overwrite, noun="a bundle", strangers=cards.strangers)
    return plans


def bundle_of_run(
    run: Run, folder: str | os.PathLike[str] | None = None, *, data: Data | None = None, **options: Any
) -> dict[str, Any]:
    """Writes the bundle of a run, with the run's evaluation in the model card.

    Args:
        run: a run that has finished.
        folder: the folder of the bundle. By default `bundle` in the folder of the run.
        data: the data of the run, whose encoded test images the web page shows, and which are `test` if that is not
            given. By default the page shows none.
        **options: further arguments of `bundle`.

    Returns:
        The model card.

    Raises:
        UserError: if the run has no model, or for the reasons that `bundle` names.
    """
    present = [name for name in RUN_FILES if (run.folder / name).is_file()]
    digests = {name: {"sha256": files.digest(run.folder / name)} for name in present}  # of the model that is loaded
    vae = run.load_model()
    if data is not None:
        options = {"test": data.test, **options}
    names = run.facts.get(cards.CLASS_NAMES)
    if names is not None and options.get("test") is None:  # otherwise the labels of the test images are the examples
        options = {"conditions": np.arange(len(names)), **options}
    return bundle(
        vae,
        run.bundle if folder is None else folder,
        **options,
        name=run.config.name,
        description=run.config.description,
        metrics=run.evaluation() if run.finished else None,
        run=digests,
        dataset=run.config.data.source,
        class_names=names,
        about=_about(run, vae, data),
    )


def test_images(run: Run) -> Any:
    """The test set of a run, for the argument `test` of `bundle`.

    Raises:
        UserError: if the data cannot be loaded.
    """
    return data_of(run).test


def data_of(run: Run) -> Data:
    """The data of a run, for the argument `data` of `bundle_of_run`.

    Raises:
        UserError: if the data cannot be loaded.
    """
    return training.load_data(run.config)


def _about(run: Run, vae: VAE, data: Data | None) -> About:
    """What the web page says of the model of a run."""
    about = About(
        run.config.name,
        run.config.description,
        kl_per_dimension=run.evaluation().get("kl_per_dimension") if run.finished else None,
        digits=run.config.data.source in DIGITS,
    )
    if data is None or vae.latent_dim != 2:
        return about
    means, labels = Subject(vae, data).encoded(POINTS)
    return about._replace(means=means, labels=labels, label_names=data.info.label_names)


def _report(
    vae: VAE,
    folder: Path,
    plans: list[Plan],
    decoders: Mapping[str, runtime.Decoder],
    test: Any,
    conditions: Any,
    quick: bool,
    begin: steps.Begin,
) -> dict[str, Any]:
    """The parity report of every variant; raises `UserError` if an error exceeds its tolerance."""
    model = KerasDecoder(vae)
    compared = parity.counts(model.image_shape, quick=quick)
    begin(f"comparing means at {compared.latents:,} z and {compared.images:,} images with the Keras model")
    report = parity.errors(model, decoders, compared, conditions)
    if test is not None:
        begin("measuring the change of the test ELBO")
        for name, change in parity.elbo_changes(vae, decoders, test).items():
            report[name]["elbo_change"] = change
    failures = [line for plan in plans for line in parity.failures(plan.variant, report[plan.variant], plan.tolerance)]
    if failures:
        raise UserError(
            f"Nothing was exported. {'; '.join(failures)}. Leave this variant out, or set a larger tolerance if the "
            "error is acceptable."
        )
    threads = parity.THREADS[:1] if quick else parity.THREADS
    for entry in plans:
        begin(f"measuring time and memory of {entry.variant}")
        reader = _reader(entry.format)
        costs = parity.costs(folder / entry.file, reader, threads)
        described = describe(entry.variant, decoders[entry.variant], find(entry.format))
        report[entry.variant] = {"file": entry.file, "format": reader, **described, **costs, **report[entry.variant]}
    return report


def _first_z(vae: VAE) -> list[float]:
    """The z of the first seed of the card, which the code in README.md draws."""
    condition = None if vae.condition_shape is None else snippets.example_condition(vae.condition_shape)
    return sampling.draw_z(vae, 1, 0, condition).numpy()[0].tolist()


def _reader(name: str) -> str:
    """The name of the format with which `kvae.runtime` opens the files of an export format."""
    readers = {id(reading): reader for reader, reading in runtime.FORMATS.items()}
    return readers.get(id(find(name).reading), name)


def _card(
    vae: VAE,
    facts: Mapping[str, Any],
    names: Mapping[str, Any],
    variants: Mapping[str, Any],
    conditions: Any,
    quick: bool,
) -> dict[str, Any]:
    """The entries of the model card other than the report, the tolerances and the files."""
    decoded = endpoints.decoded_name(vae)
    return {
        "format": cards.VERSION,
        **facts,
        "model": {**statements.model(vae), **names},
        "signatures": statements.signatures(decoded, vae.condition_shape),
        "interface": interface.interface(
            interface.names_of(variants),
            latent_dim=vae.latent_dim,
            image_shape=vae.image_shape,
            condition_shape=vae.condition_shape,
            decoded=decoded,
            decoded_shape=vae.likelihood.parameters_shape(vae.image_shape),
            likelihood=likelihoods.name_of(vae.likelihood),
        ),
        "preview": preview.entry(variants, vae.image_shape),
        "guarantee": statements.guarantee(vae.prior.exact),
        "reference": statements.reference(vae, conditions),
        "protocol": {
            "parity": statements.parity_protocol(parity.counts(vae.image_shape, quick=quick)),
            "costs": f"{parity.machine()}{statements.COSTS}",
        },
        "versions": runs.versions(),
    }
