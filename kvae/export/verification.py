"""Checks the claims of a run or a bundle: its files, its parity report and its published numbers."""

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kvae import evaluation, training
from kvae.evaluation import evaluations
from kvae.evaluation.estimate import Estimate
from kvae.export import derivation, endpoints, formats, parity, preview
from kvae.export.claims import Result, compare, is_number
from kvae.export.derivation import TOLERANCE
from kvae.internal import replacing, sealed
from kvae.internal.errors import UserError
from kvae.internal.missing_packages import MissingPackageError
from kvae.internal.next_command import kvae_command
from kvae.runtime import cards, pretrained
from kvae.runtime.keras import KerasDecoder
from kvae.training import build
from kvae.training.runs import Run

MOST = 3  # values that a check that fails names


class Check(NamedTuple):
    """One claim and the result of its check."""

    name: str
    passed: bool | None  # None for a claim that was not checked
    detail: str


def verify(path: str | Path, *, evaluate: bool = True, only: Iterable[str] | None = None) -> Iterator[Check]:
    """Checks the claims of a run and its bundle, or of a bundle without its run.

    The claims are: each file has the stated SHA-256 and size; the model can be built and loaded; each variant can be
    loaded; the z of the samples are those of the reference; the means and samples of each variant differ from those of
    the Keras model by no more than its tolerance and as the model card states (without the run they are compared with
    the bundle's most exact decoder, whose own parity is then not checked); a new evaluation gives the numbers in
    evaluation.json and in the model card; and everything else that the card states of the model. What cannot be
    computed again, such as times and versions, is listed as not checked.

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
    path = pretrained.find(Path(path))
    chosen = None if only is None else {name: evaluations.find(name) for name in only}
    is_run, folder = (path / "config.json").is_file(), cards.find_bundle(path)
    if folder is None and not is_run:
        raise UserError(
            f"Expected a run or a bundle. Received {str(path)!r}, which has neither config.json nor {cards.CARD}. "
            f"{pretrained.hides(path)}".rstrip()
        )
    card = None if folder is None else cards.read_card(folder)
    damaged: list[str] = []
    if folder is not None and card is not None:
        checks = list(_files(folder, card["files"]))
        damaged = [check.name for check in checks if check.passed is False]
        yield from checks
        yield from _listed(folder, card)
    run = vae = test = dataset = None
    if is_run:
        try:
            run = Run.open(path)
        except UserError as error:
            yield Check("config.json", False, str(error))
    if run is not None:
        if card is not None:
            if cards.MODEL not in card["run"]:
                yield Check("run", False, f"{cards.CARD} does not state the SHA-256 of {cards.MODEL}")
            yield from _files(run.folder, card["run"])
        try:
            vae = _model(run)
        except UserError as error:
            yield Check(f"{cards.MODEL} loads", False, str(error))
    if run is not None and vae is not None and evaluate:
        try:
            data = training.load_data(run.config)
        except UserError as error:
            raise UserError(f"{error} To verify without the data, use --no-evaluation (evaluate=False).") from error
        test, dataset = data.test, run.config.data.source
        yield _built(run, vae, data)
        yield from _numbers(run, card, vae, data, chosen)
    elif card is not None and card.get("metrics"):
        yield Check(f"{cards.CARD}: metrics", None, "not computed again, because this needs the run and its data")
    if run is None and card is not None and card["run"]:
        yield Check(f"{cards.CARD}: run", None, "the run is not here, so the SHA-256 of its files are not checked")
    if folder is not None and card is not None:
        yield from _variants(folder, card, damaged, vae, test, dataset)


def _model(run: Run) -> Any:
    """The model of a run; raises `UserError` if it cannot be loaded or was saved before it was built."""
    vae = run.load_model()
    if vae.image_shape is None:
        raise UserError(f"{run.folder / cards.MODEL} has no weights: it was saved before it was built.")
    return vae


def _built(run: Run, vae: Any, data: Any) -> Check:
    """Checks that the configuration describes a model with the same weights as the one that was saved."""
    try:
        fresh = build.build_model(run.config, data)
    except (UserError, ValueError, TypeError) as error:
        return Check("config.json builds", False, f"its model cannot be built: {error}")
    shapes, saved_shapes = ([tuple(weight.shape) for weight in each.weights] for each in (fresh, vae))
    described, saved = sum(map(math.prod, shapes)), sum(map(math.prod, saved_shapes))
    detail = f"it describes a model with {described:,} weights; {cards.MODEL} has {saved:,}"
    return Check("config.json builds", shapes == saved_shapes, detail)


def _files(folder: Path, stated: dict[str, Any]) -> Iterator[Check]:
    """Checks that each file that a card lists has the stated SHA-256, and the stated size if there is one."""
    for name, facts in stated.items():
        if pretrained.is_left_out(folder, name):
            yield Check(name, None, "not installed with kvae, so it is not checked")
            continue
        try:
            cards.check_file(folder, name, facts, pretrained.repair(folder))
        except UserError as error:
            yield Check(name, False, str(error))
            continue
        size = (folder / name).stat().st_size
        if size != facts.get("bytes", size):
            yield Check(name, False, f"it has {size:,} bytes; the card states {facts['bytes']!r}")
        else:
            yield Check(name, True, f"SHA-256 {facts['sha256'][:12]}...")


def _listed(folder: Path, card: dict[str, Any]) -> Iterator[Check]:
    """Checks that the card of a bundle lists each of its files and the file of each variant."""
    for name in sorted(set(replacing.files_in(folder)) - card["files"].keys() - {cards.CARD}):
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
        try:
            claims["evaluation.json"] = sealed.read(run.folder / "evaluation.json")
        except UserError as error:
            yield Check("evaluation.json: evaluation", False, str(error))
    else:
        make = kvae_command("evaluate", run.folder)
        yield Check("evaluation", False, f"{run.folder} has no evaluation.json. To make it: {make}")
    if card is not None and card.get("metrics"):
        claims[cards.CARD] = card["metrics"]
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
            again = kvae_command("evaluate", run.folder)
            detail = f"it is of {evaluated_on}, not of the run's {dataset}. To evaluate: {again}"
            yield Check(f"{source}: evaluation", False, detail)
            continue
        computed: dict[str, dict[str, Any]] = {}
        for name in names:
            try:
                described = evaluations.find(name)
            except UserError as error:
                yield Check(f"{source}: {name}", False, str(error))
                continue
            if described.slow if chosen is None else name not in chosen:
                again = kvae_command("verify", run.folder, "--only", name)
                yield Check(f"{source}: {name}", None, f"not computed again. To do so: {again}")
                continue
            try:
                options = evaluations.options_of(described, protocol)
                key = (name, seed, repr(options))
                if key not in measured:
                    images = data.labelled_test() if described.labelled else data.test
                    measured[key] = evaluation.results_of(name, vae, images, seed=seed, **options)
                computed[name] = measured[key]
                yield from _agree(source, measured[key], stated, described.unit)
            except (KeyError, TypeError, ValueError) as error:
                yield Check(f"{source}: {name}", False, f"it is not an evaluation of kvae ({error!r})")
        results = {key: value for each in computed.values() for key, value in each.items()}
        examples = evaluations.examples_of(computed) if set(computed) == set(names) else None
        expected = derivation.evaluation(stated, vae, training.protocol(data), results, examples)
        terms = {name for name, value in results.items() if isinstance(value, Estimate)}
        yield from _further(
            source, "numbers", [each for each in compare(stated, expected) if each.path[0] not in terms]
        )


def _further(source: str, kind: str, results: list[Result]) -> Iterator[Check]:
    """Checks of the values of a file that have no check of their own: those computed again, and those that are not."""
    failed = [result for result in results if result.passed is False]
    held = sum(result.passed is True for result in results)
    if failed or held:
        detail = _told(failed) if failed else f"{held} further {kind} agree with what was computed again"
        yield Check(f"{source}: further {kind}", not failed, detail)
    open_ = [result for result in results if result.passed is None]
    if open_:
        yield Check(f"{source}: not checked", None, ", ".join(dict.fromkeys(map(_kind, open_))))


def _kind(result: Result) -> str:
    """The place of a value that is not checked, with * for its variant or number, and why if it has its own reason."""
    parts = ["*" if isinstance(part, int) else str(part) for part in result.path[:3]]
    if parts[0] == "variants":
        parts[1] = "*"
    return ".".join(parts) if parts[0] != "tolerances" else f"{result.place} ({result.detail})"


def _told(failed: list[Result]) -> str:
    told = "; ".join(f"{result.place}: {result.detail}" for result in failed[:MOST])
    return told if len(failed) <= MOST else f"{told}; and {len(failed) - MOST} more"


def _agree(source: str, measured: Mapping[str, Any], stated: Mapping[str, Any], unit: str) -> Iterator[Check]:
    """Compares the means of one evaluation, in a unit, with those that a file states."""
    for name, value in measured.items():
        if isinstance(value, Estimate):
            mean = float(stated[name])
            computed = f"computed {value.mean:.3f} {unit}".rstrip()
            detail = f"{computed}, stated {mean:.3f} (tolerance {TOLERANCE})"
            yield Check(f"{source}: {name}", abs(value.mean - mean) <= TOLERANCE, detail)


def _variants(
    folder: Path, card: dict[str, Any], damaged: list[str], vae: Any, test: Any, dataset: str | None
) -> Iterator[Check]:
    """Checks that each variant loads, that its errors are as its card states them, and what the card further states."""
    shape = (card["model"].get("latent_dim"), card["model"].get("image_shape"))
    if vae is not None and shape != (vae.latent_dim, list(vae.image_shape)):
        detail = f"the card describes another model, with latent size and image shape {shape}"
        yield Check("model", False, detail)
        return
    decoders: dict[str, Any] = {}
    left_out = set(cards.present(card)) - set(pretrained.installed(folder, card))
    for name in (each for each in card["variants"] if each not in left_out):
        try:
            if not set(damaged).isdisjoint(cards.files_of(card, name)):
                raise UserError("its files are not those that the card states, so they are not opened")
            decoder = cards.open_variant(folder, card, name)
        except MissingPackageError as error:  # which says nothing of the file
            yield Check(f"{name} loads", None, str(error))
            continue
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
        conditions = _conditions(card, reference)
        compared = parity.stated_counts(card["variants"], reference.image_shape)
        errors = parity.errors(reference, decoders, compared, conditions)
        reports = {
            name: {
                **errors[name],
                "bytes": parity.size(folder / cards.file_of(card, name)),
                "described": formats.describe(name, decoders[name]),
            }
            for name in decoders
        }
        changes = parity.elbo_changes(vae, decoders, test) if vae is not None and test is not None else {}
    except UserError as error:
        yield Check("parity", False, str(error))
        return
    for name, change in changes.items():
        reports[name]["elbo_change"] = change
    expected = derivation.card(
        card,
        vae=vae,
        decoder=reference,
        decoded=_decoded(decoders[most_exact], conditions),
        dataset=dataset,
        exact=_is_exact(card, vae),
        reports=reports,
        compared=compared,
        conditions=conditions,
        usual_conditions=None if vae is None or test is None else endpoints.conditions_of(vae, None, test),
    )
    results = compare({name: value for name, value in card.items() if name not in SEPARATE}, expected)
    yield _reference_z(results, exact=_is_exact(card, vae))
    own = [("reference", "seeds"), ("reference", "z")]
    for name in decoders:
        own += [("variants", name), ("tolerances", name)]
        against = "the Keras model" if vae is not None else most_exact if name != most_exact else None
        yield _parity(name, reports[name], card, [each for each in results if each.path[:2] in own[-2:]], against)
    yield from _further(
        cards.CARD, "statements", [each for each in results if each.path[:2] not in own or each.passed is None]
    )
    if preview.FILE in card["files"] and preview.FILE not in damaged:
        yield from _preview(folder, card, decoders, conditions)


SEPARATE = ("files", "run", "metrics")  # entries of a card that have checks of their own


def _is_exact(card: dict[str, Any], vae: Any) -> bool:
    """Whether z are the portable random numbers themselves. Without the run, the card says so."""
    return card["model"].get("prior", "standard_normal") == "standard_normal" if vae is None else vae.prior.exact


def _conditions(card: dict[str, Any], decoder: Any) -> np.ndarray | None:
    """The examples of the condition in a card, or None if the model takes no condition."""
    if decoder.condition_shape is None:
        return None
    try:
        conditions = np.array(card["reference"]["conditions"], np.float32)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the card does not state examples of the condition ({error!r})") from error
    if conditions.shape[1:] != decoder.condition_shape or not np.isfinite(conditions).all() or len(conditions) == 0:
        raise UserError(f"the card states examples of the condition of shape {list(conditions.shape)}")
    return conditions


def _decoded(decoder: Any, conditions: np.ndarray | None) -> tuple[str, tuple[int, ...]]:
    """The name and the shape for one image of the second output of `decode`."""
    condition = {} if conditions is None else {"condition": conditions[:1]}
    outputs = decoder.run("decode", {"z": np.zeros((1, decoder.latent_dim), np.float32), **condition})
    return next((name, values.shape[1:]) for name, values in outputs.items() if name != "means")


def _reference_z(results: list[Result], *, exact: bool) -> Check:
    """The check of the z in the card and of their seeds."""
    failed = [each for each in results if each.path[0] == "reference" and each.passed is False]
    how = "the portable random numbers in NumPy" if exact else "the z of the prior"
    return Check("reference z", not failed, "; ".join([f"compared with {how}", *([_told(failed)] if failed else [])]))


def _preview(folder: Path, card: dict[str, Any], decoders: Mapping[str, Any], conditions: Any) -> Iterator[Check]:
    """Checks that the preview shows what its decoder draws, if this is there."""
    stated = preview.entry(card["variants"], next(iter(decoders.values())).image_shape)
    if stated is None or stated["variant"] not in decoders:
        return
    name = str(stated["variant"])
    try:
        differing = preview.difference(folder, stated, decoders[name], conditions)
    except UserError as error:
        yield Check("preview", False, str(error))
        return
    most = 1 + round(255 * _default_tolerance(card, name)["means"])  # 1 for the rounding to whole numbers
    detail = f"it differs from the means that {name} draws by at most {differing} of 255 (tolerance {most})"
    yield Check("preview", differing <= most, detail)


def _default_tolerance(card: dict[str, Any], name: str) -> Mapping[str, float]:
    """The default tolerance of a variant; that in the card if its format is not one of kvae's."""
    default = formats.tolerance_of(name)
    return {"means": 1.0, "elbo": np.inf, **_stated_tolerance(card, name)} if default is None else default


def _stated_tolerance(card: dict[str, Any], name: str) -> dict[str, float]:
    stated = card["tolerances"].get(name, {})
    return {key: float(value) for key, value in stated.items() if is_number(value)}


def _parity(name: str, report: dict[str, Any], card: dict[str, Any], results: list[Result], other: str | None) -> Check:
    """The check of the measured errors of a variant, with its tolerance and with the errors that the card states.

    Args:
        name: the variant.
        report: the errors that were measured.
        card: the model card.
        results: how what the card states of the variant was judged.
        other: the model with which the variant was compared; None if there is only the variant itself.
    """
    failed = [each for each in results if each.passed is False]
    if other is None:
        detail = "not computed again: without the run, there is no more exact model to compare it with"
        return Check(f"{name} parity", False if failed else None, _told(failed) if failed else detail)
    default, stated = _default_tolerance(card, name), card["variants"][name]
    tolerance = {**default, **_stated_tolerance(card, name)}
    failures = parity.failures(name, report, tolerance)
    greatest, differing = report["means_error_greatest"], report["pixels_differing"]
    stated_greatest = _given(stated, "means_error_greatest")
    detail = (
        f"the means differ from those of {other} by at most {greatest:.2g}, stated {stated_greatest} (tolerance "
        f"{tolerance['means']:g}); {differing} of {report['pixels']:,} pixels differ, stated "
        f"{stated.get('pixels_differing')}"
    )
    if "elbo_change" in report and "elbo_change" in stated:
        detail += f"; the ELBO changes by {report['elbo_change']:+.4f} nats, stated {_given(stated, 'elbo_change')}"
        detail += f" (tolerance {tolerance['elbo']:g})"
    if tolerance["means"] > default["means"]:
        detail += f"; this tolerance is larger than the default {default['means']:g}"
    return Check(
        f"{name} parity", not (failures or failed), "; ".join([detail, *failures, *filter(None, [_told(failed)])])
    )


def _given(stated: Mapping[str, Any], name: str) -> str:
    value = stated.get(name)
    return f"{value:.2g}" if is_number(value) else repr(value)
