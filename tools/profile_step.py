"""Shows which operations a training step spends its time on: `python tools/profile_step.py --batch 100`.

The model is that of tools/benchmark.py, 784-500-2-500-784. TensorFlow's profiler measures every operation of
XLA's program during one epoch, and XLA's own listing of the program says what each of them computes. Do not add them
up: operations can run at the same time, and some products end on other threads, after what is measured here.
"""

import os
import re
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from kvae import cli

FIRST = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (\w+\[[\d,]*\])\S* ([\w-]+)\(", re.MULTILINE)
SOURCE = re.compile(r'op_name="([^"]*)"')


def operations(listing: str) -> dict[str, tuple[str, str, str]]:
    """The shape, the kind and the source of each operation in XLA's listing of a program, by its name."""
    found = {}
    for line in listing.splitlines():
        start = FIRST.match(line)
        if start:
            name, shape, kind = start.groups()
            source = SOURCE.search(line)
            found[name] = (shape, kind, source.group(1).replace("while/", "") if source else "")
    return found


def group_of(kind: str, source: str) -> str:
    """The part of a step to which an operation belongs."""
    if kind == "dot":
        return "matrix products"
    return "optimizer" if source.startswith("adam/") else "all else"


def measure(batch: int, dataset: str, folder: Path) -> tuple[float, dict[str, float]]:
    """Trains for an epoch under the profiler. Returns the milliseconds of a step, and of each operation by its name."""
    import keras
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    import kvae

    data = kvae.data.load(dataset, batch_size=batch)
    vae = kvae.VAE(2, hidden_units=(500,), activation="tanh", seed=0)
    vae.compile(keras.optimizers.Adam(1e-3), jit_compile=True)
    vae.fit(data.train, epochs=1, verbose=0)
    steps = int(data.train.cardinality())
    begun = time.perf_counter()
    vae.fit(data.train, epochs=1, verbose=0)
    step = (time.perf_counter() - begun) / steps * 1e3
    options = tf.profiler.experimental.ProfilerOptions(host_tracer_level=3, python_tracer_level=0)
    (folder / "plugins" / "profile").mkdir(parents=True)
    with tf.profiler.experimental.Profile(str(folder), options=options):
        vae.fit(data.train, epochs=1, verbose=0)
    (recorded,) = folder.rglob("*.xplane.pb")
    space = xplane_pb2.XSpace()
    space.ParseFromString(recorded.read_bytes())
    times: dict[str, float] = defaultdict(float)
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                times[plane.event_metadata[event.metadata_id].name] += event.duration_ps / 1e9 / steps
    return step, times


@click.command(help=__doc__)
@click.option("--batch", type=click.IntRange(min=1), default=100, show_default=True, help="Images per step.")
@click.option("--dataset", default="mnist", show_default=True, help="Data of 28 x 28 images, for kvae.data.load.")
@click.option("--least", type=click.FloatRange(min=0), default=0.02, show_default=True, help="Least ms of a row.")
def main(batch: int, dataset: str, least: float) -> None:
    """Prints a table of the operations, the longest first, and of their groups."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        flags = f"--xla_dump_to={folder / 'hlo'} --xla_dump_hlo_as_text --xla_dump_hlo_module_re=.*run_full_batches.*"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
        os.environ["KVAE_CACHE"] = ""  # A kept program is not listed.
        step, times = measure(batch, dataset, folder / "profile")
        (listing,) = (folder / "hlo").glob("*after_optimizations.txt")
        known = operations(listing.read_text())
    table = Table("ms per step", "operation", "result", title=f"A step of {batch} images: {step:.2f} ms")
    groups: dict[str, float] = defaultdict(float)
    for name, spent in sorted(times.items(), key=lambda item: -item[1]):
        if name in known:
            shape, kind, source = known[name]
            groups[group_of(kind, source)] += spent
            if spent >= least:
                table.add_row(f"{spent:.3f}", source or name, shape)
    table.add_section()
    for group, spent in groups.items():
        table.add_row(f"{spent:.3f}", group, "")
    Console().print(table)


if __name__ == "__main__":
    cli.run(main, "profile_step.py")
