"""Re-derives what a run or a bundle claims: its files, its parity report, its published ELBO."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kvae import evaluation, runtime, training
from kvae.export import bundles, parity
from kvae.export.endpoints import cycled
from kvae.internal import files
from kvae.internal.errors import UserError
from kvae.noise import portable
from kvae.noise.streams import Stream
from kvae.training.runs import Run

ELBO_TOLERANCE = 0.02  # nats: rounding on another machine
SLACK = 1.5  # times the stated error of the means that another machine may find
ROUNDING = 1e-5  # of means in float32, beside that
TERMS = ("elbo", "reconstruction", "kl")


class Check(NamedTuple):
    """One claim, and what came of it."""

    name: str
    passed: bool
    found: str


def verify(path: str | Path, *, evaluate: bool = True) -> Iterator[Check]:
    """Checks a run with its bundle, or a bundle alone, claim by claim.

    SHA-256 of every file; every variant loads, its z are those of the reference, and its means and samples are as near
    to the Keras model (of a bundle alone: to its SavedModel or float32 decoder) as its tolerance says; the ELBO that
    evaluation.json and the model card state comes out again.

    Args:
        path: the folder.
        evaluate: re-derive the ELBO and its changes, which needs the data.

    Raises:
        UserError: it is neither a run nor a bundle, or the data for the ELBO are not there.
    """
    path = Path(path)
    run = Run.open(path) if (path / "config.json").is_file() else None
    folder = runtime.find_bundle(path)
    if folder is None and run is None:
        raise UserError(f"Expected a run or a bundle. {str(path)!r} has neither config.json nor {runtime.CARD}.")
    card = None if folder is None else runtime.read_card(folder)
    if folder is not None and card is not None:
        yield from _files(folder, card["files"])
        yield from _listed(folder, card)
        if run is not None and runtime.MODEL not in card["run"]:
            yield Check("run", False, f"{runtime.CARD} does not say of which {runtime.MODEL} it is")
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
        yield from _elbo(run, card, vae, data)
    if folder is not None and card is not None:
        yield from _variants(folder, card, vae, test)


def _files(folder: Path, stated: dict[str, Any]) -> Iterator[Check]:
    """SHA-256 of the files that a card lists."""
    for name, facts in stated.items():
        try:
            runtime.check_file(folder, name, facts)
        except UserError as error:
            yield Check(name, False, str(error))
        else:
            yield Check(name, True, f"SHA-256 {facts['sha256'][:12]}...")


def _listed(folder: Path, card: dict[str, Any]) -> Iterator[Check]:
    """Every file of a bundle is one that its card lists, and every variant has its file."""
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    for name in sorted(present - card["files"].keys() - {runtime.CARD}):
        yield Check(name, False, f"{runtime.CARD} does not list it")
    if not card["variants"]:
        yield Check("variants", False, f"{runtime.CARD} states none")
    for name in card["variants"]:
        file = runtime.VARIANTS.get(name, f"{name}/saved_model.pb")
        if file not in card["files"]:
            yield Check(name, False, f"{runtime.CARD} does not list {file}")


def _elbo(run: Run, card: dict[str, Any] | None, vae: Any, data: Any) -> Iterator[Check]:
    """The ELBO of evaluation.json and of the model card, measured again by its own protocol."""
    claims = {}
    if (run.folder / "evaluation.json").is_file():
        claims["evaluation.json"] = files.read_json(run.folder / "evaluation.json")
    if card is not None and card.get("metrics"):
        claims[runtime.CARD] = card["metrics"]
    if not claims:
        yield Check("test elbo", False, f"{run.folder} has no evaluation.json; make one: kvae evaluate {run.folder}")
    own, measured = training.protocol(data)["dataset"], {}
    for source, stated in claims.items():
        try:
            protocol = stated["protocol"]
            own_noise = protocol.get("noise") == evaluation.NOISE
            use = Stream.TEST_ELBO if own_noise else Stream.TEST_ELBO_BEFORE_0_2
            of, how = protocol["dataset"], {"draws": protocol["elbo_draws"], "seed": protocol["seed"], "use": use}
            values = {name: float(stated[name]) for name in TERMS}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            yield Check(f"{source}: elbo", False, f"it is not an evaluation of kvae ({error!r})")
            continue
        if of != own:
            again = f"of {of}, not of the run's own {own}; evaluate again: kvae evaluate {run.folder}"
            yield Check(f"{source}: elbo", False, again)
            continue
        key = tuple(how.values())
        if key not in measured:
            measured[key] = evaluation.elbo(vae, data.test, **how)
        for name, value in values.items():
            found = getattr(measured[key], name).mean
            said = f"{found:.3f} nats, stated {value:.3f} (tolerance {ELBO_TOLERANCE})"
            yield Check(f"{source}: {name}", abs(found - value) <= ELBO_TOLERANCE, said)


def _variants(folder: Path, card: dict[str, Any], vae: Any, test: Any) -> Iterator[Check]:
    """Every variant loads, and is as near to the model as its tolerance and the card say."""
    decoders, shape = {}, (card["model"].get("latent_dim"), card["model"].get("image_shape"))
    if vae is not None and shape != (vae.latent_dim, list(vae.image_shape)):
        yield Check("model", False, f"the card is of another model: latent size and image shape {shape}")
        return
    for name in card["variants"]:
        try:
            decoder = bundles.decoder_at(folder / runtime.VARIANTS.get(name, name))
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
    nearest = [name for name in parity.TOLERANCES if name in decoders] or list(decoders)
    reference = decoders[nearest[0]] if vae is None else parity.KerasDecoder(vae)
    try:
        conditions = _conditions(card)
        yield _reference_z(card, reference, conditions, exact=_is_exact(card, vae))
    except (KeyError, TypeError, ValueError, OverflowError, UserError) as error:
        yield Check("reference z", False, f"the card does not state them ({error!r})")
        return
    changes = parity.elbo_changes(vae, decoders, test) if vae is not None and test is not None else {}
    for name, decoder in decoders.items():
        report = {**parity.errors(reference, decoder, conditions), "bytes": _size(folder, name)}
        if name in changes:
            report["elbo_change"] = changes[name]
        try:
            yield _parity(name, report, card["variants"][name], card["tolerances"][name], vae is not None)
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


def _size(folder: Path, name: str) -> int:
    return parity.size(folder / runtime.VARIANTS.get(name, name))


def _parity(
    name: str, report: dict[str, Any], stated: dict[str, Any], limits: dict[str, Any], against_keras: bool
) -> Check:
    """What was measured of a variant, against its tolerance and what the card states."""
    wrong = parity.failures(name, report, limits)
    greatest, before = report["means_error_greatest"], float(stated["means_error_greatest"])
    if report["bytes"] != stated["bytes"]:
        wrong.append(f"it has {report['bytes']:,} bytes, stated {stated['bytes']:,}")
    if against_keras and greatest > SLACK * before + ROUNDING:
        wrong.append(f"the stated error is too good: more than {SLACK:g} times it was found")
    said = (
        f"means off by at most {greatest:.2g}, stated {before:.2g} (tolerance {limits['means']:g}); "
        f"{report['pixels_differing']} of {report['pixels']:,} pixels differ, stated {stated['pixels_differing']}"
    )
    if "elbo_change" in report and "elbo_change" in stated:
        said += f"; ELBO {report['elbo_change']:+.4f} nats, stated {stated['elbo_change']:+.4f}"
        said += f" (tolerance {limits['elbo']:g})"
    usual = parity.TOLERANCES[bundles.kind_of(name)]["means"]
    if limits["means"] > usual:
        said += f"; that tolerance is wider than the usual {usual:g}"
    return Check(f"{name} parity", not wrong, "; ".join([said, *wrong]))
