"""What the evaluations of several runs state besides the ELBO and its terms: a row per result, a column per run."""

from collections.abc import Mapping, Sequence
from typing import Any

from kvae.training import run_list, wording

IN_THE_MAIN_TABLE = (
    "elbo",
    "reconstruction",
    "kl",
    "active_units",
    "latent_dim",
    "log_likelihood",
    "bits_per_dimension",
)
ERROR = "_standard_error"

Number = tuple[float, float | None]  # a result and its standard error, if it has one


def of_evaluation(evaluation: Mapping[str, Any]) -> dict[str, Number]:
    """The further results of one evaluation by name, such as `quadrature`, or `bounds[0]` for those of a list."""
    found: dict[str, Number] = {}
    for name, value in evaluation.items():
        if name in IN_THE_MAIN_TABLE or name.endswith((ERROR, "_per_dimension")):
            continue
        errors = evaluation.get(f"{name}{ERROR}")
        if isinstance(value, list):
            errors = errors if isinstance(errors, list) and len(errors) == len(value) else [None] * len(value)
            parts = {f"{name}[{place}]": pair for place, pair in enumerate(zip(value, errors, strict=True))}
        else:
            parts = {name: (value, errors)}
        for part, (mean, error) in parts.items():
            number = run_list.number(mean)
            if number is not None:
                found[part] = (number, run_list.number(error))
    return found


def table(names: Sequence[str], evaluations: Sequence[Mapping[str, Number]]) -> tuple[list[str], list[list[str]]]:
    """The headings and the rows of a table, each row a result; no rows if no run has a further result."""
    results = dict.fromkeys(name for each in evaluations for name in each)
    rows = [[name, *(_text(each.get(name)) for each in evaluations)] for name in results]
    return ["further result", *names], rows


def differing(protocols: Sequence[Mapping[str, Any]]) -> list[str]:
    """The options of further evaluations that differ between the runs that state them."""
    values = {
        key: [protocol[key] for protocol in protocols if key in protocol] for key in wording.OF_FURTHER_EVALUATIONS
    }
    return [key for key, each in values.items() if len(set(map(repr, each))) > 1]


def _text(number: Number | None) -> str:
    if number is None:
        return ""
    value, error = number
    return f"{value:.5g}" if error is None else f"{value:.5g} ± {error:.2g}"
