"""Keras callbacks that a training run needs: the epoch of the data, early stopping, printed losses and figures."""

import math
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kvae import evaluation
from kvae.data import Data
from kvae.internal import files
from kvae.internal.errors import KvaeWarning, UserError, check_whole, stacklevel_of_user
from kvae.internal.tensorflow import keras, tf
from kvae.model import fit_checks, sampling
from kvae.plotting import figures
from kvae.training import history
from kvae.training.wording import NOT_DRAWN


class DataEpoch(keras.callbacks.Callback):
    """Sets the data's epoch to that of Keras, so that `initial_epoch=n` trains with the order and draws of epoch n.

    Args:
        epoch: the attribute `epoch` of the data that `kvae.data.load` returned.
    """

    def __init__(self, epoch: tf.Variable) -> None:
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch.assign(epoch)


class EarlyStopping(keras.callbacks.EarlyStopping):
    """Early stopping of Keras on `val_elbo`. It keeps the best weights, and a resumed run continues with its state.

    Args:
        patience: the number of epochs without a better value after which training stops.
    """

    def __init__(self, patience: int) -> None:
        super().__init__(monitor="val_elbo", mode="max", patience=patience, restore_best_weights=True)
        self._restored: tuple[dict[str, Any], list[np.ndarray]] | None = None

    def state(self) -> dict[str, Any]:
        """The state as JSON, without the best weights, which are in `best_weights`."""
        return {"wait": self.wait, "best": float(self.best), "best_epoch": self.best_epoch}

    def restore(self, state: dict[str, Any], best_weights: list[np.ndarray]) -> None:
        """Sets a saved state, which is used as soon as training begins."""
        self._restored = (state, best_weights)

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        if self._restored is not None:
            state, self.best_weights = self._restored
            self.wait, self.best, self.best_epoch = state["wait"], state["best"], state["best_epoch"]


class AveragedWeights(keras.callbacks.Callback):
    """Gives a model the weights that its optimizer averages, while it is evaluated and at the end of each epoch.

    So the callbacks after this one measure, keep and draw the averaged weights, until that of `giving_back`. Training
    goes on with its own weights to the last bit, which the sums of `keras.callbacks.SwapEMAWeights` would change. At
    the end of `fit`, Keras makes the averaged weights those of the model.
    """

    def __init__(self) -> None:
        super().__init__()
        self._own: list[np.ndarray] = []  # the weights of the training while the model has the averaged ones

    def giving_back(self) -> keras.callbacks.Callback:
        """The callback that comes before the one that writes the state of the training."""
        return keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: self._give_back())

    def on_test_begin(self, logs: Any = None) -> None:
        self._take()

    def on_test_end(self, logs: Any = None) -> None:
        self._give_back()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._take()

    def _take(self) -> None:
        self._own = [weight.numpy().copy() for weight in self.model.trainable_variables]
        self.model.optimizer.finalize_variable_values(self.model.trainable_variables)

    def _give_back(self) -> None:
        for weight, own in zip(self.model.trainable_variables, self._own, strict=True):
            weight.assign(own)


class TrainingTime(keras.callbacks.Callback):
    """Writes the seconds that a training has taken, at the end of an epoch and of the training.

    They are the seconds of a clock, and those in which a core of the processor worked for this process. They are
    written at the end of the first epoch, as the first checkpoint is, so that they are known if a training goes on.

    Args:
        file: the JSON file.
        before: the seconds that the training took before it was interrupted.
        processor_before: its processor seconds, or None if they are not known; then they are not written.
        seconds: the minimum time between two writes, in seconds.
    """

    def __init__(
        self, file: Path, before: float = 0.0, processor_before: float | None = 0.0, seconds: float = 5.0
    ) -> None:
        super().__init__()
        self.file = file
        self.before = before
        self.processor_before = processor_before
        self.seconds = seconds
        self._begun = self._written = self._processor_begun = 0.0

    def on_train_begin(self, logs: Any = None) -> None:
        self._begun, self._written = time.monotonic(), -math.inf
        self._processor_begun = time.process_time()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if time.monotonic() - self._written >= self.seconds:
            self._write()

    def on_train_end(self, logs: Any = None) -> None:
        self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        spent = {"seconds": self.before + self._written - self._begun}
        if self.processor_before is not None:
            spent["processor_seconds"] = self.processor_before + time.process_time() - self._processor_begun
        files.write_json(self.file, spent)


class BatchLoss(keras.callbacks.Callback):
    """Prints the loss of a random training batch at regular times, without the penalties on weights.

    With the default objective it is the beta-weighted negative ELBO. The first value is printed after the first batch,
    or after the first `steps_per_execution` batches. The choice of the images depends only on the model's seed and
    its number of steps.

    Args:
        data: the data of the training. If they are streamed, the images are chosen from the first 1,000.
        batch_size: the number of images per batch.
        seconds: the minimum time between two values, in seconds.
    """

    def __init__(self, data: Data, batch_size: int = 100, seconds: float = 30.0) -> None:
        super().__init__()
        self.data = data
        self.batch_size = batch_size
        self.seconds = seconds
        self._epoch = 0
        self._printed_at = -float("inf")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if time.monotonic() - self._printed_at < self.seconds:
            return
        step = int(np.asarray(self.model.steps))
        value = float(self.losses(np.random.default_rng([self.model.seed, step])).mean())
        print(f"epoch {self._epoch + 1}, step {step}: loss of a random training batch {value:.2f} nats per image")
        self._printed_at = time.monotonic()

    def losses(self, rng: np.random.Generator) -> np.ndarray:
        """The loss of each image in a batch of random training images, `[B]` nats."""
        count = self.data.info.sizes["train"]
        indices = rng.integers(0, min(count, 1000) if self.data.streams else count, self.batch_size)
        x, seed = self.data.images_at("train", indices), int(rng.integers(2**31))
        condition = None if self.model.condition_shape is None else self.data.labels_at("train", indices)
        loss = self.model.objective.loss(sampling.elbo_draws(self.model, x, seed, condition), self.model.steps)
        return (loss[-1] if isinstance(loss, tuple) else loss).numpy()


class CodeUse(keras.callbacks.Callback):
    """Measures how much the model uses its code z while it trains, and warns once if the posterior collapses.

    After the first epoch and after every `every`-th one, these go into the logs, in nats per image: `code_kl`, the KL
    term; `code_kl_z1` to `code_kl_zD`, that of each latent dimension, if there is a closed form; `code_active_units`,
    the number of dimensions that are used, of `kvae.evaluation.elbo`; and `code_mutual_information`, `code_marginal_kl`
    and `code_total_correlation` of `kvae.evaluation.information`. The history has them, and so has each callback that
    comes later in the list, such as `CSVLogger` and `TensorBoard`. The random numbers of the training do not change.

        vae.fit(x, epochs=50, callbacks=[kvae.training.callbacks.CodeUse(x_held_out[:1000], every=5)])

    Args:
        data: held-out images, as in `kvae.evaluation.elbo`; at least two. The cost grows with the square of their
            number; 1,000 are enough to see a collapse, and the mutual information is at most the logarithm of it.
        every: the number of epochs between two measurements. 1 by default.
        seed: the seed of the draws, which are the same in all epochs.

    Raises:
        UserError: if `every` is not a whole number of at least 1; in training, as `kvae.evaluation.information`.

    Warns:
        KvaeWarning: the first time that the KL term is within 0.01 nats of 0.
    """

    def __init__(self, data: Any, every: int = 1, seed: int = 0) -> None:
        super().__init__()
        self.data = data
        self.every = check_whole("every", every)
        self.seed = seed
        self._begins = self._warned = False

    def on_train_begin(self, logs: Any = None) -> None:
        self._begins = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if not self._begins and (epoch + 1) % self.every:
            return
        self._begins = False
        found = self.measure()
        if logs is not None:
            logs.update(found)
        text = fit_checks.collapse(found["code_kl"], f"after epoch {epoch + 1}")
        if text is not None and not self._warned:
            self._warned = True
            warnings.warn(text, KvaeWarning, stacklevel=stacklevel_of_user())

    def measure(self) -> dict[str, float]:
        """What goes into the logs, by name."""
        terms = evaluation.elbo(self.model, self.data, draws=1, seed=self.seed)
        information = evaluation.information(self.model, self.data, seed=self.seed)
        found = {"kl": terms.kl.mean, "active_units": float(terms.active_units)}
        found |= {f"kl_z{number}": each.mean for number, each in enumerate(terms.kl_per_dimension, start=1)}
        for name in ("mutual_information", "marginal_kl", "total_correlation"):
            estimate = getattr(information, name)
            if estimate is not None:
                found[name] = estimate.mean
        return {f"code_{name}": value for name, value in found.items()}


class Plots(keras.callbacks.Callback):
    """Draws figures of the model during training and at its end.

    If a kind of figure does not suit the model or the data, a line says so and training continues.

    Args:
        data: the data that the figures show.
        folder: the folder of the files, such as `lattice_epoch_0010.png` during training and `lattice.png` at its end.
        kinds: names in `kvae.plotting.figures.KINDS`.
        every: the number of epochs between two drawings during training. By default figures are drawn only at the end.
        rows: the history of the epochs before this training, for `learning_curves`.

    Raises:
        UserError: if a kind is unknown, or if `every` is not a whole number of at least 1.
    """

    def __init__(
        self,
        data: Data,
        folder: str | Path,
        kinds: Sequence[str] = ("samples",),
        every: int | None = None,
        rows: Sequence[dict[str, float]] = (),
    ) -> None:
        super().__init__()
        figures.check_kinds(kinds)
        self.data = data
        self.folder = Path(folder)
        self.kinds = list(kinds)
        self.every = None if every is None else check_whole("every", every)
        self._rows = list(rows)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._rows.append({"epoch": epoch + 1, **(logs or {})})
        if self.every is not None and (epoch + 1) % self.every == 0:
            self._draw(f"epoch_{epoch + 1:04d}")

    def on_train_end(self, logs: Any = None) -> None:
        if self._rows:
            self._draw("")

    def _draw(self, label: str) -> None:
        subject = figures.Subject(self.model, self.data, history.columns(self._rows), "held out")
        for kind in list(self.kinds):
            try:
                figures.draw(kind, subject, self.folder, label=label)
            except UserError as error:
                self.kinds.remove(kind)
                print(f"{kind}{NOT_DRAWN}{error}")
