"""From a configuration to an untrained model and its optimizer. Each part checks the options in its own table."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from kvae.data import Data
from kvae.internal import memory, user_files
from kvae.internal.errors import UserError, unknown
from kvae.internal.tensorflow import keras, tf
from kvae.internal.visible import shown
from kvae.model import likelihoods, networks, objectives, posteriors, priors
from kvae.model.vae import VAE
from kvae.training.config import ModelConfig, PartConfig, RunConfig

# For each part of the model: the classes by the names that a recipe may use, and their base class.
TABLES: dict[str, tuple[Mapping[str, type], type]] = {
    "network": (networks.NETWORKS, keras.Model),
    "likelihood": (likelihoods.LIKELIHOODS, likelihoods.Likelihood),
    "prior": (priors.PRIORS, priors.Prior),
    "posterior": (posteriors.POSTERIORS, posteriors.Posterior),
    "objective": (objectives.OBJECTIVES, objectives.Objective),
}
# Arguments of constructors that are not options of a recipe: the run or another key of the configuration sets them.
NOT_OPTIONS = {"latent_dim", "seed", "dtype", "sizes", "name", "trainable", "kernel_regularizer", "bias_regularizer"}
NOT_OPTIONS |= {"changed_layers", "condition_shape"}  # of a saved network; of a conditional model
# The options that every network has, with their defaults.
NETWORK_DEFAULTS: dict[str, Any] = {"output_bias": "zero", "encoder_l2": 0.0, "decoder_l2": 0.0}
NETWORK_MEANINGS = {
    "output_bias": 'Initial biases of the decoder\'s last layer: "zero", or "data" to begin with the mean image.',
    "encoder_l2": "L2 penalty of the encoder: this number times the sum of its squared weights is added to the loss.",
    "decoder_l2": "L2 penalty of the decoder: this number times the sum of its squared weights is added to the loss.",
}
# Numbers that an optimizer stores per weight.
SLOTS = {"adam": 2, "adamw": 2, "adamax": 2, "nadam": 2, "lion": 1, "muon": 1, "rmsprop": 1, "sgd": 0}
# Options of an optimizer that differ from the defaults of Keras: its weight decay is for language models.
OPTIMIZER_OPTIONS = {"muon": {"weight_decay": 0.0, "adam_weight_decay": 0.0}}
OUTPUT_BIASES = ("zero", "data")


class Parts(NamedTuple):
    """The parts of a model that can be made before the data are loaded."""

    encoder: Any
    likelihood: likelihoods.Likelihood
    prior: priors.Prior
    posterior: posteriors.Posterior
    objective: Any


def make_parts(config: RunConfig) -> Parts:
    """Makes the parts that a configuration names. A wrong option is thus reported before the data are loaded.

    Raises:
        UserError: if a kind or an option is unknown, or if a part does not accept a value.
    """
    names = [name for name in Parts._fields if name != "encoder"]
    return Parts(_encoder(config), **{name: part(name, getattr(config.model, name)) for name in names})


def build_model(config: RunConfig, data: Data, parts: Parts | None = None) -> VAE:
    """Makes and builds an untrained model.

    Args:
        config: the configuration of the run.
        data: the data of the run.
        parts: the result of `make_parts` for the configuration. By default the parts are made here.

    Raises:
        UserError: if a part does not accept one of its options, if the networks do not fit the images, or if the
            training cannot fit into the memory of this machine.
    """
    training = config.training
    parts = make_parts(config) if parts is None else parts
    condition = None if config.data.condition is None else data.info.classes
    if condition is not None:
        networks.give_condition([parts.encoder], (condition,))
    objective = parts.objective
    if training.beta_warmup_epochs > 0:
        steps = max(1, round(training.beta_warmup_epochs * steps_per_epoch(data)))
        objective = objective.with_beta(objectives.LinearWarmup(objective.beta, steps))
    objective.build(data.info.sizes["train"])  # fit does not know the number of images that are streamed
    decoder = _decoder(config, parts, data)
    if condition is not None:
        networks.give_condition([decoder], (condition,))
    if condition is not None and not any(map(networks.takes_condition, (parts.encoder, decoder))):
        raise UserError(
            f"Expected model.network {config.model.network.kind!r} to take the label, because of data.condition. "
            "Its call has no keyword condition, and neither has that of its decoder."
        )
    vae = VAE(
        encoder=parts.encoder,
        decoder=decoder,
        objective=objective,
        likelihood=parts.likelihood,
        prior=parts.prior,
        posterior=parts.posterior,
        condition=condition,
        seed=config.seed,
        dtype=training.precision,
    )
    batch = config.data.batch_size // tf.distribute.get_strategy().num_replicas_in_sync
    with memory.training(
        slots=SLOTS[training.optimizer] + (training.average is not None),
        batch=batch,
        draws=objective.samples,
        number=4 if training.precision == "float32" else 2,
        gpus=len(tf.config.list_physical_devices("GPU")),
    ):
        vae.build((None, *data.info.image_shape))
    return vae


def resolved(config: RunConfig) -> RunConfig:
    """The configuration with every option of every part, including those that have their default value.

    config.json contains this form, so that a later version of kvae with other defaults resumes the run correctly.
    """
    tables = {}
    for name in TABLES:
        table: PartConfig = getattr(config.model, name)
        common = NETWORK_DEFAULTS if name == "network" else {}
        defaults = {key: value for key, value in options_of(_class_of(name, table.kind)).items() if value is not None}
        tables[name] = {"kind": table.kind, **common, **defaults, **table.options}
    model = ModelConfig.model_validate({"latent_dim": config.model.latent_dim, **tables})
    return config.model_copy(update={"model": model})


def part(name: str, table: PartConfig, **further: Any) -> Any:
    """Makes a part of the model from its table in the configuration.

    Args:
        name: the name of the part, a key of `TABLES`.
        table: the kind and the options of the part.
        **further: arguments of the constructor that are not options of a recipe.

    Raises:
        UserError: if the kind or an option is unknown, or if the part does not accept a value.
    """
    cls = _class_of(name, table.kind)
    valid = options_of(cls)
    for option in table.options:
        if option not in valid:
            raise _unknown_option(name, table.kind, option, valid)
    try:
        return cls(**table.options, **further)
    except (ValueError, TypeError) as error:
        raise UserError(f"model.{name}: {str(error).splitlines()[0]}") from error


def _unknown_option(name: str, kind: str, option: str, valid: Iterable[str]) -> UserError:
    """The error for an option that a part does not have."""
    valid = [*valid, *(NETWORK_DEFAULTS if name == "network" else ())]
    if not valid:
        return UserError(f"Expected no options for model.{name} {kind!r}. Received {option!r}.")
    return unknown(f"option of model.{name} {kind!r}:", option, valid)


def options_of(cls: type) -> dict[str, Any]:
    """The options of a part by name, with their defaults."""
    return {name: default for name, default in _arguments(cls)[0].items() if name not in NOT_OPTIONS}


def _arguments(cls: type) -> tuple[dict[str, Any], bool]:
    """The named arguments that a class accepts, with their defaults, and whether it passes others on to Keras.

    A constructor with `**kwargs` passes other arguments on to the constructor of its base class, which is then
    inspected as well; but not if the base class is a part itself: a subclass decides the options of that.
    """
    arguments: dict[str, Any] = {}
    constructors = [base for base in cls.__mro__ if "__init__" in vars(base)]
    for base in constructors:
        if base is not constructors[0] and keras.saving.get_registered_name(base) != base.__name__:
            continue
        if base.__module__.partition(".")[0] == "keras":
            return arguments, True
        parameters = list(inspect.signature(base).parameters.values())
        for parameter in parameters:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                default = None if parameter.default is parameter.empty else parameter.default
                arguments.setdefault(parameter.name, default)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return arguments, False


def _class_of(name: str, kind: str) -> type:
    """The class of a part by its name in a recipe."""
    table, base = TABLES[name]
    if ":" not in kind:
        if kind not in table:
            raise UserError(
                f"{unknown(f'model.{name}', kind, table)} For a class of your own, write MODULE:CLASS and give its "
                "file with --import."
            )
        return table[kind]
    cls = user_files.find(kind)
    if not isinstance(cls, type) or not issubclass(cls, base):
        raise UserError(f"Expected model.{name} to be a subclass of {base.__name__}. Received {kind!r}, which is not.")
    if keras.saving.get_registered_name(cls) == cls.__name__:
        raise UserError(
            f"Expected {kind!r} to be registered with Keras, because a saved model needs it. Put "
            f'@keras.saving.register_keras_serializable("{kind.partition(":")[0]}") above the class.'
        )
    return cls


def _common_options(config: RunConfig) -> dict[str, Any]:
    """The checked values of the options that every network has."""
    options = config.model.network.options
    common = {name: options.get(name, default) for name, default in NETWORK_DEFAULTS.items()}
    if common["output_bias"] not in OUTPUT_BIASES:
        raise unknown("model.network.output_bias", common["output_bias"], OUTPUT_BIASES)
    for name in ("encoder_l2", "decoder_l2"):
        if isinstance(common[name], bool) or not isinstance(common[name], int | float) or common[name] < 0:
            raise UserError(f"Expected model.network.{name} to be a number of at least 0. Received {common[name]!r}.")
    activation = options.get("activation", "")
    if not isinstance(activation, str):  # Keras would make any of its objects from a table
        raise UserError(f"Expected model.network.activation to be a name such as 'relu'. Received {shown(activation)}.")
    return common


def _encoder(config: RunConfig) -> Any:
    """The encoder that a configuration names."""
    table, common = config.model.network, _common_options(config)
    options = {name: value for name, value in table.options.items() if name not in NETWORK_DEFAULTS}
    arguments, passes_on_to_keras = _arguments(_class_of("network", table.kind))
    further: dict[str, Any] = {"seed": config.seed} if "seed" in arguments else {}
    if passes_on_to_keras or "dtype" in arguments:
        further["dtype"] = config.training.precision
    if common["encoder_l2"] > 0:
        further.update(_l2(common["encoder_l2"]))
    encoder = part("network", PartConfig(kind=table.kind, **options), latent_dim=config.model.latent_dim, **further)
    if not hasattr(encoder, "mirror"):
        raise UserError(
            f"Expected model.network {table.kind!r} to have a method mirror(image_shape, output_bias, **options) that "
            "returns the decoder."
        )
    return encoder


def _decoder(config: RunConfig, parts: Parts, data: Data) -> Any:
    """The decoder that mirrors the encoder of a run."""
    common, image_shape = _common_options(config), tuple(data.info.image_shape)
    bias = networks.logit_of_mean(data.pixel_mean) if common["output_bias"] == "data" else None
    # By default a decoder has the regularizers of its encoder, so those of the decoder are given if there are any.
    penalized = common["encoder_l2"] > 0 or common["decoder_l2"] > 0
    options = _l2(common["decoder_l2"]) if penalized else {}
    parameters_shape = tuple(parts.likelihood.parameters_shape(image_shape))
    return networks.mirrored(parts.encoder, image_shape, parameters_shape, bias, **options)


def _l2(strength: float) -> dict[str, Any]:
    regularizer = keras.regularizers.L2(strength) if strength > 0 else None
    return {"kernel_regularizer": regularizer, "bias_regularizer": regularizer}


def steps_per_epoch(data: Data) -> int:
    """The number of optimizer steps per epoch."""
    return int(data.train.cardinality())


def build_optimizer(config: RunConfig, steps: int) -> keras.optimizers.Optimizer:
    """Makes the optimizer with its learning-rate schedule and its average of the weights.

    Args:
        config: the configuration of the run.
        steps: the number of optimizer steps per epoch.

    Raises:
        UserError: if the configuration has a warm-up, but its schedule does not support one.
    """
    training = config.training
    total = training.epochs * steps
    warmup = min(round(training.warmup_epochs * steps), total // 2)
    rate: Any = training.learning_rate
    schedules = keras.optimizers.schedules
    if training.schedule == "exponential":
        if warmup:
            raise UserError(
                "Expected training.warmup_epochs only with training.schedule='constant' or 'cosine'. Received it with "
                "'exponential'."
            )
        rate = schedules.ExponentialDecay(rate, total, training.final_learning_rate / rate)
    elif training.schedule == "cosine" or warmup:
        # CosineDecay is the only schedule of Keras with a warm-up. With alpha = 1 the rate stays constant after it.
        end = training.final_learning_rate / rate if training.schedule == "cosine" else 1.0
        if warmup:
            rate = schedules.CosineDecay(0.0, total - warmup, alpha=end, warmup_target=rate, warmup_steps=warmup)
        else:
            rate = schedules.CosineDecay(rate, total, alpha=end)
    options: dict[str, Any] = dict(OPTIMIZER_OPTIONS.get(training.optimizer, {}))
    if training.average is not None:
        options |= {"use_ema": True, "ema_momentum": training.average}
    return keras.optimizers.get({"class_name": training.optimizer, "config": {"learning_rate": rate, **options}})
