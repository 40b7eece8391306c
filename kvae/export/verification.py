"""Derives again what a run or a bundle claims: its files, its parity report, its published numbers."""

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

TOLERANCE = 0.02  # nats: rounding on another machine
SLACK = 1.5  # times the stated error of the means that another machine may find
ROUNDING = 1e-5  # of means in float32, beside that


class Check(NamedTuple):
    """One claim, and the result of its check."""

    name: str
    passed: bool | None  # None for a claim that was not checked
    found: str


def verify(path: str | Path, *, evaluate: bool = True, only: Iterable[str] | None = None) -> Iterator[Check]:
    """Checks a run with its bundle, or a bundle alone, claim by claim.

    SHA-256 of every file; every variant loads, its z are those of the reference, and its means and samples are as near
    to the Keras model (of a bundle alone: to its SavedModel or float32 decoder) as its tolerance says; the numbers that
    evaluation.json and the model card state come out again.

    Args:
        path: the folder.
        evaluate: derive the numbers and the changes of the ELBO again, which needs the data. True by default.
        only: names of the evaluations to derive again; by default those that are not slow.

    Raises:
        UserError: if it is neither a run nor a bundle, or the data are not there.
    """
    path = Path(path)
    chosen = None if only is None else {name: evaluations.find(name) for name in only}
    run = Run.open(path) if (path / "config.json").is_file() else None
    folder = cards.find_bundle(path)
    if folder is None and run is None:
        raise UserError(f"Expected a run or a bundle. {str(path)!r} has neither config.json nor {cards.CARD}.")
    card = None if folder is None else cards.read_card(folder)
    if folder is not None and card is not None:
        yield from _files(folder, card["files"])
        yield from _listed(folder, card)
        if run is not None and cards.MODEL not in card["run"]:
            yield Check("run", False, f"{cards.CARD} does not say of which {cards.MODEL} it is")
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
            raise UserError(f"{error} Without the data, verify with --no-evaluation (evaluate=False).") from error
        test = data.test
        yield from _numbers(run, card, vae, data, chosen)
    if folder is not None and card is not None:
        yield from _variants(folder, card, vae, test)


def _files(folder: Path, stated: dict[str, Any]) -> Iterator[Check]:
    """SHA-256 of the files that a card lists."""
    for name, facts in stated.items():
        try:
            cards.check_file(folder, name, facts)
        except UserError as error:
            yield Check(name, False, str(error))
        else:
            yield Check(name, True, f"SHA-256 {facts['sha256'][:12]}...")


def _listed(folder: Path, card: dict[str, Any]) -> Iterator[Check]:
    """Every file of a bundle is one that its card lists, and every variant has its file."""
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    for name in sorted(present - card["files"].keys() - {cards.CARD}):
        yield Check(name, False, f"{cards.CARD} does not list it")
    if not card["variants"]:
        yield Check("variants", False, f"{cards.CARD} states none")
    for name in card["variants"]:
        if not any(cards.files_of(card, name)):
            yield Check(name, False, f"{cards.CARD} does not list {cards.file_of(card, name)}")


def _numbers(
    run: Run, card: dict[str, Any] | None, vae: Any, data: Any, chosen: Mapping[str, Any] | None
) -> Iterator[Check]:
    """The evaluations that evaluation.json and the model card state, each made again by its own protocol."""
    claims = {}
    if (run.folder / "evaluation.json").is_file():
        claims["evaluation.json"] = files.read_json(run.folder / "evaluation.json")
    if card is not None and card.get("metrics"):
        claims[cards.CARD] = card["metrics"]
    if not claims:
        yield Check("evaluation", False, f"{run.folder} has no evaluation.json; make one: kvae evaluate {run.folder}")
    own, measured = training.protocol(data)["dataset"], {}
    for source, stated in claims.items():
        try:
            protocol = {"noise": 1, "evaluations": ["elbo"], **stated["protocol"]}  # files of 0.1 state neither
            of, seed, names = protocol["dataset"], protocol["seed"], [str(name) for name in protocol["evaluations"]]
        except (AttributeError, KeyError, TypeError) as error:
            yield Check(f"{source}: evaluation", False, f"it is not an evaluation of kvae ({error!r})")
            continue
        if of != own:
            again = f"of {of}, not of the run's own {own}; evaluate again: kvae evaluate {run.folder}"
            yield Check(f"{source}: evaluation", False, again)
            continue
        for name in names:
            evaluated = evaluations.find(name)
            if evaluated.slow if chosen is None else name not in chosen:
                yield Check(f"{source}: {name}", None, f"not derived again; kvae verify --only {name} does")
                continue
            try:
                options = {option: protocol[key] for option, key in evaluated.options.items()}
                key = (name, seed, *options.items())
                if key not in measured:
                    measured[key] = evaluation.results_of(name, vae, data.test, seed=seed, **options)
                yield from _agree(source, measured[key], stated)
            except (KeyError, TypeError, ValueError) as error:
                yield Check(f"{source}: {name}", False, f"it is not an evaluation of kvae ({error!r})")


def _agree(source: str, measured: Mapping[str, Any], stated: Mapping[str, Any]) -> Iterator[Check]:
    """The means of one evaluation against those that a file states."""
    for name, value in measured.items():
        if isinstance(value, Estimate):
            mean = float(stated[name])
            shown = f"{value.mean:.3f} nats, stated {mean:.3f} (tolerance {TOLERANCE})"
            yield Check(f"{source}: {name}", abs(value.mean - mean) <= TOLERANCE, shown)


def _variants(folder: Path, card: dict[str, Any], vae: Any, test: Any) -> Iterator[Check]:
    """Every variant loads, and is as near to the model as its tolerance and the card say."""
    decoders, shape = {}, (card["model"].get("latent_dim"), card["model"].get("image_shape"))
    if vae is not None and shape != (vae.latent_dim, list(vae.image_shape)):
        yield Check("model", False, f"the card is of another model: latent size and image shape {shape}")
        return
    for name in card["variants"]:
        try:
            decoder = cards.open_variant(folder, card, name)
        except UserError as error:
            yield Check(f"{name} loads", False, str(error))
            continue
        if shape != (decoder.latent_dim, list(decoder.image_shape)):
            yield Check(
                f"{name} loads", False, f"it is of latent size {decoder.latent_dim}, images {decoder.image_shape}"
            )
        else:
            decoders[name] = decoder
    if not decoders:
        return
    nearest = min(decoders, key=lambda name: _usual(card, name)["means"])
    reference = decoders[nearest] if vae is None else KerasDecoder(vae)
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
            limits = {**_usual(card, name), **card["tolerances"][name]}
            yield _parity(name, report, card["variants"][name], limits, _usual(card, name), vae is not None)
        except (KeyError, TypeError, ValueError) as error:
            yield Check(f"{name} parity", False, f"the card does not state it ({error!r})")


def _is_exact(card: dict[str, Any], vae: Any) -> bool:
    """Whether z are the numbers of the portable sampler themselves; of a bundle alone, as its card says."""
    return card["model"].get("prior", "standard_normal") == "standard_normal" if vae is None else vae.prior.exact


def _conditions(card: dict[str, Any]) -> np.ndarray | None:
    """The examples of conditions that a card states, for a model that has one."""
    stated = card["reference"].get("conditions")
    return None if stated is None else np.array(stated, np.float32)


def _reference_z(card: dict[str, Any], reference: Any, conditions: np.ndarray | None, *, exact: bool) -> Check:
    """The z that the card states come out again."""
    seeds, z = (np.array(card["reference"][name], kind) for name, kind in (("seeds", np.int32), ("z", np.float32)))
    if exact:
        same = len(z) > 0 and np.array_equal(portable.normals(seeds, Stream.LATENT, reference.latent_dim), z)
        return Check("reference z", same, "those of the portable sampler, in NumPy")
    apart = np.abs(reference.sample(seeds, cycled(conditions, 0, len(seeds))).z - z).max()
    return Check("reference z", bool(apart <= parity.Z_TOLERANCE), f"off by at most {apart:.2g} from the prior's")


def _usual(card: dict[str, Any], name: str) -> Mapping[str, float]:
    """The usual tolerance of a variant; its own for one of a format that is not kvae's."""
    usual = formats.tolerance_of(name)
    return {"means": 1.0, "elbo": np.inf, **card["tolerances"].get(name, {})} if usual is None else usual


def _parity(
    name: str,
    report: dict[str, Any],
    stated: dict[str, Any],
    limits: dict[str, Any],
    usual: Mapping[str, float],
    against_keras: bool,
) -> Check:
    """What was measured of a variant, against its tolerance and what the card states."""
    wrong = parity.failures(name, report, limits)
    greatest, before = report["means_error_greatest"], float(stated["means_error_greatest"])
    if report["bytes"] != stated["bytes"]:
        wrong.append(f"it has {report['bytes']:,} bytes, stated {stated['bytes']:,}")
    if against_keras and greatest > SLACK * before + ROUNDING:
        wrong.append(f"the stated error is too good: more than {SLACK:g} times it was found")
    shown = (
        f"means off by at most {greatest:.2g}, stated {before:.2g} (tolerance {limits['means']:g}); "
        f"{report['pixels_differing']} of {report['pixels']:,} pixels differ, stated {stated['pixels_differing']}"
    )
    if "elbo_change" in report and "elbo_change" in stated:
        shown += f"; ELBO {report['elbo_change']:+.4f} nats, stated {stated['elbo_change']:+.4f}"
        shown += f" (tolerance {limits['elbo']:g})"
    if limits["means"] > usual["means"]:
        shown += f"; that tolerance is wider than the usual {usual['means']:g}"
    return Check(f"{name} parity", not wrong, "; ".join([shown, *wrong]))
