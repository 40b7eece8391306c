"""README.md of a bundle: its model card for people, with the block of metadata that model hubs read."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from kvae.export import licences, snippets
from kvae.export.claims import is_number
from kvae.internal import quantities
from kvae.internal.markdown import escaped
from kvae.internal.visible import visible
from kvae.runtime import cards
from kvae.training import wording

FILE = "README.md"
TASK, OF_A_CLASS = "unconditional-image-generation", "conditional-image-generation"
CLASSES = 20  # whose names are listed, at most; model_card.json has all
TAGS = {  # of model hubs, by the format of a variant
    "tflite": ("tflite", "litert"),
    "savedmodel": ("tensorflow", "saved-model"),
    "onnx": ("onnx",),
    "web": ("javascript",),
}
# Names of licences that model hubs know. Another one is `other`, with its own name beside it.
LICENCES = (
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0",
    "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "unlicense",
)  # fmt: skip


def render(card: Mapping[str, Any], z: Iterable[float]) -> str:
    """The content of README.md.

    Args:
        card: the model card.
        z: the z of its first seed, and of `snippets.example_condition` if the model takes a condition.
    """
    name = _line(card["name"] or "") or "A decoder of kvae"
    parts = [
        f"---\n{''.join(_yaml(_metadata(card)))}---",
        f"# {escaped(name)}",
        *_introduction(card),
        "## Which file for what",
        *_files(card),
        "## Inputs and outputs",
        *_interface(card),
        *_code(card, z),
        "## What is guaranteed",
        card["guarantee"],
        *_numbers(card),
        "## Licence",
        *_licence(card),
    ]
    return "\n\n".join(parts) + "\n"


def _introduction(card: Mapping[str, Any]) -> Iterable[str]:
    model, stated = card["model"], card["preview"]
    if card["description"]:
        yield f"*{escaped(_line(card['description']))}*"
    if stated is not None:
        count = stated["images"]
        yield f"![Means of {count} images, drawn with seed {stated['seed']}]({stated['file']})"
        if model["condition_shape"] is None:
            yield (
                f"These are the means of {count} images. With the folder DIR of this file, "
                f"`kvae sample DIR -n {count} --seed {stated['seed']}` draws the same picture. kvae is installed from "
                "its repository; the package of this name in a registry is another one."
            )
    condition = "" if model["condition_shape"] is None else " and a condition"
    yield (
        f"This is the decoder of a variational autoencoder, which was trained with kvae. It turns a point of "
        f"{model['latent_dim']} numbers{condition} into an image of {_shape(model['image_shape'])} pixels. It also "
        "draws such points by itself, from a seed: one seed gives one image, on every runtime."
    )
    names = model.get(cards.CLASS_NAMES)
    if names:
        listed = ", ".join(f"{number} is {escaped(_line(name))}" for number, name in enumerate(names[:CLASSES]))
        rest = ", ..." if len(names) > CLASSES else "."
        yield (
            f"The condition is the class of the image, a vector with a 1 at its number, of {len(names)}: {listed}{rest}"
            " With the folder DIR of this file, `kvae sample DIR --label 0` draws images of one class, and "
            "`kvae sample DIR` of all in turn."
        )
    page = next((report["file"] for report in card["variants"].values() if report["format"] == "web"), None)
    if page is not None:
        yield f"To try it, open [{page}]({page}) in a browser. It needs no network."


def _files(card: Mapping[str, Any]) -> Iterable[str]:
    reports = card["variants"]
    measured = _has_elbo(card)
    headings = ["file", "for", "size", "least runtime", "largest error of a mean", "differing pixels"]
    headings += [*(["change of test ELBO, nats"] if measured else []), "ms for 1 image"]
    rows = []
    for report in reports.values():
        runtimes = [f"{name} {version or ''}".strip() for name, version in report.get("least_runtime", {}).items()]
        is_page = report["format"] == "web"  # whose time is that of NumPy, and not of a browser
        rows.append(
            [
                _code_span(report["file"]),
                report.get("purpose", ""),
                quantities.size(report["bytes"]),
                _listed(runtimes, "or") if runtimes else "",
                f"{report['means_error_greatest']:.1e}",
                f"{report['pixels_differing']:,}",
                *([f"{report['elbo_change']:+.4f}" if "elbo_change" in report else ""] if measured else []),
                "" if is_page else f"{report['latency_us']['1 threads']['1'] / 1000:.2f}",
            ]
        )
    yield _table(headings, rows)
    yield "\n".join(f"- {note}" for note in _notes(card))
    if any(report["format"] == "tflite" for report in reports.values()):
        takes_condition = card["model"]["condition_shape"] is not None
        command = "" if takes_condition else ": `python DIR/sample.py -n 64 --seed 1`"
        yield (
            f"`sample.py` draws images with the `.tflite` files without kvae, and needs only numpy and "
            f"ai-edge-litert{command}."
        )
    yield (
        "`model_card.json` states all of this for programs, with the signatures and the SHA-256 of every file. "
        "`kvae verify DIR` measures it again."
    )


def _has_elbo(card: Mapping[str, Any]) -> bool:
    """Whether the change of the test ELBO was measured."""
    return any("elbo_change" in report for report in card["variants"].values())


def _notes(card: Mapping[str, Any]) -> Iterable[str]:
    """What the columns of the table of files mean."""
    reports, parity = card["variants"], wording.of_comparison(card["protocol"]["parity"], _has_elbo(card))
    yield f"A mean is that of a pixel, from 0 to 1. Errors: {escaped(parity)}."
    yield f"Differing pixels: of {next(iter(reports.values()))['pixels']:,} that were drawn with the same seeds."
    if any(report["format"] != "web" for report in reports.values()):
        yield f"Times: of one decode with 1 thread, on {escaped(card['protocol']['costs'].partition(';')[0])}."
    known = {_listed(report["least_runtime"], "and"): report["least_runtime_is"] for report in _described(reports)}
    for runtimes, how in known.items():
        yield f"Least version of {runtimes}: {how}."


def _described(reports: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The variants of which the card says who can use them. A format of a user may say nothing."""
    return [report for report in reports.values() if "least_runtime" in report]


def _listed(names: Iterable[str], word: str) -> str:
    *first, last = names
    return f"{', '.join(first)} {word} {last}" if first else last


def _interface(card: Mapping[str, Any]) -> Iterable[str]:
    signatures = card["interface"]
    rows = [
        [
            f"`{name}`",
            side.removesuffix("s"),
            f"`{each['name']}`",
            f"{each['dtype']} [{', '.join(map(str, each['shape']))}]",
            ", ".join(each["axes"]) + (f"; {each['channels']}" if each.get("channels") else ""),
            "any" if each["range"] is None else " to ".join(map(str, each["range"])),
            escaped(each["meaning"]),
        ]
        for name, sides in signatures.items()
        if name in ("decode", "sample")
        for side, several in sides.items()
        for each in several
    ]
    if not rows:
        yield "The files of this bundle are for people: they have no signatures for programs."
        return
    yield _table(["signature", "", "name", "type and shape", "axes", "range", "meaning"], rows)
    fixed = [name for name in signatures if name not in ("decode", "sample")]
    yield (
        "n is any number of images. y counts rows from the top, x columns from the left. To show a mean, multiply it "
        "by 255. `images` are draws of each pixel by itself, and so look noisy: an app usually shows the means."
    )
    if fixed:
        sizes = dict.fromkeys(name.partition("_")[2] for name in fixed)
        listed = ", ".join(f"`{name}`" for name in fixed)
        yield f"In `.tflite` files, {listed} are the same with n = {' or '.join(sizes)}, for runtimes of fixed shapes."
    for report in card["variants"].values():
        names = [f"`{name}`" for several in report.get("names", {}).values() for name in several.values()]
        if names:
            yield (
                f"In {_code_span(report['file'])} both are parts of one graph, so the names are {', '.join(names)}. "
                "All inputs must be given; a function whose inputs have 0 rows is not computed."
            )


def _code(card: Mapping[str, Any], z: Iterable[float]) -> Iterable[str]:
    model = card["model"]
    if not card["interface"]:
        return
    facts = snippets.Facts(
        files={name: report["file"] for name, report in card["variants"].items()},
        latent_dim=model["latent_dim"],
        image_shape=tuple(model["image_shape"]),
        decoded=card["interface"]["decode"]["outputs"][1]["name"],
        condition_shape=None if model["condition_shape"] is None else tuple(model["condition_shape"]),
        seed=card["reference"]["seeds"][0],
        z_of_seed=list(z),
    )
    several = snippets.render(facts)
    if several:
        yield "## Drawing an image"
        yield (
            "Each of these programs draws the image of one seed, checks its z, and decodes another point. Run it in a "
            "copy of this folder: `kvae verify DIR` would report the files that it writes, as none of the bundle."
        )
    for snippet in several:
        yield f"### {snippet.title}\n\n{snippet.checked}\n\n```{snippet.language}\n{snippet.code.strip()}\n```"


def _numbers(card: Mapping[str, Any]) -> Iterable[str]:
    metrics = card["metrics"] or {}
    lines = [
        f"- {wording.RESULTS[name]}: {metrics[name]:.2f}{_error(metrics, name)} nats per image"
        for name in ("elbo", "reconstruction", "kl")
        if is_number(metrics.get(name))
    ]
    if not lines:
        return
    yield "## How good the model is"
    yield "\n".join(lines)
    yield wording.HOW_THE_ELBO_IS_MADE
    protocol = _protocol(metrics)
    if protocol:
        yield "\n".join(f"- {escaped(words)}: {escaped(_line(value))}" for words, value in protocol.items())


def _error(metrics: Mapping[str, Any], name: str) -> str:
    error = metrics.get(f"{name}_standard_error")
    return f" (standard error {error:.2f})" if is_number(error) else ""


def _protocol(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The protocol of the ELBO and its terms in words, without what belongs to further evaluations of the run."""
    protocol = metrics.get("protocol")
    if not isinstance(protocol, Mapping):
        return {}
    of_others = {*wording.OF_FURTHER_EVALUATIONS, "evaluations", "importance_samples"}
    return wording.of_protocol({key: value for key, value in protocol.items() if key not in of_others})


def _licence(card: Mapping[str, Any]) -> Iterable[str]:
    stated = card["licence"]
    data = stated["data"]
    name = "" if data["dataset"] is None else f", {escaped(_line(data['dataset']))}"
    of_data = "not stated" if data["licence"] is None else escaped(_line(data["licence"]))
    source = f" ({escaped(data['source'])})" if data["source"] else ""
    code = stated["code"]
    if all(report["format"] == "web" for report in card["variants"].values()):
        code = f"{code.partition(' for ')[0]} for the code in the web page, which is a part of kvae"
    lines = [
        f"- the model: {'not stated; ask who made it' if stated['model'] is None else escaped(_line(stated['model']))}",
        f"- the data on which it was trained{name}: {of_data}{source}",
        f"- the code: {code}",
    ]
    yield "\n".join(lines)
    made = ", ".join(f"{package} {version}" for package, version in card["versions"].items() if version)
    yield f"Made with {escaped(made)}."


def _metadata(card: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a model hub, as https://huggingface.co/docs/hub/model-cards describes them."""
    model, metrics = card["model"], card["metrics"] or {}
    formats = dict.fromkeys(report["format"] for report in card["variants"].values())
    data = card["licence"]["data"]["dataset"]
    known = licences.DATASETS.get(data)
    conditional = model["condition_shape"] is not None
    tags = [
        "kvae",
        "variational-autoencoder",
        "image-generation",
        *(tag for each in formats for tag in TAGS.get(each, ())),
    ]
    metadata = {
        **_licence_of_hub(card["licence"]["model"]),
        "library_name": "kvae",
        **({} if conditional else {"pipeline_tag": TASK}),
        "tags": tags,
        **({} if known is None else {"datasets": [known.hub]}),
    }
    if not is_number(metrics.get("elbo")):
        return metadata
    dataset = {"name": data or "not stated", "type": data or "not stated" if known is None else known.hub}
    value = {
        "type": "elbo",
        "name": "ELBO, nats per image, higher is better",
        "value": round(metrics["elbo"], 4),
        "args": _protocol(metrics),
    }
    result = {"task": {"type": OF_A_CLASS if conditional else TASK}, "dataset": dataset, "metrics": [value]}
    return metadata | {"metrics": ["elbo"], "model-index": [{"name": card["name"] or "kvae", "results": [result]}]}


def _licence_of_hub(licence: str | None) -> dict[str, str]:
    if licence is None:
        return {"license": "unknown"}
    known = licence.strip().lower()
    return {"license": known} if known in LICENCES else {"license": "other", "license_name": licence}


def _yaml(tree: Mapping[str, Any], indent: str = "") -> Iterable[str]:
    """The lines of a dictionary in YAML. Its texts are in quotes, as in JSON, whose escapes YAML has as well."""
    for key, value in tree.items():
        if isinstance(value, list) and isinstance(value[0], dict):
            yield f"{indent}{key}:\n"
            for each in value:
                first, *rest = _yaml(each, f"{indent}  ")
                yield f"{indent}- {first.lstrip()}"
                yield from rest
        elif isinstance(value, dict) and key != "args":
            yield f"{indent}{key}:\n"
            yield from _yaml(value, f"{indent}  ")
        else:  # the keys of "args" may be anything
            yield f"{indent}{key}: {json.dumps(_visible(value), ensure_ascii=False)}\n"


def _visible(value: Any) -> Any:
    """A value of JSON in which each text is one line of characters that can be seen."""
    if isinstance(value, Mapping):
        return {_line(key): _visible(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_visible(each) for each in value]
    return _line(value) if isinstance(value, str) else value


def _line(text: Any) -> str:
    """A text as one line of characters that can be seen."""
    return visible(" ".join(str(text).split()))


def _shape(image_shape: Iterable[int]) -> str:
    sides = list(image_shape)
    if len(sides) == 3 and sides[2] in (1, 3):
        return f"{sides[0]} x {sides[1]} {'grey' if sides[2] == 1 else 'RGB'}"
    return " x ".join(map(str, sides))


def _table(headings: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [headings, ["---"] * len(headings), *rows])


def _code_span(text: str) -> str:
    """A name of a file as code, in a table as well."""
    return f"`{visible(text)}`" if "`" not in text and "|" not in text else escaped(text)
