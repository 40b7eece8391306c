"""From a configuration to a finished run folder: loads the data, builds the model and calls Keras `fit`."""

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
from kvae.training import callbacks, checkpoints, distribution, history
from kvae.training.build import build_model, build_optimizer, make_parts, resolved, steps_per_epoch
from kvae.training.config import RunConfig
from kvae.training.runs import Run, check_free


def load_data(config: RunConfig) -> Data:
    """Loads the data of a run. Their binarization and order depend on the run's seed.

    Raises:
        UserError: if the data cannot be loaded.
    """
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
    """Trains a model from the beginning, evaluates it, and writes the run folder.

    Args:
        config: the configuration of the run.
        folder: the path of the run folder.
        overwrite: whether to replace an existing run. False by default.
        verbose: what Keras `fit` prints: 0 nothing, 1 a progress bar, 2 one line per epoch.
        extra: further Keras callbacks.
        distribute: `"mirrored"` to train on all devices of this machine; `"multiworker"` to train on the machines in
            TF_CONFIG, each of which must call this function with the same arguments; or None. It changes the result
            only by rounding errors, so it is not part of the configuration. Only the chief writes the run.

    Returns:
        The finished run.

    Raises:
        UserError: if the folder exists, if the data or the configuration are not valid, if the loss diverges, or if
            another worker has ended.
    """
    config = resolved(_with_absolute_source(config))
    chief = distribution.is_chief(distribute)
    if chief:
        check_free(folder, overwrite)
    figures.check_kinds(config.training.plots)
    strategy = distribution.strategy(distribute)
    with strategy.scope():
        parts = make_parts(config)
    data = load_data(config)
    data.check("train")
    with strategy.scope():
        vae = build_model(config, data, parts)
        vae.compile(optimizer=build_optimizer(config, steps_per_epoch(data)), **_compile_options(config))
    run = Run.create(folder, config, data.info.protocol, overwrite) if chief else Run(Path(folder), config)
    return _fit_and_save(_Session(run, data, vae, None, verbose, extra, chief))


def resume(
    folder: str | Path,
    config: RunConfig | None = None,
    *,
    verbose: int = 2,
    extra: Any = (),
    distribute: str | None = None,
) -> Run:
    """Continues a training that was interrupted. The result is bit for bit that of an uninterrupted training.

    Args:
        folder: the path of the run folder.
        config: the expected configuration. It must be that of the run, but may have more epochs if the learning rate
            is constant, because then the finished epochs do not depend on their number. By default that of the run.
        verbose: what Keras `fit` prints: 0 nothing, 1 a progress bar, 2 one line per epoch.
        extra: further Keras callbacks.
        distribute: as in `train`. All workers read the run folder.

    Returns:
        The finished run.

    Raises:
        UserError: if there is no such run, if `config` differs from its configuration, if its checkpoint is damaged, if
            the loss diverges, or if another worker has ended.
    """
    config = None if config is None else resolved(_with_absolute_source(config))
    chief = distribution.is_chief(distribute)
    run = Run.open(folder)
    run.config = resolved(run.config)
    if chief:
        files.remove_unfinished(run.folder)
    checkpoint = checkpoints.latest_checkpoint(run.checkpoints)
    longer = config is not None and config != run.config
    if config is not None and longer:
        run.config = _accepted(run.config, config)
        if run.finished and checkpoint is None:
            raise UserError(f"{str(run.folder)!r} has no checkpoint to continue from. Train again with another --out.")
    elif run.finished:
        return run
    figures.check_kinds(run.config.training.plots)
    strategy = distribution.strategy(distribute)
    data = load_data(run.config)
    data.check("train")
    if checkpoint is None:
        with strategy.scope():
            vae = build_model(run.config, data)
            optimizer = build_optimizer(run.config, steps_per_epoch(data))
            vae.compile(optimizer=optimizer, **_compile_options(run.config))
        return _fit_and_save(_Session(run, data, vae, None, verbose, extra, chief))
    with strategy.scope():
        resumed = checkpoints.Resumed(checkpoint)
        if longer and resumed.stopped:
            raise UserError(f"Early stopping ended this run at epoch {resumed.epochs}. It cannot train more epochs.")
        resumed.model.compile(optimizer=resumed.model.optimizer, **_compile_options(run.config))
    if longer and chief:
        run.write_config(data.info.protocol)
        run.discard_results()
    return _fit_and_save(_Session(run, data, resumed.model, resumed, verbose, extra, chief))


def _with_absolute_source(config: RunConfig) -> RunConfig:
    """The configuration with the absolute paths of data files, so that the run can be used from any folder."""
    data = config.data.model_copy(update={"source": absolute(config.data.source)})
    return config.model_copy(update={"data": data})


def _accepted(saved: RunConfig, received: RunConfig) -> RunConfig:
    """The configuration with which a run continues; raises `UserError` if the received one is not acceptable."""
    epochs = received.training.epochs
    extended = saved.model_copy(update={"training": saved.training.model_copy(update={"epochs": epochs})})
    if extended == received and saved.training.schedule == "constant" and epochs >= saved.training.epochs:
        return received
    expected, given = _flat(saved.to_dict()), _flat(received.to_dict())
    differing = sorted(key for key in expected.keys() | given.keys() if expected.get(key) != given.get(key))
    differences = ", ".join(f"{key} (run: {expected.get(key)}, received: {given.get(key)})" for key in differing)
    raise UserError(f"Expected --resume with the run's own settings. These differ: {differences}. Leave them out.")


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted key."""
    flat = {}
    for name, value in values.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat


def _compile_options(config: RunConfig) -> dict[str, Any]:
    return {"jit_compile": config.training.jit_compile, "steps_per_execution": config.training.steps_per_execution}


class _Session(NamedTuple):
    """A training run that is about to start or to continue."""

    run: Run
    data: Data
    vae: VAE
    resumed: checkpoints.Resumed | None  # None if the training starts from the beginning
    verbose: Any
    extra: Any
    chief: bool  # whether this process writes the run


def _fit_and_save(session: _Session) -> Run:
    """Trains the remaining epochs, if there are any; then writes and evaluates the model."""
    run, vae, resumed, training = session.run, session.vae, session.resumed, session.run.config.training
    stopping = None
    if training.early_stopping is not None:
        stopping = callbacks.EarlyStopping(training.early_stopping)
        if resumed is not None and resumed.best_weights is not None:
            stopping.restore(resumed.early_stopping, resumed.best_weights)
    if (resumed.epochs if resumed else 0) < training.epochs and not (resumed and resumed.stopped):
        _call_fit(session, stopping)
        best = stopping.best_weights if stopping else None
    else:
        best = resumed.best_weights if resumed else None
    if best is not None:
        vae.set_weights(best)
    if session.chief:
        run.save_models(vae)
        run.write_evaluation(evaluation.evaluate(vae, session.data.test, protocol=protocol(session.data)))
    return run


def _call_fit(session: _Session, stopping: callbacks.EarlyStopping | None) -> None:
    data, config, resumed = session.data, session.run.config, session.resumed
    held_out = data.test if data.validation is None and config.training.monitor_test else data.validation
    try:
        session.vae.fit(
            data.train,
            validation_data=held_out,
            validation_freq=config.training.monitor_every,
            epochs=config.training.epochs,
            initial_epoch=resumed.epochs if resumed else 0,
            callbacks=[
                callbacks.DataEpoch(data.epoch),
                *([stopping] if stopping else []),
                *session.extra,
                *(_output_callbacks(session, stopping) if session.chief else []),
            ],
            verbose=session.verbose if session.chief else 0,
        )
    except tf.errors.OpError as error:
        if distribution.lost_worker(session.vae.distribute_strategy, error):
            raise UserError(
                f"Another worker has ended. Start all of them again with --resume --out {session.run.folder}."
            ) from error
        data.check()  # names the file, if a file was damaged since the start
        if config.data.streaming and isinstance(error, tf.errors.InvalidArgumentError):
            reason = error.message.splitlines()[0]
            raise UserError(f"Could not decode an image of {config.data.source} while streaming: {reason}") from error
        raise


def _output_callbacks(session: _Session, stopping: callbacks.EarlyStopping | None) -> list[Any]:
    """The callbacks that print, draw and write. The checkpoint is the last of them."""
    run, data, training = session.run, session.data, session.run.config.training
    rows = session.resumed.rows if session.resumed else []
    history.write(run.history_file, rows)
    result: list[Any] = [_tensorboard(run)] if training.tensorboard else []
    if training.show_batch_seconds is not None:
        result.append(callbacks.BatchLoss(data, run.config.data.batch_size, training.show_batch_seconds))
    if training.plots:
        result.append(callbacks.Plots(data, run.plots, training.plots, training.plots_every, rows))
    result.append(
        checkpoints.Checkpoint(run.checkpoints, run.history_file, rows, training.checkpoint_seconds, stopping)
    )
    return result


def protocol(data: Data) -> dict[str, Any]:
    """The protocol of a number that is measured on the test set, as far as it depends on the data."""
    return {**data.info.protocol, "split": "test"}


def _tensorboard(run: Run) -> Any:
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        raise UserError(
            "Expected the package tensorboard for training.tensorboard. Install it: pip install 'kvae[tensorboard]'."
        ) from None
    return keras.callbacks.TensorBoard(log_dir=run.folder / "tensorboard")
