"""Ends a training that diverges.

`StopAtDivergence` notices it. Its error says what is not finite and since when, what is kept, and what to try, by the
causes for which there is evidence.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kvae.internal import finite
from kvae.internal.errors import UserError
from kvae.internal.next_command import kvae_command
from kvae.internal.tensorflow import keras, tf
from kvae.model import likelihoods
from kvae.model.loss_watch import first_bad_step
from kvae.training import checkpoints
from kvae.training.config import RunConfig

DOMINATES = 10.0  # a term that is this many times the rest of the loss is named as a possible cause
# If no finite loss is known, settings that are so large are named.
LARGE_PENALTY, LARGE_BETA = 1.0, 100.0
GREY_LEVEL = 1 / 255  # a learned standard deviation below the distance of two grey levels has collapsed


class Seen(NamedTuple):
    """What is known when a training has diverged."""

    step: int  # the first bad step, counted from 1 as `VAE.steps` counts
    terms: tuple[str, ...]  # the results of that step that were not finite; empty if only the weights are not
    before: Mapping[str, float]  # the last finite results, means over an epoch so far; empty if there are none
    losses: Sequence[float]  # the losses of the finished epochs
    variance: float | None  # the last finite value of a learned variance of the likelihood


class StopAtDivergence(keras.callbacks.Callback):
    """Ends a training with an error once its loss, a weight or the optimizer is not finite. It is the first callback.

    The loss is checked at the end of each group of steps, by what the graph has noticed; the weights and the state of
    the optimizer at the end of each epoch. So no other callback draws, keeps or saves a state that is not finite.

    Args:
        config: the configuration of the run.
        folder: the folder of the run.
        checkpoint_folder: the folder of its checkpoints.
        losses: the losses of the epochs before this training.

    Raises:
        UserError: when the training diverges, or if it starts from weights that are not finite.
    """

    def __init__(self, config: RunConfig, folder: Path, checkpoint_folder: Path, losses: Sequence[float] = ()) -> None:
        super().__init__()
        self._config = config
        self._folder = folder
        self._checkpoints = checkpoint_folder
        self._losses = list(losses)
        self._epoch = 0
        self._before: Any = {}
        self._log_variances: list[Any] = []

    def on_train_begin(self, logs: Any = None) -> None:
        names = self._not_finite()
        if names:
            raise UserError(
                f"Expected finite numbers to start the training from. Received NaN or infinity in "
                f"{finite.listed(names)}. Use finite initial weights in networks of your own. If kvae before 0.3 wrote "
                "the checkpoint of a training that had diverged, train that run again with --overwrite."
            )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        bad = first_bad_step(self.model, logs)
        if bad is not None:
            self._stop(f"at step {bad.step:,}", ", ".join(bad.terms), bad.step, bad.terms)
        self._before = logs
        if _variance_is_learned(self.model):
            # The last step of a group can have made it NaN, which shows only in the next step.
            value = tf.identity(self.model.likelihood.log_variance)
            self._log_variances = [*self._log_variances[-1:], value]

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        names = self._not_finite()
        if names:
            step = int(np.asarray(self.model.steps))
            self._stop("at its end", f"{finite.listed(names)}, although the loss was finite", step, ())
        self._losses.append(float((logs or {}).get("loss", math.nan)))

    def _not_finite(self) -> list[str]:
        """The paths of the weights and of the optimizer's variables that are not finite."""
        return finite.not_finite([*self.model.weights, *self.model.optimizer.variables])

    def _stop(self, when: str, what: str, step: int, terms: tuple[str, ...]) -> None:
        before = {name: float(np.mean(value)) for name, value in (self._before or {}).items()}
        variances = [value for each in self._log_variances if np.isfinite(value := np.exp(each))]
        seen = Seen(step, terms, before, self._losses, float(variances[-1]) if variances else None)
        raise UserError(
            f"The training diverged in epoch {self._epoch} {when}. NaN or infinite: {what}. {self._kept()} "
            f"What to try: {'; '.join(advice(self._config, seen))}."
        )

    def _kept(self) -> str:
        """What remains of the training, and how to go on from it."""
        latest = checkpoints.latest_checkpoint(self._checkpoints)
        if latest is None:
            return "There is no checkpoint yet, so train again with --overwrite."
        resume = kvae_command("train", "--resume", "--out", self._folder)
        return (
            f"The checkpoint of epoch {int(latest.name.rpartition('-')[2])} is kept. {resume} goes on from it, but "
            "diverges at the same step again, because a run keeps its settings. Other settings need another --out."
        )


def advice(config: RunConfig, seen: Seen) -> list[str]:
    """What to try, by the causes for which there is evidence; a lower learning rate comes last.

    Args:
        config: the configuration of the run.
        seen: what is known.
    """
    found = [line for look in (_penalties, _beta, _variance, _precision) if (line := look(config, seen))]
    if seen.step > 1 or not seen.terms:
        return [*found, _rate(config, seen)]
    # No step had changed a weight, so the learning rate is not the cause.
    return found or [
        "another seed, for other initial weights, because the loss was not finite before the first step changed them"
    ]


def _penalties(config: RunConfig, seen: Seen) -> str | None:
    options = config.model.network.options
    strengths = {f"model.{name}": options.get(name, 0.0) for name in ("encoder_l2", "decoder_l2")}
    given = {name: value for name, value in strengths.items() if value > 0}
    terms = _terms_of_loss(config, seen)
    if terms is None:
        large = max(given.values(), default=0.0) >= LARGE_PENALTY
    else:
        large = terms.rest > DOMINATES * (abs(terms.reconstruction) + terms.kl)
    if not given or not (large or _is_loss_alone(seen)):
        return None
    return f"a lower {' and '.join(f'{name} ({value:g})' for name, value in given.items())}{_because(seen, 'penalty')}"


def _beta(config: RunConfig, seen: Seen) -> str | None:
    beta, terms = _beta_of(config), _terms_of_loss(config, seen)
    large = beta >= LARGE_BETA if terms is None else beta > 1 and terms.kl > DOMINATES * abs(terms.reconstruction)
    return f"a lower model.beta ({beta:g}){_because(seen, 'KL term times beta')}" if large else None


def _variance(config: RunConfig, seen: Seen) -> str | None:
    if seen.variance is None or seen.variance > GREY_LEVEL**2:
        return None
    return f"a fixed model.variance such as 0.1, because the learned variance had fallen to {seen.variance:.1g}"


def _precision(config: RunConfig, seen: Seen) -> str | None:
    if config.training.precision != "mixed_float16":
        return None
    return "training.precision=mixed_bfloat16, because the numbers of mixed_float16 end at 65,504"


def _rate(config: RunConfig, seen: Seen) -> str:
    """The learning rate, which can be the cause of any divergence after the first step."""
    rate = config.training.learning_rate
    lowest = min(seen.losses, default=math.inf)
    last = seen.before.get("loss", math.nan)
    grown = f", because the loss had grown from {lowest:.4g} to {last:.4g}" if last > lowest else ""
    return f"a lower learning rate than {rate:g}, e.g. --learning-rate {rate / 10:g}{grown}"


def _is_loss_alone(seen: Seen) -> bool:
    """Whether the loss was not finite although its main terms were."""
    return "loss" in seen.terms and not {"reconstruction", "kl"} & set(seen.terms)


class _Terms(NamedTuple):
    """The terms of the last finite loss of an ELBO."""

    reconstruction: float
    kl: float  # times beta
    rest: float  # the penalties on weights


def _terms_of_loss(config: RunConfig, seen: Seen) -> _Terms | None:
    """The terms of the last finite loss, or None if they are not known."""
    if config.model.objective.kind != "elbo" or not {"loss", "reconstruction", "kl"} <= seen.before.keys():
        return None
    reconstruction, kl = seen.before["reconstruction"], _beta_of(config) * seen.before["kl"]
    return _Terms(reconstruction, kl, seen.before["loss"] - reconstruction - kl)


def _beta_of(config: RunConfig) -> float:
    beta = config.model.objective.options.get("beta", 1.0)
    return float(beta) if isinstance(beta, int | float) else 1.0


def _because(seen: Seen, term: str) -> str:
    """How a term of the loss shows that it is too large."""
    if _is_loss_alone(seen):
        return f", because the reconstruction and KL term were finite, but not the {term} that is added"
    if "loss" in seen.before:
        return f", because the {term} was most of the last finite loss, {seen.before['loss']:.4g}"
    return ""


def _variance_is_learned(vae: Any) -> bool:
    return isinstance(vae.likelihood, likelihoods.Gaussian) and vae.likelihood.variance == "learned"
