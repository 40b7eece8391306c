"""From a configuration to a finished run folder: loads the data, builds the model and calls Keras `fit`."""

import importlib.util
import json
import math
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from kvae import data as data_
from kvae import evaluation
from kvae.data import Data, Source
from kvae.data.sources import absolute, can_stream
from kvae.internal.errors import KvaeWarning, UserError, stacklevel_of_user
from kvae.internal.tensorflow import keras, tf
from kvae.internal.visible import shortened, shown
from kvae.model.vae import VAE
from kvae.plotting import figures
from kvae.runtime.cards import class_names_of_run
from kvae.training import (
    callbacks,
    checkpoints,
    data_defaults,
    distribution,
    divergence,
    history,
    outcome,
    progress,
)
from kvae.training.build import build_model, build_optimizer, make_parts, resolved, steps_per_epoch
from kvae.training.config import RunConfig, TrainingConfig, of_run
from kvae.training.runs import Run, check_free

FEW_TEST_IMAGES = 10  # with fewer, the numbers of an evaluation say little, and a warning says so
OLD_WEIGHTS = 0.1  # a larger part of the averaged weights should not be those after the first step


def load_data(config: RunConfig, source: Source | None = None) -> Data:
    """Loads the data of a run. Their binarization and order depend on the run's seed.

    Args:
        config: the configuration of the run.
        source: the source that it names, if that is open already.

    Raises:
        UserError: if the data cannot be loaded.
    """
    options = config.data.model_dump()
    name = options.pop("source")
    return data_.load(name if source is None else source, seed=config.seed, **options)


def data_for(run: Run, vae: VAE, dataset: str | None = None) -> Data:
    """The data of a run, or other data for its model, which are binarized in the same way.

    Args:
        run: the run.
        vae: its model.
        dataset: the name of other data, of which all images are taken. By default the run's own data.

    Raises:
        UserError: if the data cannot be loaded, if their images have another shape than those of the model, or if the
            model takes the class as its condition and they have other classes.
    """
    config = run.config
    if dataset is not None:  # batches of 1 are possible for sets of any size
        changes: dict[str, Any] = {"source": dataset, "train": "train", "validation": None, "test": "test"}
        changes |= {"batch_size": 1} if can_stream(dataset) else {"batch_size": 1, "streaming": False}
        config = config.model_copy(update={"data": config.data.model_copy(update=changes)})
    data = load_data(config)
    if tuple(data.info.image_shape) != tuple(vae.image_shape):
        of_model, received = (" x ".join(map(str, shape)) for shape in (vae.image_shape, data.info.image_shape))
        raise UserError(
            f"Expected images of {of_model}, like those that the run {run.folder} was trained on (height x width x "
            f"channels). Received images of {received} in {data.info.source}. Resize them, or choose another run."
        )
    if vae.condition_shape is not None:
        _check_classes(run, data)
    return data


def _check_classes(run: Run, data: Data) -> None:
    """Raises `UserError` if a label stands for another class in these data than in those of the training.

    Classes that have no names but their numbers, in either of them, are taken to be the same.
    """
    trained, given = class_names_of_run(run.folder) or (), data.info.label_names or ()
    if list(trained) == [str(number) for number in range(len(trained))]:
        return
    for number, (ours, theirs) in enumerate(zip(trained, given, strict=False)):
        if ours != theirs:
            raise UserError(
                f"Expected the classes of the model in their order: {shortened(', '.join(trained), 200)}. Received "
                f"{shortened(', '.join(given), 200)} in {data.info.source}, so class {number} is {shown(theirs)} and "
                f"not {shown(ours)}. Choose data with the same classes. Those of pictures are the names of sub-folders."
            )


def train(
    config: RunConfig | dict[str, Any],
    folder: str | Path,
    *,
    overwrite: bool = False,
    verbose: int = 2,
    extra: Any = (),
    distribute: str | None = None,
) -> Run:
    """Trains a model from the beginning, evaluates it, and writes the run folder.

    Args:
        config: the configuration of the run. Or only some settings, as nested values like those of a recipe; then the
            others follow the data (`kvae.training.data_defaults`), and a line says what was chosen.
        folder: the path of the run folder.
        overwrite: whether to replace an existing run. False by default.
        verbose: what is printed: 0 nothing, 1 one progress bar for the whole training, 2 one line per epoch.
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
    chief, source = distribution.is_chief(distribute), None
    if chief:
        check_free(folder, overwrite)
    if isinstance(config, dict):
        config, source, explanation = data_defaults.follow(config)
        if explanation and verbose and chief:
            print(explanation)
    config = resolved(with_absolute_source(config))
    _check_outputs(config.training)
    strategy = distribution.strategy(distribute)
    with strategy.scope():
        parts = make_parts(config)
    data = load_data(config, source)
    del source  # the data have its images, or a copy in another order
    data.check("train")
    if chief:
        _warn_of_few_test_images(data)
        _warn_of_long_average(config, steps_per_epoch(data))
    with strategy.scope():
        vae = build_model(config, data, parts)
        vae.compile(optimizer=build_optimizer(config, steps_per_epoch(data)), **_compile_options(config))
    names = None if config.data.condition is None else data.info.class_names
    run = Run.create(folder, config, data.info.protocol, overwrite, names) if chief else Run(Path(folder), config)
    with run.locked() if chief else nullcontext():
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
        verbose: what is printed: 0 nothing, 1 one progress bar for the whole training, 2 one line per epoch.
        extra: further Keras callbacks.
        distribute: as in `train`. All workers read the run folder.

    Returns:
        The finished run.

    Raises:
        UserError: if there is no such run, if `config` differs from its configuration, if its checkpoint is damaged, if
            the loss diverges, or if another worker has ended.
    """
    config = None if config is None else resolved(with_absolute_source(config))
    chief = distribution.is_chief(distribute)
    run = Run.open(folder)
    with run.locked() if chief else nullcontext():
        return _resume(Run.open(folder), config, _Options(verbose, extra, distribute, chief))


class _Options(NamedTuple):
    """How a training runs, without an effect on its result."""

    verbose: Any
    extra: Any
    distribute: str | None
    chief: bool  # whether this process writes the run


def _resume(run: Run, received: RunConfig | None, options: _Options) -> Run:
    """Continues the training of a run that this process has locked."""
    saved = run.config = resolved(run.config)
    checkpoint = checkpoints.latest_checkpoint(run.checkpoints)
    state = None if checkpoint is None else checkpoints.read_state(checkpoint)
    begun = saved if state is None or state.config is None else resolved(of_run(state.config))
    if begun != saved:
        expected = f"Expected {run.folder / 'config.json'} with the settings with which the training began."
        _accepted(begun, saved, expected, "Restore them.")
    config = saved
    if received is not None:  # the words about a recipe are no setting, and another version may have other ones
        received = received.model_copy(update={"description": saved.description})
    if received is not None and "order" not in received.data.model_fields_set:  # that of an earlier version is another
        ordered = received.data.model_copy(update={"order": saved.data.order})
        received = received.model_copy(update={"data": ordered})
    if received is not None and received != saved:
        config = _accepted(saved, received, "Expected --resume with the run's own settings.", "Leave them out.")
    longer = config.training.epochs > begun.training.epochs
    if longer and state is not None and state.stopped:
        raise UserError(
            f"Early stopping ended this run at epoch {state.epochs}. It cannot train more epochs. To train longer, "
            "train again with a larger --early-stopping and another --out."
        )
    if longer and state is None and run.finished:
        raise UserError(f"{str(run.folder)!r} has no checkpoint to continue from. Train again with another --out.")
    if state is not None and state.epochs > config.training.epochs:
        raise UserError(
            f"Expected at least {state.epochs} epochs, because the run has finished so many. Received "
            f"{config.training.epochs}."
        )
    trained = state is None or state.stopped or state.epochs == config.training.epochs
    if run.finished and trained and not longer:
        return run
    run.warn_of_versions()
    _check_outputs(config.training)
    strategy = distribution.strategy(options.distribute)
    data = load_data(config)
    data.check("train")
    _check_same_data(run, data)
    with strategy.scope():
        if state is None or checkpoint is None:
            resumed, vae = None, build_model(config, data)
            optimizer = build_optimizer(config, steps_per_epoch(data))
        else:
            resumed = checkpoints.Resumed(checkpoint, state)
            vae, optimizer = resumed.model, resumed.model.optimizer
        vae.compile(optimizer=optimizer, **_compile_options(config))
    if options.chief:
        # In this order the run is at every moment one that can be resumed: first it is no longer finished, and then it
        # has more epochs.
        run.discard_results()
        if config != saved:
            run.config = config
            run.write_config()
    run.config = config
    return _fit_and_save(_Session(run, data, vae, resumed, options.verbose, options.extra, options.chief))


def _warn_of_few_test_images(data: Data) -> None:
    count = data.info.sizes["test"]
    if count < FEW_TEST_IMAGES:
        images = "1 image" if count == 1 else f"{count} images"
        message = (
            f"The test split has {images}, so the numbers of the evaluation will say little about other images"
            + (", and they will have no standard error" if count == 1 else "")
            + f". Add images, so that at least {FEW_TEST_IMAGES} are for testing."
        )
        warnings.warn(message, KvaeWarning, stacklevel=stacklevel_of_user())


def _warn_of_long_average(config: RunConfig, steps: int) -> None:
    """Warns if the average of the weights is over more steps than a training has, with so many steps per epoch."""
    momentum, steps = config.training.average, steps * config.training.epochs
    if momentum is None or steps < 2 or (old := momentum ** (steps - 1)) <= OLD_WEIGHTS:
        return
    fewer = max(0.5, 1 - 10.0 ** math.ceil(math.log10(10 / steps)))  # a tenth of the steps, or less
    message = (
        f"At the end of this training of {steps:,} steps, {old:.0%} of its averaged weights will be those after the "
        f"first step. Train longer, or average over fewer steps: --set training.average={fewer:g}."
    )
    warnings.warn(message, KvaeWarning, stacklevel=stacklevel_of_user())


def _check_same_data(run: Run, data: Data) -> None:
    """Raises `UserError` if the data are not those with which the training began, as far as the protocol tells."""
    begun, present = run.facts["protocol"], json.loads(json.dumps(data.info.protocol))
    for key, value in begun.items():
        if key in present and present[key] != value:
            raise UserError(
                f"Expected the data with which the training began. Their {key} was {value!r} and is now "
                f"{present[key]!r}. Restore the data, or train again with another --out."
            )


def with_absolute_source(config: RunConfig) -> RunConfig:
    """The configuration with the absolute paths of data files, so that the run can be used from any folder."""
    data = config.data.model_copy(update={"source": absolute(config.data.source)})
    return config.model_copy(update={"data": data})


def _accepted(saved: RunConfig, received: RunConfig, expected: str, remedy: str) -> RunConfig:
    """The configuration with which a run continues; raises `UserError` if the received one is not acceptable."""
    epochs = received.training.epochs
    extended = saved.model_copy(update={"training": saved.training.model_copy(update={"epochs": epochs})})
    if extended == received and saved.training.schedule == "constant" and epochs >= saved.training.epochs:
        return received
    ours, theirs = _flat(saved.to_dict()), _flat(received.to_dict())
    differing = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    differences = ", ".join(f"{key} (run: {ours.get(key)}, received: {theirs.get(key)})" for key in differing)
    if differing == ["training.epochs"] and epochs > saved.training.epochs:
        remedy += (
            f" The learning rate of this run depends on its number of epochs (training.schedule is "
            f"{saved.training.schedule}). To train longer, train again with --epochs {epochs} and another --out; only "
            "a run with a constant learning rate can be continued with more epochs."
        )
    raise UserError(f"{expected} These differ: {differences}. {remedy}")


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
    if session.chief:  # a process that was killed after its last checkpoint has not written the last row
        history.write(run.history_file, resumed.state.rows if resumed else [])
    stopping = None
    if training.early_stopping is not None:
        stopping = callbacks.EarlyStopping(training.early_stopping)
        if resumed is not None and resumed.best_weights is not None:
            assert resumed.state.early_stopping is not None
            stopping.restore(resumed.state.early_stopping.model_dump(), resumed.best_weights)
    if resumed is None or (resumed.state.epochs < training.epochs and not resumed.state.stopped):
        _call_fit(session, stopping)
        best = stopping.best_weights if stopping else None
    else:
        best = resumed.best_weights if resumed else None
        vae.optimizer.finalize_variable_values(vae.trainable_variables)  # as `fit` ends: with averaged weights, if any
    if best is not None:
        vae.set_weights(best)
    if session.chief:
        result = evaluation.evaluate(vae, session.data.test, protocol=protocol(session.data))  # first: it may refuse
        run.save_models(vae)
        run.write_evaluation(result)
        outcome.warn(run.config, result, run.history())
    return run


def _call_fit(session: _Session, stopping: callbacks.EarlyStopping | None) -> None:
    data, config, resumed = session.data, session.run.config, session.resumed
    held_out = data.test if data.validation is None and config.training.monitor_test else data.validation
    epochs, begun = config.training.epochs, resumed.state.epochs if resumed else 0
    verbose, name = session.verbose if session.chief else 0, "test" if held_out is data.test else "validation"
    averaged = [] if config.training.average is None else [callbacks.AveragedWeights()]
    try:
        with (
            progress.shown(verbose, epochs, steps_per_epoch(data), name, begun) as shown,
            warnings.catch_warnings(),
        ):
            # `outcome.warn` says it after the evaluation, with the settings of a run.
            warnings.filterwarnings("ignore", "The posterior has collapsed", KvaeWarning)
            session.vae.fit(
                data.train,
                validation_data=held_out,
                validation_freq=config.training.monitor_every,
                epochs=epochs,
                initial_epoch=begun,
                callbacks=[
                    _stop_at_divergence(session),
                    callbacks.DataEpoch(data.epoch),
                    *averaged,
                    *shown,
                    *([stopping] if stopping else []),
                    *session.extra,
                    *(_output_callbacks(session) if session.chief else []),
                    *(each.giving_back() for each in averaged),
                    *([_checkpoint(session, stopping)] if session.chief else []),
                ],
                verbose=0,
            )
    except tf.errors.OpError as error:
        if distribution.lost_worker(session.vae.distribute_strategy, error):
            raise UserError(
                f"Another worker has ended. Start all workers again with --resume --out {session.run.folder}."
            ) from error
        data.check()  # names the file, if a file was damaged since the start
        if config.data.streaming and isinstance(error, tf.errors.InvalidArgumentError):
            reason = error.message.splitlines()[0]
            raise UserError(f"Could not decode an image of {config.data.source} while streaming: {reason}") from error
        raise


def _stop_at_divergence(session: _Session) -> Any:
    run, rows = session.run, session.resumed.state.rows if session.resumed else []
    losses = [row["loss"] for row in rows if "loss" in row]
    return divergence.StopAtDivergence(run.config, run.folder, run.checkpoints, losses)


def _output_callbacks(session: _Session) -> list[Any]:
    """The callbacks that print, draw and measure the time."""
    run, data, training = session.run, session.data, session.run.config.training
    rows = session.resumed.state.rows if session.resumed else []
    result: list[Any] = []
    if training.tensorboard:
        result.append(keras.callbacks.TensorBoard(log_dir=run.folder / "tensorboard"))
    if training.show_batch_seconds is not None:
        result.append(callbacks.BatchLoss(data, run.config.data.batch_size, training.show_batch_seconds))
    if training.plots:
        result.append(callbacks.Plots(data, run.plots, training.plots, training.plots_every, rows))
    spent = run.training_seconds()
    if spent is not None or session.resumed is None:  # otherwise the time of the first epochs is not known
        processor = 0.0 if spent is None else run.processor_seconds()
        result.append(callbacks.TrainingTime(run.time_file, spent or 0.0, processor))
    return result


def _checkpoint(session: _Session, stopping: callbacks.EarlyStopping | None) -> checkpoints.Checkpoint:
    """The callback that writes the checkpoints, which is the last one."""
    run, rows = session.run, session.resumed.state.rows if session.resumed else []
    seconds, config = run.config.training.checkpoint_seconds, run.config.to_dict()
    return checkpoints.Checkpoint(run.checkpoints, run.history_file, rows, seconds, stopping, config)


def protocol(data: Data) -> dict[str, Any]:
    """The protocol of a number that is measured on the test set, as far as it depends on the data."""
    return {**data.info.protocol, "split": "test"}


def _check_outputs(training: TrainingConfig) -> None:
    """Checks, before a run is made or changed, that its figures and logs can be made. Raises `UserError` if not."""
    figures.check_kinds(training.plots)
    if training.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise UserError(
            "Expected the package tensorboard for training.tensorboard. Install it: pip install tensorboard."
        )
