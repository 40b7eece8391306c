"""From a configuration to an untrained model and its optimizer: each part is made of its table, and checks it."""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

from kvae.data import Data
from kvae.internal import imported
from kvae.internal.errors import UserError, unknown
from kvae.internal.tensorflow import keras
from kvae.model import likelihoods, networks, objectives, posteriors, priors
from kvae.model.vae import VAE
from kvae.training.config import ModelConfig, PartConfig, RunConfig

TABLES: dict[str, tuple[Mapping[str, type], type]] = {  # by part, the names that a recipe may use, and their base class
    "network": (networks.NETWORKS, keras.Model),
    "likelihood": (likelihoods.LIKELIHOODS, likelihoods.Likelihood),
    "prior": (priors.PRIORS, priors.Prior),
    "posterior": (posteriors.POSTERIORS, posteriors.Posterior),
    "objective": (objectives.OBJECTIVES, objectives.Objective),
}
# What a run decides itself, or another key of the configuration does.
NOT_OPTIONS = {"latent_dim", "seed", "dtype", "sizes", "name", "trainable", "kernel_regularizer", "bias_regularizer"}
OF_EVERY_NETWORK: dict[str, Any] = {"output_bias": "zero", "encoder_l2": 0.0, "decoder_l2": 0.0}
OUTPUT_BIASES = ("zero", "data")


class Parts(NamedTuple):
    """The parts of a model, made of their tables before the data are known."""

    encoder: Any
    likelihood: likelihoods.Likelihood
    prior: priors.Prior
    posterior: posteriors.Posterior
    objective: Any


def make_parts(config: RunConfig) -> Parts:
    """The parts that a configuration asks for, so that a mistake in an option is found before the data are loaded.

    Raises:
        UserError: if a kind or an option is unknown, or a part refuses a value.
    """
    names = [name for name in Parts._fields if name != "encoder"]
    return Parts(_encoder(config), **{name: part(name, getattr(config.model, name)) for name in names})


def build_model(config: RunConfig, data: Data, parts: Parts | None = None) -> VAE:
    """An untrained model for these data, built.

    Args:
        config: the configuration of the run.
        data: the data of the run.
        parts: what `make_parts` returned for the configuration; made here by default.

    Raises:
        UserError: if a part refuses one of its options, or the networks cannot take the images.
    """
    training = config.training
    parts = make_parts(config) if parts is None else parts
    objective = parts.objective
    if training.beta_warmup_epochs > 0:
        steps = max(1, round(training.beta_warmup_epochs * steps_an_epoch(data)))
        objective = objective.with_beta(objectives.LinearWarmup(objective.beta, steps))
    vae = VAE(
        encoder=parts.encoder,
        decoder=_decoder(config, parts, data),
        objective=objective,
        likelihood=parts.likelihood,
        prior=parts.prior,
        posterior=parts.posterior,
        seed=config.seed,
        dtype=training.precision,
    )
    vae.build((None, *data.info.image_shape))
    return vae


def resolved(config: RunConfig) -> RunConfig:
    """The configuration with every option of every part, those left to its default as well.

    config.json has it so: a later version with other defaults goes on as this one began.
    """
    tables = {}
    for name in TABLES:
        own: PartConfig = getattr(config.model, name)
        defaults = {key: value for key, value in options_of(_class_of(name, own.kind)).items() if value is not None}
        tables[name] = {"kind": own.kind, **(OF_EVERY_NETWORK if name == "network" else {}), **defaults, **own.options}
    model = ModelConfig.model_validate({"latent_dim": config.model.latent_dim, **tables})
    return config.model_copy(update={"model": model})


def part(name: str, table: PartConfig, **further: Any) -> Any:
    """A part from its table in the configuration.

    Args:
        name: which part, a key of `TABLES`.
        table: its kind and options.
        **further: arguments that are no options of a recipe.

    Raises:
        UserError: if the kind or an option is unknown, or the part refuses a value.
    """
    kind = _class_of(name, table.kind)
    known = options_of(kind)
    for option in table.options:
        if option not in known:
            _refuse_option(name, table.kind, option, known)
    try:
        return kind(**table.options, **further)
    except (ValueError, TypeError) as error:
        raise UserError(f"model.{name}: {str(error).splitlines()[0]}") from error


def _refuse_option(name: str, kind: str, option: str, known: Any) -> NoReturn:
    known = [*known, *(OF_EVERY_NETWORK if name == "network" else ())]
    if not known:
        raise UserError(f"Expected no options for model.{name} {kind!r}. Received {option!r}.")
    raise unknown(f"option of model.{name} {kind!r}:", option, known)


def options_of(kind: type) -> dict[str, Any]:
    """The options of a part by name, with their defaults."""
    return {name: default for name, default in _arguments(kind)[0].items() if name not in NOT_OPTIONS}


def _arguments(kind: type) -> tuple[dict[str, Any], bool]:
    """The named arguments of a constructor and of those it passes others on to, and whether Keras takes the rest."""
    found: dict[str, Any] = {}
    for cls in kind.__mro__:
        if "__init__" not in vars(cls):
            continue
        if cls.__module__.partition(".")[0] == "keras":
            return found, True
        parameters = list(inspect.signature(cls).parameters.values())
        for each in parameters:
            if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY):
                found.setdefault(each.name, None if each.default is each.empty else each.default)
        if not any(each.kind is each.VAR_KEYWORD for each in parameters):
            break
    return found, False


def _class_of(name: str, kind: str) -> type:
    """The class of a part by its name in a recipe."""
    table, base = TABLES[name]
    if ":" not in kind:
        if kind not in table:
            raise UserError(f"{unknown(f'model.{name}', kind, table)} A class of yours is MODULE:CLASS, with --import.")
        return table[kind]
    found = imported.find(kind)
    if not isinstance(found, type) or not issubclass(found, base):
        raise UserError(f"Expected model.{name} to be a class made of {base.__name__}. {kind!r} is not one.")
    if keras.saving.get_registered_name(found) == found.__name__:
        raise UserError(
            f"Expected {kind!r} to be registered with Keras, which a saved model needs. Put "
            f'@keras.saving.register_keras_serializable("{kind.partition(":")[0]}") above the class.'
        )
    return found


def _common(config: RunConfig) -> dict[str, Any]:
    """The options that every network has, checked."""
    options = config.model.network.options
    common = {name: options.get(name, default) for name, default in OF_EVERY_NETWORK.items()}
    if common["output_bias"] not in OUTPUT_BIASES:
        raise unknown("model.network.output_bias", common["output_bias"], OUTPUT_BIASES)
    for name in ("encoder_l2", "decoder_l2"):
        if isinstance(common[name], bool) or not isinstance(common[name], int | float) or common[name] < 0:
            raise UserError(f"Expected model.network.{name} to be a number of at least 0. Received {common[name]!r}.")
    return common


def _encoder(config: RunConfig) -> Any:
    """The encoder that a configuration asks for."""
    table, common = config.model.network, _common(config)
    own = {name: value for name, value in table.options.items() if name not in OF_EVERY_NETWORK}
    named, passes_on = _arguments(_class_of("network", table.kind))
    further: dict[str, Any] = {"seed": config.seed} if "seed" in named else {}
    if passes_on or "dtype" in named:
        further["dtype"] = config.training.precision
    if common["encoder_l2"] > 0:
        further.update(_l2(common["encoder_l2"]))
    encoder = part("network", PartConfig(kind=table.kind, **own), latent_dim=config.model.latent_dim, **further)
    if not hasattr(encoder, "mirror"):
        raise UserError(
            f"Expected model.network {table.kind!r} to have a method mirror(image_shape, output_bias, **options) that "
            "returns the decoder."
        )
    return encoder


def _decoder(config: RunConfig, parts: Parts, data: Data) -> Any:
    """The decoder that mirrors the encoder of a run."""
    common, image_shape = _common(config), tuple(data.info.image_shape)
    bias = networks.logit_of_mean(data.pixel_mean) if common["output_bias"] == "data" else None
    penalized = common["encoder_l2"] > 0 or common["decoder_l2"] > 0  # a decoder takes the encoder's over by default
    options = _l2(common["decoder_l2"]) if penalized else {}
    wanted = tuple(parts.likelihood.parameters_shape(image_shape))
    return networks.mirrored(parts.encoder, image_shape, wanted, bias, **options)


def _l2(strength: float) -> dict[str, Any]:
    regularizer = keras.regularizers.L2(strength) if strength > 0 else None
    return {"kernel_regularizer": regularizer, "bias_regularizer": regularizer}


def steps_an_epoch(data: Data) -> int:
    """Number of optimizer steps per epoch."""
    return int(data.train.cardinality())


def build_optimizer(config: RunConfig, steps: int) -> keras.optimizers.Optimizer:
    """The optimizer with its learning-rate schedule.

    Args:
        config: of the run.
        steps: optimizer steps per epoch.

    Raises:
        UserError: if the schedule cannot have a warm-up.
    """
    training = config.training
    total = training.epochs * steps
    warmup = min(round(training.warmup_epochs * steps), total // 2)
    rate: Any = training.learning_rate
    schedules = keras.optimizers.schedules
    if training.schedule == "exponential":
        if warmup:
            raise UserError("training.warmup_epochs goes with schedule='constant' or 'cosine', not with 'exponential'.")
        rate = schedules.ExponentialDecay(rate, total, training.final_learning_rate / rate)
    elif training.schedule == "cosine" or warmup:
        # A cosine from the rate to itself is a constant: Keras's only schedule with a warm-up serves both.
        end = training.final_learning_rate / rate if training.schedule == "cosine" else 1.0
        if warmup:
            rate = schedules.CosineDecay(0.0, total - warmup, alpha=end, warmup_target=rate, warmup_steps=warmup)
        else:
            rate = schedules.CosineDecay(rate, total, alpha=end)
    return keras.optimizers.get({"class_name": training.optimizer, "config": {"learning_rate": rate}})
