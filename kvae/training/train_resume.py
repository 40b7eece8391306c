"""From a configuration to a finished run folder: data, model and callbacks wired into Keras `fit`."""

from pathlib import Path
from typing import Any, NamedTuple

from kvae import data as data_
from kvae import evaluation
from kvae.data import Data
from kvae.data.sources import absolute
from kvae.internal import files
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import keras, tf
from kvae.model.vae import VAE
from kvae.plotting import figures
from kvae.training import callbacks, cluster, history
from kvae.training.build import build_model, build_optimizer, make_parts, resolved, steps_an_epoch
from kvae.training.config import RunConfig, TrainingConfig
from kvae.training.runs import Run, check_free


def load_data(config: RunConfig) -> Data:
    """The data of a run: its binarization and order follow the run's seed."""
    options = config.data.model_dump()
    return data_.load(options.pop("source"), seed=config.seed, **options)


def train(
    config: RunConfig,
    folder: str | Path,
    *,
    overwrite: bool = False,
    verbose: int = 2,
    extra: Any = (),
    distribute: str | None = None,
) -> Run:
    """Trains from the beginning and leaves a finished run.

    Args:
        config: what to train.
        folder: of the run.
        overwrite: replace a run that stands there.
        verbose: of Keras `fit`: 0 silent, 1 a progress bar, 2 a line an epoch.
        extra: more Keras callbacks.
        distribute: `"mirrored"` for all devices of this machine, `"multiworker"` for those of the machines in TF_CONFIG
            (then call this in every one of them, with the same arguments), or None. It changes the result by rounding
            alone, so it is no part of the configuration. Only the chief writes.

    Raises:
        UserError: the folder is taken, the data or the configuration cannot be used, or another worker is gone.
    """
    config = resolved(_with_absolute_source(config))
    chief = cluster.is_chief(distribute)
    if chief:
        check_free(folder, overwrite)
    figures.check_kinds(config.training.plots)
    strategy = cluster.strategy(distribute)
    with strategy.scope():
        parts = make_parts(config)
    data = load_data(config)
    with strategy.scope():
        vae = build_model(config, data, parts)
        vae.compile(optimizer=build_optimizer(config, steps_an_epoch(data)), **_compile_options(config))
    run = Run.create(folder, config, data.info.protocol, overwrite) if chief else Run(Path(folder), config)
    return _fit(_Fit(run, data, vae, None, verbose, extra, chief))


def resume(
    folder: str | Path,
    config: RunConfig | None = None,
    *,
    verbose: int = 2,
    extra: Any = (),
    distribute: str | None = None,
) -> Run:
    """Goes on where a training was interrupted; the result is bit for bit that of one that was not.

    Args:
        folder: of the run.
        config: what the caller asks for, checked against the run's own. More epochs are accepted where the learning
            rate is constant, for then they change nothing of what was done.
        verbose: of Keras `fit`: 0 silent, 1 a progress bar, 2 a line an epoch.
        extra: more Keras callbacks.
        distribute: as in `train`; all workers read the run's folder.

    Raises:
        UserError: no such run, another configuration than the run's, or another worker is gone.
    """
    config = None if config is None else resolved(_with_absolute_source(config))
    chief = cluster.is_chief(distribute)
    run = Run.open(folder)
    run.config = resolved(run.config)
    if chief:
        files.remove_unfinished(run.folder)
    checkpoint = callbacks.latest_checkpoint(run.checkpoints)
    longer = config is not None and config != run.config
    if config is not None and longer:
        run.config = _accepted(run.config, config)
        if run.finished and checkpoint is None:
            raise UserError(f"{str(run.folder)!r} has no checkpoint to go on from. Train anew with another --out.")
    elif run.finished:
        return run
    figures.check_kinds(run.config.training.plots)
    strategy = cluster.strategy(distribute)
    data = load_data(run.config)
    if checkpoint is None:
        with strategy.scope():
            vae = build_model(run.config, data)
            optimizer = build_optimizer(run.config, steps_an_epoch(data))
            vae.compile(optimizer=optimizer, **_compile_options(run.config))
        return _fit(_Fit(run, data, vae, None, verbose, extra, chief))
    with strategy.scope():
        resumed = callbacks.Resumed(checkpoint)
        if longer and resumed.stopped:
            raise UserError(
                f"Early stopping ended this run at epoch {resumed.epochs}: there are no more epochs to train."
            )
        resumed.model.compile(optimizer=resumed.model.optimizer, **_compile_options(run.config))
    if longer and chief:
        run.write_config(data.info.protocol)
        run.discard_results()
    return _fit(_Fit(run, data, resumed.model, resumed, verbose, extra, chief))


def _with_absolute_source(config: RunConfig) -> RunConfig:
    """The configuration with a source of files by its absolute path, so that the run can be used from any folder."""
    data = config.data.model_copy(update={"source": absolute(config.data.source)})
    return config.model_copy(update={"data": data})


def _accepted(own: RunConfig, asked: RunConfig) -> RunConfig:
    """The configuration to go on with, or a `UserError` that names what differs."""
    extended = own.model_copy(update={"training": own.training.model_copy(update={"epochs": asked.training.epochs})})
    if extended == asked and own.training.schedule == "constant" and asked.training.epochs >= own.training.epochs:
        return asked
    ours, theirs = _flat(own.to_dict()), _flat(asked.to_dict())
    differ = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    what = ", ".join(f"{key} (run: {ours.get(key)}, asked: {theirs.get(key)})" for key in differ)
    raise UserError(f"Expected --resume with the run's own settings. These differ: {what}. Leave them out.")


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat


def _compile_options(config: RunConfig) -> dict[str, Any]:
    return {"jit_compile": config.training.jit_compile, "steps_per_execution": config.training.steps_per_execution}


class _Fit(NamedTuple):
    """What a fit is about to work with."""

    run: Run
    data: Data
    vae: VAE
    resumed: callbacks.Resumed | None
    verbose: Any
    extra: Any
    chief: bool


def _fit(fit: _Fit) -> Run:
    run, vae, resumed, training = fit.run, fit.vae, fit.resumed, fit.run.config.training
    stopping = None
    if training.early_stopping is not None:
        stopping = callbacks.EarlyStopping(training.early_stopping)
        if resumed is not None and resumed.best_weights is not None:
            stopping.restore(resumed.early_stopping, resumed.best_weights)
    if (resumed.epochs if resumed else 0) < training.epochs and not (resumed and resumed.stopped):
        _call_fit(fit, stopping)
        best = stopping.best_weights if stopping else None
    else:
        best = resumed.best_weights if resumed else None
    if best is not None:
        vae.set_weights(best)
    if fit.chief:
        run.save_models(vae)
        run.write_evaluation(evaluation.evaluate(vae, fit.data.test, protocol=protocol(fit.data)))
    return run


def _call_fit(fit: _Fit, stopping: callbacks.EarlyStopping | None) -> None:
    data, config = fit.data, fit.run.config
    held_out = data.test if data.validation is None and config.training.monitor_test else data.validation
    try:
        fit.vae.fit(
            data.train,
            validation_data=held_out,
            validation_freq=config.training.monitor_every,
            epochs=config.training.epochs,
            initial_epoch=fit.resumed.epochs if fit.resumed else 0,
            callbacks=[
                callbacks.DataEpoch(data.epoch),
                *([stopping] if stopping else []),
                *fit.extra,
                *(_chiefs_callbacks(fit, stopping) if fit.chief else []),
            ],
            verbose=fit.verbose if fit.chief else 0,
        )
    except tf.errors.OpError as error:
        if cluster.lost_worker(fit.vae.distribute_strategy, error):
            raise UserError(
                f"Another worker is gone. Start all of them again with --resume --out {fit.run.folder}."
            ) from error
        if config.data.streaming and isinstance(error, tf.errors.InvalidArgumentError):
            reason = error.message.splitlines()[0]
            raise UserError(f"Could not decode an image of {config.data.source} while streaming: {reason}") from error
        raise


def _chiefs_callbacks(fit: _Fit, stopping: callbacks.EarlyStopping | None) -> list[Any]:
    """What prints, draws and writes; the checkpoint comes last."""
    run, training = fit.run, fit.run.config.training
    rows = fit.resumed.rows if fit.resumed else []
    history.write(run.history_file, rows)
    checkpoint = callbacks.Checkpoint(run.checkpoints, run.history_file, rows, training.checkpoint_seconds, stopping)
    tensorboard = [_tensorboard(run)] if training.tensorboard else []
    return [*tensorboard, *_shown(training, fit.data, run, rows), checkpoint]


def _shown(training: TrainingConfig, data: Data, run: Run, rows: list[dict[str, float]]) -> list[Any]:
    """What the configuration asks to be printed and drawn while training."""
    shown: list[Any] = []
    if training.show_batch_seconds is not None:
        shown.append(callbacks.BatchLoss(data, run.config.data.batch_size, training.show_batch_seconds))
    if training.plots:
        shown.append(callbacks.Plots(data, run.plots, training.plots, training.plots_every, rows))
    return shown


def protocol(data: Data) -> dict[str, Any]:
    """What a number measured on the test set must say of the data."""
    return {**data.info.protocol, "split": "test"}


def _tensorboard(run: Run) -> Any:
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        raise UserError("training.tensorboard needs tensorboard: pip install 'kvae[tensorboard]'.") from None
    return keras.callbacks.TensorBoard(log_dir=run.folder / "tensorboard")
