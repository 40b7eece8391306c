"""What a model card and an evaluation should state, computed again from the model, the data and the decoders."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from kvae import __version__, runtime
from kvae.evaluation import evaluations
from kvae.evaluation.estimate import Estimate
from kvae.export import formats, interface, licences, parity, preview, statements
from kvae.export.claims import Near, Similar, Unknown, Usually, leaves
from kvae.noise import portable
from kvae.noise.streams import Stream
from kvae.runtime import cards
from kvae.training import runs

TOLERANCE = 0.02  # nats: the difference that rounding on another machine can make
TOLERANCE_OF_CHANGE = 1e-3  # nats: the same for the difference of two values of the same image
# On another machine, an error may be this factor times the stated error, more or less, plus rounding in float32.
SLACK = 1.5
ROUNDING = 1e-5
ROUNDING_OF_MEAN = 1e-6  # of the mean of all errors
FEW = 10  # pixels: so many may differ by rounding alone
SENTENCES = ("meaning", "purpose", "least_runtime_is")  # of a signature or a variant
CHOSEN = "the person who exports a model can choose it"


class Text:
    """Words that this version of kvae writes, of which another version may have had others."""

    def __init__(self, value: Any, version: Any) -> None:
        self.value, self.version = value, version

    def judge(self, stated: Any) -> tuple[bool | None, str]:
        if self.version != __version__ and stated != self.value:
            return None, f"kvae {self.version} wrote it in other words"
        return stated == self.value, f"this version of kvae writes {str(self.value)[:60]!r}"


class Ending:
    """A text of which only the end is known."""

    def __init__(self, end: str) -> None:
        self.end = end

    def judge(self, stated: Any) -> tuple[bool | None, str]:
        known = isinstance(stated, str) and stated.endswith(self.end)
        return None if known else False, f"expected a text that ends with {self.end[-60:]!r}"


class Version:
    """The version of a package, of which only the form is known."""

    def judge(self, stated: Any) -> tuple[bool | None, str]:
        valid = isinstance(stated, str) and re.fullmatch(r"\d+(\.\w+)+([+-]\S+)?", stated)
        return None if valid else False, "expected the number of a version"


def evaluation(
    stated: Mapping[str, Any],
    vae: Any,
    data_protocol: Mapping[str, Any],
    results: Mapping[str, Any],
    examples: int | None,
) -> Any:
    """What an evaluation should state, as a tree for `claims.compare`.

    Args:
        stated: the content of evaluation.json, or the metrics of a model card.
        vae: the model.
        data_protocol: the protocol of the data.
        results: the results that were computed again, by name.
        examples: the number of images, or None if that of all evaluations together is not known.
    """
    tree: dict[str, Any] = {}
    for name, value in results.items():
        if isinstance(value, Estimate):
            tree |= {name: Near(value.mean, TOLERANCE), f"{name}_standard_error": _error(value)}
        elif isinstance(value, list):
            tree[name] = [Near(each.mean, TOLERANCE) for each in value]
            tree[f"{name}_standard_error"] = [_error(each) for each in value]
        else:
            tree[name] = Near(value, 1e-4 + 0.01 * abs(value)) if isinstance(value, float) else value
    tree["latent_dim"] = vae.latent_dim
    texts = {name: value for name, value in results.items() if isinstance(value, str)}
    protocol = {**data_protocol, **texts, **evaluations._protocol(vae, data_protocol, examples)}
    if stated["protocol"].get("kl") == vae.kl:  # before 0.3 what the model asks for, also if there is no closed form
        protocol["kl"] = vae.kl
    if examples is None:
        del protocol["examples"]
    tree["protocol"] = {name: protocol[name] for name in stated["protocol"] if name in protocol}
    return {name: value for name, value in tree.items() if name in stated}


def _error(estimate: Estimate) -> Any:
    error = estimate.standard_error
    return None if error is None else Near(error, 1e-4 + 0.01 * error)


def card(
    stated: Mapping[str, Any],
    *,
    vae: Any,
    decoder: Any,
    decoded: tuple[str, tuple[int, ...]],
    dataset: str | None,
    exact: bool,
    reports: Mapping[str, Mapping[str, Any]],
    compared: parity.Counts,
    conditions: np.ndarray | None,
    usual_conditions: np.ndarray | None,
) -> dict[str, Any]:
    """What a model card should state, apart from its metrics, files and run, as a tree for `claims.compare`.

    Args:
        stated: the content of the card, which says which version of kvae wrote it and what was measured.
        vae: the model, or None for a bundle without its run.
        decoder: the decoder with which the others are compared.
        decoded: the name and the shape for one image of the second output of `decode`.
        dataset: the name of the data of the run, or None if it is not known.
        exact: whether z are the portable random numbers themselves.
        reports: for each variant, `bytes`, what `formats.describe` says of it, and the results of `parity.errors`, with
            `elbo_change` if it was measured.
        compared: how much they compared.
        conditions: the examples of the condition in the card, or None.
        usual_conditions: those that an export takes by default, or None if they are not known.
    """
    versions = stated.get("versions")
    version = versions.get("kvae") if isinstance(versions, dict) else None
    signatures = statements.signatures(decoded[0], decoder.condition_shape)
    shape = decoder.condition_shape
    costs = Ending(statements.COSTS) if version == __version__ else Unknown(f"kvae {version} wrote it in other words")
    facts = {
        "latent_dim": decoder.latent_dim,
        "image_shape": list(decoder.image_shape),
        "condition_shape": None if shape is None else list(shape),
    }
    tree: dict[str, Any] = {
        "format": cards.VERSION,
        "name": Unknown(CHOSEN),
        "description": Unknown(CHOSEN),
        "model": facts if vae is None else statements.model(vae),
        "signatures": {name: Text(text, version) for name, text in signatures.items()},
        "guarantee": Text(statements.guarantee(exact), version),
        "reference": _reference(decoder, exact, conditions, usual_conditions),
        "protocol": {"parity": Text(statements.parity_protocol(compared), version), "costs": costs},
        "versions": {name: Version() for name in ("kvae", *runs.PACKAGES)},
        "variants": {
            name: _variant(name, report, stated["variants"][name], exact, against_keras=vae is not None)
            for name, report in reports.items()
        },
        "tolerances": {
            name: limits for name in reports if (limits := _tolerance(name, exact, decoder.image_shape, version))
        },
    }
    if "interface" in stated:  # cards of kvae 0.3.0 before it had README.md do not have these
        tree |= {
            "interface": _in_words(_interface(stated, decoder, decoded), version),
            "licence": _licence(stated.get("licence"), dataset, version),
            "preview": preview.entry(stated["variants"], decoder.image_shape),
        }
        for name, report in reports.items():
            tree["variants"][name] |= _in_words(report["described"], version)
    return tree if version == __version__ else _only(tree, {path for path, _ in leaves(dict(stated))})


def _interface(stated: Mapping[str, Any], decoder: Any, decoded: tuple[str, tuple[int, ...]]) -> dict[str, Any]:
    """The inputs and outputs, of a model with the likelihood that the card states."""
    name, shape = decoded
    return interface.interface(
        interface.names_of(stated["variants"]),
        latent_dim=decoder.latent_dim,
        image_shape=decoder.image_shape,
        condition_shape=decoder.condition_shape,
        decoded=name,
        decoded_shape=shape,
        likelihood=stated["model"].get("likelihood"),
    )


def _licence(stated: Any, dataset: str | None, version: Any) -> dict[str, Any]:
    """What a card states of licences; those of data in the table of kvae are usually as there."""
    data = stated.get("data") if isinstance(stated, dict) else None
    named = data.get("dataset") if isinstance(data, dict) and dataset is None else dataset
    usual = licences.entry(named if isinstance(named, str) else None, None, None)
    tree = {"model": Unknown(CHOSEN), "code": Text(usual["code"], version)}
    of_data = {
        name: Unknown(CHOSEN) if value is None else Usually(value, CHOSEN) for name, value in usual["data"].items()
    }
    return {**tree, "data": {**of_data, "dataset": Unknown(CHOSEN) if dataset is None else dataset}}


def _in_words(tree: Any, version: Any) -> Any:
    """A tree whose sentences may be those of another version of kvae."""
    if isinstance(tree, dict):
        return {
            name: Text(value, version) if name in SENTENCES and isinstance(value, str) else _in_words(value, version)
            for name, value in tree.items()
        }
    return [_in_words(value, version) for value in tree] if isinstance(tree, list) else tree


def _only(tree: Any, present: set, path: tuple = ()) -> Any:
    """A tree without the values that a card of another version does not have."""
    if isinstance(tree, dict):
        return {
            name: _only(value, present, (*path, name))
            for name, value in tree.items()
            if any(known[: len(path) + 1] == (*path, name) for known in present)
        }
    return tree


def _reference(decoder: Any, exact: bool, conditions: np.ndarray | None, usual: np.ndarray | None) -> dict[str, Any]:
    seeds = portable.seeds(statements.REFERENCE, 0)
    if exact:
        z: Any = portable.normals(seeds, Stream.LATENT, decoder.latent_dim).tolist()
    else:
        condition = statements.cycled(conditions, 0, len(seeds))
        drawn = decoder.sample(seeds, condition).z
        z = [[Near(value, parity.Z_TOLERANCE) for value in row] for row in drawn.tolist()]
    tree = {"seeds": seeds.tolist(), "z": z}
    if conditions is not None:
        why = "the person who exports a model can choose the examples of the condition"
        expected = conditions if usual is None else usual
        if usual is None or expected.shape != conditions.shape:
            judges: Any = [Unknown(why)] * conditions.size
        else:
            judges = [Usually(value, why) for value in expected.ravel().tolist()]
        tree["conditions"] = _nested(judges, conditions.shape)
    return tree


def _nested(values: list, shape: tuple[int, ...]) -> list:
    """A list of values as nested lists of a shape."""
    if len(shape) == 1:
        return values
    step = len(values) // shape[0]
    return [_nested(values[index * step : (index + 1) * step], shape[1:]) for index in range(shape[0])]


def _variant(
    name: str, report: Mapping[str, Any], stated: Mapping[str, Any], exact: bool, *, against_keras: bool
) -> dict[str, Any]:
    known = next(
        ((reader, each.variants[name]) for reader, each in runtime.FORMATS.items() if name in each.variants), None
    )
    chosen = Unknown("it is a format of the user's own")
    tree = {
        "file": chosen if known is None else known[1],
        "format": chosen if known is None else known[0],
        "bytes": report["bytes"],
        "pixels": report["pixels"],
        "load_seconds": Unknown("it depends on the machine"),
        "peak_memory_mb": Unknown("it depends on the machine"),
    }
    if not against_keras:
        return tree
    few = max(FEW, ROUNDING * report["pixels"])
    by_rounding = report["pixels_differing"] <= few
    greatest = report["pixels_difference_greatest"]
    tree |= {
        "means_error_greatest": Similar(report["means_error_greatest"], SLACK, ROUNDING),
        "means_error_mean": Similar(report["means_error_mean"], SLACK, ROUNDING_OF_MEAN),
        "pixels_differing": Similar(report["pixels_differing"], SLACK, few),
        "pixels_difference_greatest": Usually(greatest, "it is of a few pixels, which differ by rounding")
        if by_rounding
        else Similar(greatest, SLACK, 1),
    }
    if exact:
        tree["z_identical"] = report["z_identical"]
    else:  # rounding may make them the same on one machine and not on another
        tree["z_identical"] = "z_error_greatest" not in stated
    if "z_error_greatest" in stated:
        tree["z_error_greatest"] = Similar(report.get("z_error_greatest", 0.0), SLACK, parity.Z_TOLERANCE)
    if "elbo_change" in stated and "elbo_change" in report:
        change = report["elbo_change"]
        tree["elbo_change"] = Near(change, TOLERANCE_OF_CHANGE + (SLACK - 1) * abs(change))
    return tree


def _tolerance(name: str, exact: bool, image_shape: tuple[int, ...], version: Any) -> dict[str, Any]:
    default = formats.tolerance_of(name)
    if default is None:
        return {}
    limits = parity.tolerance_for(image_shape, default)
    tree: dict[str, Any] = {**({} if exact else {"z": parity.Z_TOLERANCE}), **limits}
    if version != __version__:
        tree["elbo"] = Usually(limits["elbo"], f"kvae {version} may not have made it larger for larger images")
    return tree | {"means": Usually(float(default["means"]), CHOSEN)}
