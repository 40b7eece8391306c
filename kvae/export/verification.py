"""Checks the claims of a run or a bundle: its files, its parity report and its published numbers."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kvae import evaluation, training
from kvae.evaluation import evaluations
from kvae.evaluation.estimate import Estimate
from kvae.export import formats, parity
from kvae.export.endpoints import cycled
from kvae.internal import files
from kvae.internal.errors import UserError
from kvae.noise import portable
from kvae.noise.streams import Stream
from kvae.runtime import cards
from kvae.runtime.keras import KerasDecoder
from kvae.training.runs import Run

TOLERANCE = 0.02  # nats: the difference that rounding on another machine can make
# On another machine, the error of the means may be this factor times the stated error, plus rounding in float32.
SLACK = 1.5
ROUNDING = 1e-5


class Check(NamedTuple):
    """One claim and the result of its check."""

    name: str
    passed: bool | None  # None for a claim that was not checked
    detail: str


def verify(path: str | Path, *, evaluate: bool = True, only: Iterable[str] | None = None) -> Iterator[Check]:
    """Checks the claims of a run and its bundle, or of a bundle without its run.

    The claims are: each file has the stated SHA-256; each variant can be loaded; the z of the samples are those of the
    reference; the means and samples of each variant differ from those of the Keras model by no more than its tolerance
    (without the run they are compared with the bundle's most exact decoder); and a new evaluation gives the numbers in
    evaluation.json and in the model card.

    Args:
        path: the folder of the run or of the bundle.
        evaluate: whether to compute the evaluations and the changes of the ELBO again, which needs the data. True by
            default.
        only: names of the evaluations to compute again. By default those that are not slow.

    Yields:
        The result of each check.

    Raises:
        UserError: if the folder is neither a run nor a bundle, if the data cannot be loaded, or if there is no such
            evaluation.
    """
    path = Path(path)
    chosen = None if only is None else {name: evaluations.find(name) for name in only}
    run = Run.open(path) if (path / "config.json").is_file() else None
    folder = cards.find_bundle(path)
    if folder is None and run is None:
        raise UserError(
            f"Expected a run or a bundle. Received {str(path)!r}, which has neither config.json nor {cards.CARD}."
        )
    card = None if folder is None else cards.read_card(folder)
    if folder is not None and card is not None:
        yield from _files(folder, card["files"])
        yield from _listed(folder, card)
        if run is not None and cards.MODEL not in card["run"]:
            yield Check("run", False, f"{cards.CARD} does not state the SHA-256 of {cards.MODEL}")
        if run is not None:
            yield from _files(run.folder, card["run"])
    vae = test = None
    if run is not None:
        try:
            vae = run.load_model()
        except UserError as error:
            yield Check("model.keras loads", False, str(error))
    if run is not None and vae is not None and evaluate:
        try:
            data = training.load_data(run.config)
        except UserError as error:
            raise UserError(f"{error} To verify without the data, use --no-evaluation (evaluate=False).") from error
        test = data.test
        yield from _numbers(run, card, vae, data, chosen)
    if folder is not None and card is not None:
        yield from _variants(folder, card, vae, test)


def _files(folder: Path, stated: dict[str, Any]) -> Iterator[Check]:
    """Checks that each file that a card lists has the stated SHA-256."""
    for name, facts in stated.items():
        try:
            cards.check_file(folder, name, facts)
        except UserError as error:
            yield Check(name, False, str(error))
        else:
            yield Check(name, True, f"SHA-256 {facts['sha256'][:12]}...")


def _listed(folder: Path, card: dict[str, Any]) -> Iterator[Check]:
    """Checks that the card of a bundle lists each of its files and the file of each variant."""
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    for name in sorted(present - card["files"].keys() - {cards.CARD}):
        yield Check(name, False, f"{cards.CARD} does not list it")
    if not card["variants"]:
        yield Check("variants", False, f"{cards.CARD} lists none")
    for name in card["variants"]:
        if not any(cards.files_of(card, name)):
            yield Check(name, False, f"{cards.CARD} does not list {cards.file_of(card, name)}")


def _numbers(
    run: Run, card: dict[str, Any] | None, vae: Any, data: Any, chosen: Mapping[str, Any] | None
) -> Iterator[Check]:
    """Computes the evaluations in evaluation.json and in the model card again, each with its own protocol."""
    claims = {}
    if (run.folder / "evaluation.json").is_file():
        claims["evaluation.json"] = files.read_json(run.folder / "evaluation.json")
    if card is not None and card.get("metrics"):
        claims[cards.CARD] = card["metrics"]
    if not claims:
        yield Check("evaluation", False, f"{run.folder} has no evaluation.json; make it: kvae evaluate {run.folder}")
    dataset, measured = training.protocol(data)["dataset"], {}
    for source, stated in claims.items():
        try:
            # Files of kvae 0.1 contain neither "noise" nor "evaluations".
            protocol = {"noise": 1, "evaluations": ["elbo"], **stated["protocol"]}
            seed, names = protocol["seed"], [str(name) for name in protocol["evaluations"]]
            evaluated_on = protocol["dataset"]
        except (AttributeError, KeyError, TypeError) as error:
            yield Check(f"{source}: evaluation", False, f"it is not an evaluation of kvae ({error!r})")
            continue
        if evaluated_on != dataset:
            detail = f"it is of {evaluated_on} and not of the run's {dataset}; to evaluate: kvae evaluate {run.folder}"
            yield Check(f"{source}: evaluation", False, detail)
            continue
        for name in names:
            try:
                described = evaluations.find(name)
            except UserError as error:
                yield Check(f"{source}: {name}", False, str(error))
                continue
            if described.slow if chosen is None else name not in chosen:
                yield Check(f"{source}: {name}", None, f"not computed again; to do so: kvae verify --only {name}")
                continue
            try:
                options = {option: protocol[key] for option, key in described.options.items()}
                key = (name, seed, *options.items())
                if key not in measured:
                    measured[key] = evaluation.results_of(name, vae, data.test, seed=seed, **options)
                yield from _agree(source, measured[key], stated)
            except (KeyError, TypeError, ValueError) as error:
                yield Check(f"{source}: {name}", False, f"it is not an evaluation of kvae ({error!r})")


def _agree(source: str, measured: Mapping[str, Any], stated: Mapping[str, Any]) -> Iterator[Check]:
    """Compares the means of one evaluation with those that a file states."""
    for name, value in measured.items():
        if isinstance(value, Estimate):
            mean = float(stated[name])
            detail = f"{value.mean:.3f} nats, stated {mean:.3f} (tolerance {TOLERANCE})"
            yield Check(f"{source}: {name}", abs(value.mean - mean) <= TOLERANCE, detail)


def _variants(folder: Path, card: dict[str, Any], vae: Any, test: Any) -> Iterator[Check]:
    """Checks that each variant loads, and that its errors are within its tolerance and as its card states them."""
    decoders, shape = {}, (card["model"].get("latent_dim"), card["model"].get("image_shape"))
    if vae is not None and shape != (vae.latent_dim, list(vae.image_shape)):
        detail = f"the card describes another model, with latent size and image shape {shape}"
        yield Check("model", False, detail)
        return
    for name in card["variants"]:
        try:
            decoder = cards.open_variant(folder, card, name)
        except UserError as error:
            yield Check(f"{name} loads", False, str(error))
            continue
        if shape != (decoder.latent_dim, list(decoder.image_shape)):
            detail = f"its latent size is {decoder.latent_dim} and its image shape {decoder.image_shape}"
            yield Check(f"{name} loads", False, detail)
        else:
            decoders[name] = decoder
    if not decoders:
        return
    most_exact = min(decoders, key=lambda name: _default_tolerance(card, name)["means"])
    reference = decoders[most_exact] if vae is None else KerasDecoder(vae)
    try:
        conditions = _conditions(card)
        yield _reference_z(card, reference, conditions, exact=_is_exact(card, vae))
    except (KeyError, TypeError, ValueError, OverflowError, UserError) as error:
        yield Check("reference z", False, f"the card does not state them ({error!r})")
        return
    changes = parity.elbo_changes(vae, decoders, test) if vae is not None and test is not None else {}
    for name, decoder in decoders.items():
        report = {
            **parity.errors(reference, decoder, conditions),
            "bytes": parity.size(folder / cards.file_of(card, name)),
        }
        if name in changes:
            report["elbo_change"] = changes[name]
        try:
            default = _default_tolerance(card, name)
            tolerance = {**default, **card["tolerances"][name]}
            yield _parity(name, report, card["variants"][name], tolerance, default, vae is not None)
        except (KeyError, TypeError, ValueError) as error:
            yield Check(f"{name} parity", False, f"the card does not state it ({error!r})")


def _is_exact(card: dict[str, Any], vae: Any) -> bool:
    """Whether z are the portable random numbers themselves. Without the run, the card says so."""
    return card["model"].get("prior", "standard_normal") == "standard_normal" if vae is None else vae.prior.exact


def _conditions(card: dict[str, Any]) -> np.ndarray | None:
    """The examples of the condition in a card, or None if the model takes no condition."""
    stated = card["reference"].get("conditions")
    return None if stated is None else np.array(stated, np.float32)


def _reference_z(card: dict[str, Any], reference: Any, conditions: np.ndarray | None, *, exact: bool) -> Check:
    """Checks that the z in the card are those of its seeds."""
    seeds, z = (np.array(card["reference"][name], kind) for name, kind in (("seeds", np.int32), ("z", np.float32)))
    if exact:
        same = len(z) > 0 and np.array_equal(portable.normals(seeds, Stream.LATENT, reference.latent_dim), z)
        return Check("reference z", same, "compared with the portable random numbers in NumPy")
    difference = np.abs(reference.sample(seeds, cycled(conditions, 0, len(seeds))).z - z).max()
    passed = bool(difference <= parity.Z_TOLERANCE)
    return Check("reference z", passed, f"they differ from the z of the prior by at most {difference:.2g}")


def _default_tolerance(card: dict[str, Any], name: str) -> Mapping[str, float]:
    """The default tolerance of a variant; that in the card if its format is not one of kvae's."""
    default = formats.tolerance_of(name)
    return {"means": 1.0, "elbo": np.inf, **card["tolerances"].get(name, {})} if default is None else default


def _parity(
    name: str,
    report: dict[str, Any],
    stated: dict[str, Any],
    tolerance: dict[str, Any],
    default: Mapping[str, float],
    against_keras: bool,
) -> Check:
    """Compares the measured errors of a variant with its tolerance and with the errors that the card states."""
    failures = parity.failures(name, report, tolerance)
    greatest, claimed = report["means_error_greatest"], float(stated["means_error_greatest"])
    if report["bytes"] != stated["bytes"]:
        failures.append(f"it has {report['bytes']:,} bytes, stated {stated['bytes']:,}")
    if against_keras and greatest > SLACK * claimed + ROUNDING:
        failures.append(f"the stated error is too small: the measured error is more than {SLACK:g} times as large")
    detail = (
        f"means differ by at most {greatest:.2g}, stated {claimed:.2g} (tolerance {tolerance['means']:g}); "
        f"{report['pixels_differing']} of {report['pixels']:,} pixels differ, stated {stated['pixels_differing']}"
    )
    if "elbo_change" in report and "elbo_change" in stated:
        detail += f"; ELBO {report['elbo_change']:+.4f} nats, stated {stated['elbo_change']:+.4f}"
        detail += f" (tolerance {tolerance['elbo']:g})"
    if tolerance["means"] > default["means"]:
        detail += f"; this tolerance is larger than the default {default['means']:g}"
    return Check(f"{name} parity", not failures, "; ".join([detail, *failures]))
