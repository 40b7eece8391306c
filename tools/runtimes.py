"""Draws the images of 10,000 seeds on every runtime, and prints how they differ and what each runtime costs.

    python tools/runtimes.py                             # mnist_2d: a table for docs/DEVICES.md
    python tools/runtimes.py --page docs/DEVICES.md      # and puts it into the page
    python tools/runtimes.py --run saved_models/mnist_10d --images 1000 --rounds 1

It takes about 3 minutes on 2 cores that do nothing else.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import importlib.util
import json
import textwrap
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import click
import page_decoders
import runtime_decoders

from kvae import cli
from kvae.cli.shared import quiet_tensorflow
from kvae.internal import files, user_files
from kvae.internal.errors import UserError
from kvae.runtime import footprint
from kvae.runtime.cards import MODEL
from kvae.runtime.decoder import Decoder

ROOT = Path(__file__).parent.parent
TITLE = "## Eight runtimes, one picture"
HEADINGS = (
    "runtime", "kB", "same z", "differing pixels per 10^7", "largest error of a mean", "start, s", "MB",
    "1 latent, µs", "64 latents, µs",
)  # fmt: skip
LATENTS = 4096  # z at which the means are compared, as in an export
# Pixels per 10^7 that may differ from those of the Keras model: with means that float32 rounds, in the order of one.
ROUNDING, FLOAT16, INT8 = 10.0, 1_000.0, 10_000.0


class Runtime(NamedTuple):
    """A row of the table."""

    name: str
    variant: str  # the exported variant, or `keras` for the model itself
    # Python opens the file by this format of runtime_decoders.py; otherwise its JavaScript runs in node or chromium.
    engine: str
    most: float  # pixels per 10^7 that may differ


RUNTIMES = (
    Runtime("Keras, eager", "keras", "EAGER", 0.0),
    Runtime("Keras, `tf.function`", "keras", "GRAPH", ROUNDING),
    Runtime("Keras, XLA", "keras", "XLA", ROUNDING),
    Runtime("SavedModel, TensorFlow", "saved_model", "SAVED_MODEL", ROUNDING),
    Runtime("LiteRT, float32", "float32", "LITERT", ROUNDING),
    Runtime("LiteRT, float16", "float16", "LITERT", FLOAT16),
    Runtime("LiteRT, int8", "int8", "LITERT", INT8),
    Runtime("page in Chromium, float32", "web_float32", "chromium", ROUNDING),
    Runtime("page in Chromium, int8", "web_int8", "chromium", INT8),
    Runtime("page in Node, float32", "web_float32", "node", ROUNDING),
    Runtime("page in Node, int8", "web_int8", "node", INT8),
    Runtime("page in NumPy, float32", "web_float32", "NUMPY", ROUNDING),
    Runtime("ONNX Runtime, float32", "onnx", "ONNX", ROUNDING),
)


def missing(runtime: Runtime) -> str | None:
    """What is not installed of what a runtime needs, or None."""
    if runtime.engine in ("node", "chromium"):
        return page_decoders.missing(runtime.engine)
    needed = ("onnx", "onnxruntime", "tf2onnx") if runtime.variant == "onnx" else ()
    return next((package for package in needed if importlib.util.find_spec(package) is None), None)


def export(run: Path, folder: Path, variants: Iterable[str]) -> dict[str, Path]:
    """Exports a run.

    Args:
        run: the folder of the run.
        folder: where the files are written.
        variants: the variants that are written; `keras` stands for the model of the run itself.

    Returns:
        For each variant its file or folder.
    """
    from kvae.export import formats
    from kvae.export.web import About
    from kvae.training.runs import Run

    opened, variants = Run.open(run), set(variants) - {"keras"}
    vae = opened.load_model()
    chosen = [name for name, each in formats.FORMATS.items() if variants & set(each.tolerances)]
    plans = formats.possible(vae, formats.plan(chosen, variants, None), by_default=False)
    formats.write(vae, folder, plans, None, About(opened.config.name, opened.config.description))
    return {"keras": run / MODEL, **{plan.variant: folder / plan.file for plan in plans}}


def compare(
    exported: Mapping[str, Path], runtimes: Iterable[Runtime], images: int, latents: int
) -> dict[str, dict[str, Any]]:
    """For each runtime, what `kvae.export.parity.errors` says of it and of the Keras model, which runs eagerly.

    Args:
        exported: the files, as `export` returned them.
        runtimes: the runtimes that are compared.
        images: the number of seeds.
        latents: the number of z at which the means are compared, at most `images`.
    """
    from kvae.export import parity

    with ExitStack() as stack:
        inside: dict[str, Callable[[Path], page_decoders.Evaluate]] = {"node": page_decoders.in_node}
        if any(runtime.engine == "chromium" for runtime in runtimes):
            inside["chromium"] = stack.enter_context(page_decoders.chromium()).inside

        def opened(runtime: Runtime) -> Decoder:
            path = exported[runtime.variant]
            if runtime.engine in inside:
                return page_decoders.PageDecoder(path, inside[runtime.engine](path))
            return getattr(runtime_decoders, runtime.engine).open(path)

        reference = runtime_decoders.EAGER.open(exported["keras"])
        decoders = {runtime.name: opened(runtime) for runtime in runtimes}
        return parity.errors(reference, decoders, parity.Counts(latents, images))


def costs(exported: Mapping[str, Path], runtimes: Iterable[Runtime], rounds: int) -> dict[str, dict[str, Any]]:
    """For each runtime, the least of what `kvae.runtime.footprint` measures in each round with one thread.

    In each round every runtime is measured once, in a process of its own, so that all of them have the same conditions.
    What else the machine does can only make a time longer, and so the least is the closest to that of the runtime.
    """
    from kvae.export import parity

    user_files.import_file(Path(runtime_decoders.__file__))
    runtimes, measured = list(runtimes), {}
    with ExitStack() as stack:
        measures = {"node": page_decoders.costs_in_node}
        if any(runtime.engine == "chromium" for runtime in runtimes):
            measures["chromium"] = stack.enter_context(page_decoders.chromium()).costs
        for _ in range(rounds):
            for runtime in runtimes:
                path = exported[runtime.variant]
                if runtime.engine in measures:
                    cost = measures[runtime.engine](path)
                else:
                    cost = footprint.footprint(path, [1], f"runtime_decoders:{runtime.engine}")
                measured.setdefault(runtime.name, []).append(cost)
    return {
        runtime.name: {"bytes": parity.size(exported[runtime.variant]), **_least(measured[runtime.name])}
        for runtime in runtimes
    }


def _least(costs: list[Any]) -> Any:
    """The least of each number in dictionaries of the same form; None where it was not measured."""
    if isinstance(costs[0], dict):
        return {key: _least([each[key] for each in costs]) for key in costs[0]}
    return None if None in costs else min(costs)


def table(report: Mapping[str, Mapping[str, Any]]) -> str:
    """The table in Markdown, of the errors and costs of each runtime."""
    lines = [HEADINGS, ["---"] * len(HEADINGS)]
    for name, of in report.items():
        per_ten_million = 1e7 * of["pixels_differing"] / of["pixels"]
        memory, latency = of["peak_memory_mb"], of["latency_us"]["1 threads"]
        lines.append([
            name,
            f"{of['bytes'] / 1000:,.0f}",
            "yes" if of["z_identical"] else "no",
            f"{per_ten_million:,.{0 if per_ten_million >= 10 or per_ten_million == 0 else 1}f}",
            f"{of['means_error_greatest']:.1e}" if of["means_error_greatest"] else "0",
            f"{of['load_seconds']:.2f}",
            "" if memory is None else f"{memory:.0f}",
            f"{latency['1']:,.0f}",
            f"{latency['64']:,.0f}",
        ])  # fmt: skip
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def protocol(run: Path, images: int, latents: int, rounds: int) -> str:
    """How the table was measured. Arguments as in `compare` and `costs`."""
    from kvae.export import parity

    return (
        f"`{run.name}`, {images:,} seeds of seed 0, compared with Keras in eager execution; means at {latents:,} z. "
        f"Costs: the best of {rounds} rounds, in each of which every runtime had its turn, in a process of its own "
        "with one thread. Latency: the median of one `decode`, called from Python; JavaScript decodes 64 latents one "
        "after the other, which takes 64 times as long. Start: from the start of the process, with Python, until one "
        "image is decoded; in Chromium, from the navigation in a running browser until the first image is on the "
        "screen. MB: the largest resident memory. "
        f"{parity.machine()}."
    )


def put(page: Path, text: str) -> None:
    """Puts the table and its protocol into its section of a page, in place of the former one."""
    content = page.read_text(encoding="utf-8")
    start = content.find(f"| {HEADINGS[0]} |", content.find(TITLE))
    if TITLE not in content or start < 0:
        raise UserError(f"Expected a page with the section {TITLE!r} and a table in it. Received {page}.")
    end = content.find("\n## ", start)
    rest = content[end:] if end >= 0 else ""
    with files.atomic_file(page) as partial:
        partial.write_text(f"{content[:start]}{text}\n{rest}", encoding="utf-8")


@click.command(help=__doc__)
@click.option(
    "--run",
    "run",
    default=ROOT / "saved_models" / "mnist_2d",
    type=click.Path(path_type=Path),
    help="By default mnist_2d.",
)
@click.option("--images", default=10_000, show_default=True, type=click.IntRange(1), help="Number of seeds.")
@click.option(
    "--rounds", default=5, show_default=True, type=click.IntRange(1), help="How often the costs are measured."
)
@click.option("--page", type=click.Path(path_type=Path), help="A Markdown page whose table is replaced.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the table.")
def main(run: Path, images: int, rounds: int, page: Path | None, as_json: bool) -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # of NumPy, in the processes whose costs are measured
    runtimes = []
    for runtime in RUNTIMES:
        absent = missing(runtime)
        if absent is None:
            runtimes.append(runtime)
        else:
            click.echo(f"{runtime.name} is left out: {absent} is not installed.", err=True)
    latents = min(images, LATENTS)
    quiet_tensorflow()
    with files.temporary_folder() as folder:
        exported = export(run, folder, {runtime.variant for runtime in runtimes})
        errors, spent = compare(exported, runtimes, images, latents), costs(exported, runtimes, rounds)
    report = {runtime.name: {**spent[runtime.name], **errors[runtime.name]} for runtime in runtimes}
    how = protocol(run, images, latents, rounds)
    text = f"{table(report)}\n\n{textwrap.fill(how, 120)}"
    click.echo(json.dumps({"runtimes": report, "protocol": how}) if as_json else text)
    if page is not None:
        put(page, text)


if __name__ == "__main__":
    cli.run(main, "runtimes.py")
