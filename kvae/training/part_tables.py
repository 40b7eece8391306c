"""The section [model] of a configuration: one table per part of the model, and short keys for some options."""

import math
from typing import Any

from pydantic_core import PydanticCustomError

KINDS = {  # the default kind of each part
    "network": "mlp",
    "likelihood": "bernoulli",
    "prior": "standard_normal",
    "posterior": "diagonal_gaussian",
    "objective": "elbo",
}
_OBJECTIVES = ("elbo", "iwae", "dreg", "miwae", "ciwae", "piwae", "free_bits", "capacity", "beta_tc", "info")
_OF_ONE_VARIANCE = ("gaussian", "laplace", "student_t")
# Keys of [model] that are short for an option of a part, each with the part and with the kinds of the part that have
# the option (None: all kinds).
SHORT: dict[str, tuple[str, tuple[str, ...] | None]] = {
    "hidden_units": ("network", ("mlp",)),
    "filters": ("network", ("conv", "residual")),
    "dense_units": ("network", ("conv", "residual")),
    "activation": ("network", None),
    "initialization": ("network", None),
    "scale": ("network", None),
    "output_bias": ("network", None),
    "encoder_l2": ("network", None),
    "decoder_l2": ("network", None),
    "variance": ("likelihood", _OF_ONE_VARIANCE),
    "beta": ("objective", ("elbo", "beta_tc")),
    "samples": ("objective", _OBJECTIVES),
    "kl": ("objective", ("elbo", "capacity", "beta_tc")),
}

# All options of the parts that kvae has, as in `SHORT`: what a shell completes without the classes of the parts, which
# import TensorFlow.
OPTIONS: dict[str, tuple[str, tuple[str, ...] | None]] = {
    **SHORT,
    "start": ("likelihood", _OF_ONE_VARIANCE),
    "rate": ("likelihood", _OF_ONE_VARIANCE),
    "degrees": ("likelihood", ("student_t",)),
    "least_variance": ("likelihood", ("gaussian_per_pixel",)),
    "levels": ("likelihood", ("discretized_logistic", "categorical")),
    "groups": ("objective", ("miwae", "piwae", "free_bits")),
    "weight": ("objective", ("ciwae", "info")),
    "nats": ("objective", ("free_bits",)),
    "gamma": ("objective", ("capacity",)),
    "capacity": ("objective", ("capacity",)),
    "alpha": ("objective", ("info",)),
    "data_size": ("objective", ("beta_tc",)),
    "components": ("prior", ("mixture", "vamp")),
    "layers": ("prior", ("flow",)),
    "layer_units": ("prior", ("flow", "hierarchical")),
    "upper_dim": ("prior", ("hierarchical",)),
    "steps": ("posterior", ("iaf",)),
    "step_units": ("posterior", ("iaf",)),
    "context": ("posterior", ("iaf",)),
    "blocks": ("network", ("residual",)),
    "norm_groups": ("network", ("residual",)),
}
# Options with the name of one in `OPTIONS` that another part of the model has too.
OF_ANOTHER_PART: dict[str, tuple[str, tuple[str, ...] | None]] = {
    "layer_units": ("posterior", ("bottom_up",)),
    "upper_dim": ("posterior", ("bottom_up",)),
}


def with_tables(model: dict[str, Any], of_version_0_2: bool = False) -> dict[str, Any]:
    """The section [model] with a table for each part, to which the short keys are moved.

    Args:
        model: the section [model] as a recipe contains it.
        of_version_0_2: whether it is from the config.json of a run of kvae 0.2, which contains all short keys: then
            those that the chosen kinds do not have are left out.

    Raises:
        ValueError: if an option is given both as a short key and in its table.
    """
    result = {name: value for name, value in model.items() if name not in SHORT}
    for name in KINDS:
        if isinstance(result.get(name), str):
            result[name] = {"kind": result[name]}
        elif isinstance(result.get(name), dict):
            result[name] = {"kind": KINDS[name], **result[name]}
    for name, value in model.items():
        if name not in SHORT or value is None:
            continue
        part, kinds = SHORT[name]
        table = result.get(part, {})
        kind = table.get("kind", KINDS[part]) if isinstance(table, dict) else None
        if not isinstance(table, dict) or (of_version_0_2 and kinds is not None and kind not in kinds):
            continue
        if name in table:
            raise ValueError(f"model.{name} is short for model.{part}.{name}; expected one of them, received both")
        result[part] = {"kind": kind, **table, name: value}
    return result


def plain(value: Any) -> Any:
    """The value in the types of JSON and TOML, with lists in place of tuples.

    Raises:
        ValueError: if JSON or TOML cannot contain the value, for example NaN or a whole number of more than 64 bits.
    """
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise PydanticCustomError("finite", "expected a finite number")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise PydanticCustomError("size", "expected a number of at most 64 bits")
    if value is None or isinstance(value, str | int | float):
        return value
    raise PydanticCustomError("plain", "expected a number, a string, or a list or table of these")
