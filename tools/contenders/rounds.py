"""One setting measured: every contender warmed up, then epochs in rounds, one process at work at a time."""

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
    """How much is measured.

    Attributes:
        rounds: epochs timed, at least.
        threshold: the test ELBO to be reached, in nats; None for no evaluation.
        epochs: at most, while one has not reached it.
        timeout: seconds an answer may take.
    """

    rounds: int
    threshold: float | None = None
    epochs: int = 0
    timeout: float = 900.0


def measure(contenders: Iterable[Contender], settings: Settings, plan: Plan, folder: Path) -> dict[str, Any]:
    """Raw results by contender, and the order in which they took their turns.

    One that crashes or hangs is left out from there on; the reason is its result. No process outlives the call.

    Args:
        contenders: that take part.
        settings: what they train.
        plan: how much.
        folder: where they may leave files.
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
        known = [results[name]["elbo"] for name in workers if plan.threshold is not None]
        reaching = any(elbo[-1] is not None and max(elbo) < plan.threshold for elbo in known)
        return bool(workers) and (len(order) < plan.rounds or (reaching and len(order) < plan.epochs))

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
