"""The measurement of one setting: each contender warms up, and then trains epochs in rounds, one process at a time."""

import random
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contenders.processes import Contender, ContenderError, Worker
from contenders.protocol import Settings


@dataclass(frozen=True)
class Plan:
    """The amount of measurement.

    Attributes:
        rounds: the smallest number of timed epochs.
        threshold: the test ELBO that is to be reached, in nats, or None for no evaluation.
        epochs: the largest number of epochs, as long as a contender has not reached the threshold.
        timeout: the longest time for an answer, in seconds.
    """

    rounds: int
    threshold: float | None = None
    epochs: int = 0
    timeout: float = 900.0


def measure(contenders: Iterable[Contender], settings: Settings, plan: Plan, folder: Path) -> dict[str, Any]:
    """Measures contenders with one setting.

    If a contender crashes or does not answer, it is left out from then on, and its result is the reason. All processes
    have ended when the function returns.

    Args:
        contenders: the contenders.
        settings: the settings of their training.
        plan: the amount of measurement.
        folder: a folder in which they may write files.

    Returns:
        `results` by contender, and `order`, the order of the contenders in each round.
    """
    results: dict[str, dict[str, Any]] = {}
    workers: dict[str, Worker] = {}
    order: list[list[str]] = []
    chance = random.Random(settings.seed)

    @contextmanager
    def failing(name: str) -> Iterator[None]:
        try:
            yield
        except ContenderError as error:
            results[name] = {"status": "failed", "reason": str(error)}
            workers.pop(name).close()

    def evaluate(name: str) -> None:
        if plan.threshold is not None:
            results[name]["elbo"].append(workers[name].ask("elbo")["elbo"])

    def goes_on() -> bool:
        elbos = [results[name]["elbo"] for name in workers if plan.threshold is not None]
        below = any(elbo[-1] is not None and max(elbo) < plan.threshold for elbo in elbos)
        return bool(workers) and (len(order) < plan.rounds or (below and len(order) < plan.epochs))

    try:
        for contender in contenders:
            name = contender.name
            started, workers[name] = time.time(), Worker(contender, settings, folder, plan.timeout)
            with failing(name):
                answer = workers[name].hear()
                results[name] = {
                    "status": "measured",
                    "import_seconds": answer["imported"] - started,
                    "first_epoch_seconds": answer["seconds"],
                    "ready_seconds": time.time() - started,
                    "images": answer["images"],
                    "epoch_seconds": [],
                    "elbo": [],
                }
                evaluate(name)
        while goes_on():
            order.append(chance.sample(list(workers), len(workers)))
            for name in order[-1]:
                with failing(name):
                    results[name]["epoch_seconds"].append(workers[name].ask("epoch")["seconds"])
                    evaluate(name)
        for name in list(workers):
            with failing(name):
                results[name].update(workers[name].ask("stop"))
    finally:
        for worker in workers.values():
            worker.close()
    return {"results": results, "order": order}
