"""The bundle: a folder with everything that draws a model's images, its model card, and how far each file is from it.

bundle/
  saved_model/           every endpoint, any batch
  saved_model_decoder/   decode and sample alone, where it was asked for
  decoder.tflite         float32; decoder_float16.tflite, decoder_int8.tflite
  model_card.json        what the model is, its metrics and protocol, the parity report, SHA-256 of each file
  sample.py              stand-alone: numpy and ai-edge-litert
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kvae import runtime, training
from kvae.export import endpoints, litert, parity
from kvae.export.formats import DEFAULT_FORMATS, Plan, find, plan, write
from kvae.internal import files
from kvae.internal.errors import UserError
from kvae.model import likelihoods, priors
from kvae.model.vae import VAE
from kvae.noise import portable
from kvae.runtime import cards
from kvae.runtime.keras import KerasDecoder
from kvae.training import runs
from kvae.training.runs import Run

RUN_FILES = ("config.json", cards.MODEL)  # of the run that a bundle was made from
REFERENCE = 8  # samples whose z the card states
GUARANTEE = (
    "z and the uniform numbers are functions of (seed, place) alone, in integers, and the same bit for bit in NumPy, "
    "TensorFlow (eager, graph, XLA), SavedModel and LiteRT float32, float16 and int8. The means are floating point and "
    "differ as stated for each variant, so a pixel of a draw differs where its mean crosses its uniform number; the "
    "count over 10,000 images is stated. Image i depends on seed i alone, whatever else is in the batch, but for the "
    "rounding of the means."
)

LEARNED_PRIOR = (
    "The numbers that z and the pixels are drawn with are functions of (seed, place) alone, in integers, and the same "
    "bit for bit on every runtime. z is made of them with the weights of the prior, and is the same within the "
    "tolerance stated; the means and the pixels of a draw differ as stated for each variant. Image i depends on seed i "
    "alone, whatever else is in the batch, but for rounding."
)


def bundle(
    vae: VAE,
    folder: str | os.PathLike[str],
    *,
    formats: Iterable[str] = DEFAULT_FORMATS,
    variants: Iterable[str] = litert.DEFAULT_VARIANTS,
    test: Any = None,
    tolerances: Mapping[str, float] | None = None,
    overwrite: bool = False,
    name: str | None = None,
    description: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    run: Mapping[str, Any] | None = None,
    conditions: Any = None,
) -> dict[str, Any]:
    """Writes a bundle; it appears whole or not at all.

    Args:
        vae: a built model.
        folder: to write.
        formats: `savedmodel`, `savedmodel_decoder` (without the encoder's weights), `tflite`.
        variants: of the .tflite files: `float32`, `float16`, `int8`, `full_int8`.
        test: images to measure the change of the ELBO on, a `tf.data.Dataset` of batches or an array `[N, *image]`;
            not measured by default. For a model with a condition, batches (x, y) or the arrays (x, y).
        tolerances: by variant (and `saved_model`), the greatest error of the means at which the export fails, in place
            of `kvae.export.TOLERANCES`.
        overwrite: replace a bundle that stands there.
        name: for the model card, as the next three.
        description: in a sentence.
        metrics: such as what `kvae.evaluation.evaluate` returns.
        run: files that the model came from, and their SHA-256.
        conditions: examples `[M, ...]` for a model with a condition, at most 100 of which are used to compare the
            variants and stand in the model card; those of `test` by default.

    Returns:
        The model card.

    Raises:
        UserError: an unknown format or variant, a folder that exists or cannot be written, a model that cannot be
            exported, or a variant that exceeds its tolerance. Nothing is written then.
    """
    folder = Path(folder)
    plans = check_options(folder, formats, variants, tolerances, overwrite)
    stated = {"name": name, "description": description, "metrics": metrics, "run": dict(run or {})}
    try:
        json.dumps(stated, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"Expected name, description, metrics and run that JSON can hold. {error}.") from error
    replace = folder.exists()
    if vae.image_shape is not None:
        conditions = endpoints.conditions_of(vae, conditions, test)
    if not vae.prior.exact:
        plans = [plan._replace(tolerance={"z": parity.Z_TOLERANCE, **plan.tolerance}) for plan in plans]
    with files.atomic_folder(folder, overwrite=replace) as partial:
        write(vae, partial, plans, conditions)
        card = {
            **_card(vae, stated, conditions),
            "variants": _report(vae, partial, plans, test, conditions),
            "tolerances": {plan.variant: dict(plan.tolerance) for plan in plans},
        }
        written = sorted(path for path in partial.rglob("*") if path.is_file())
        card["files"] = {
            path.relative_to(partial).as_posix(): {"bytes": path.stat().st_size, "sha256": files.digest(path)}
            for path in written
        }
        files.write_json(partial / cards.CARD, card)
    return card


def check_options(
    folder: Path, formats: Any, variants: Any, tolerances: Mapping[str, float] | None, overwrite: bool
) -> list[Plan]:
    """What `bundle` would write with these arguments.

    Raises:
        UserError: if one of them is wrong, or the folder must not be written.
    """
    plans = plan(formats, variants, tolerances)
    files.check_free(folder, overwrite, cards.CARD)
    return plans


def bundle_of_run(run: Run, folder: str | os.PathLike[str] | None = None, **options: Any) -> dict[str, Any]:
    """The bundle of a run, in its folder by default, with its evaluation in the model card.

    Args:
        run: that has finished.
        folder: to write.
        **options: of `bundle`.

    Raises:
        UserError: the run has no model, or whatever `bundle` refuses.
    """
    vae = run.load_model()
    evaluation = run.folder / "evaluation.json"
    present = [name for name in RUN_FILES if (run.folder / name).is_file()]
    return bundle(
        vae,
        run.bundle if folder is None else folder,
        **options,
        name=run.config.name,
        description=run.config.description,
        metrics=files.read_json(evaluation) if evaluation.is_file() else None,
        run={name: {"sha256": files.digest(run.folder / name)} for name in present},
    )


def test_images(run: Run) -> Any:
    """The test set of a run's configuration, for `bundle(test=...)`.

    Raises:
        UserError: the data are not there.
    """
    return training.load_data(run.config).test


def _report(vae: VAE, folder: Path, plans: Iterable[Plan], test: Any, conditions: Any) -> dict[str, Any]:
    """The parity report of every variant; raises `UserError` if one exceeds its tolerance."""
    decoders = {plan.variant: runtime.open_decoder(folder / plan.file, name=_reader(plan.format)) for plan in plans}
    model = KerasDecoder(vae)
    report = {name: parity.errors(model, decoder, conditions) for name, decoder in decoders.items()}
    if test is not None:
        for name, change in parity.elbo_changes(vae, decoders, test).items():
            report[name]["elbo_change"] = change
    wrong = [line for plan in plans for line in parity.failures(plan.variant, report[plan.variant], plan.tolerance)]
    if wrong:
        raise UserError(
            f"Nothing was exported. {'; '.join(wrong)}. Leave that variant out, or state a wider tolerance if that "
            "will do."
        )
    return {
        plan.variant: {
            "file": plan.file,
            "format": _reader(plan.format),
            **parity.costs(folder / plan.file, _reader(plan.format)),
            **report[plan.variant],
        }
        for plan in plans
    }


def _reader(name: str) -> str:
    """The name under which `kvae.runtime` opens what a format has written."""
    known = {id(each): reader for reader, each in runtime.FORMATS.items()}
    return known.get(id(find(name).reading), name)


def _card(vae: VAE, stated: Mapping[str, Any], conditions: Any) -> dict[str, Any]:
    """What the card says beside the report and the files."""
    seeds, shown = portable.seeds(REFERENCE, 0), endpoints.cycled(conditions, 0, REFERENCE)
    z = vae.sample_prior(REFERENCE, 0, shown).numpy().tolist()
    also = "" if conditions is None else f", condition float32 [n{''.join(f', {n}' for n in vae.condition_shape)}]"
    return {
        "format": cards.VERSION,
        **stated,
        "model": {
            "latent_dim": vae.latent_dim,
            "image_shape": list(vae.image_shape),
            "likelihood": likelihoods.name_of(vae.likelihood),
            "prior": priors.name_of(vae.prior),
            "condition_shape": None if conditions is None else list(vae.condition_shape),
            "decoder_weights": vae.decoder.count_params(),
        },
        "signatures": {
            "decode": f"z float32 [n, D]{also} -> means, {endpoints.decoded_name(vae)} float32 [n, *image]",
            "sample": f"seed int32 [n]{also} -> images uint8 [n, *image], means float32 [n, *image], z float32 [n, D]",
        },
        "guarantee": GUARANTEE if vae.prior.exact else LEARNED_PRIOR,
        "reference": {
            "seeds": seeds.tolist(),
            "z": z,
            **({} if conditions is None else {"conditions": conditions.tolist()}),
        },
        "protocol": {
            "parity": f"against the Keras model: means at {parity.LATENTS:,} z of seed 0, samples of {parity.IMAGES:,} "
            "seeds of seed 0; elbo_change in nats per example over the whole test set, one draw of z each",
            "costs": f"{parity.machine()}; a process of its own; latency in microseconds, the median of one decode of "
            "1 or 64 latents",
        },
        "versions": runs.versions(),
    }
