"""The typed configuration of a run: it is read from TOML and written to config.json; keys and values are checked."""

import difflib
import re
import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from kvae.internal import reading
from kvae.internal.errors import MOST, UserError, unknown
from kvae.internal.next_command import kvae_command
from kvae.internal.visible import shortened, shown
from kvae.training.names import check_name
from kvae.training.part_tables import KINDS, SHORT, plain, with_tables

SHOWN = 5  # mistakes in a message
_TOO_LONG = "a number has too many digits"
_TOO_DEEP = "its values are nested too deeply"


def _no_null(text: str) -> str:
    """Rejects a null character, which no path may contain."""
    if "\0" in text:
        raise PydanticCustomError("null", "expected a text without null characters")
    return text


def _no_bool(value: Any) -> Any:
    """Rejects True and False, which Python and Pydantic accept as 1 and 0."""
    if isinstance(value, bool):
        raise PydanticCustomError("number", "expected a number")
    return value


Whole = Annotated[int, Field(ge=1, le=MOST), BeforeValidator(_no_bool)]
Seed = Annotated[int, Field(ge=0, le=MOST), BeforeValidator(_no_bool)]
Real = Annotated[float, BeforeValidator(_no_bool)]


class _Section(BaseModel):
    """The text below each key is its meaning, as `kvae keys` prints it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class DataConfig(_Section):
    """The source of the images and their preprocessing, as in `kvae.data.load`."""

    source: Annotated[str, AfterValidator(_no_null)] = "mnist5k"
    """The data: mnist5k, a TFDS dataset such as mnist, idx:DIR, csv:FILE, npz:FILE or images:DIR."""
    train: str = "train"
    """The images for training: a split, or a slice of a split, e.g. train[:90%]."""
    validation: str | None = None
    """The images that are evaluated during training, e.g. train[90%:]; none by default."""
    test: str = "test"
    """The images of the final evaluation."""
    binarize: Literal["threshold", "stochastic", "fixed", "none"] = "threshold"
    """How grey pixels become 0 or 1. threshold: 1 if they are above data.threshold; stochastic: at random, with the
    grey value as the probability of 1, drawn again in every epoch; fixed: at random, but drawn only once; none: they
    stay grey."""
    threshold: Real = Field(0.5, ge=0, lt=1)
    """The grey value above which a pixel is 1, if data.binarize is threshold."""
    batch_size: Whole = 100
    """The number of images in a batch."""
    drop_remainder: bool = False
    """Whether to leave out the last batch of an epoch if it is not full."""
    streaming: bool | Literal["decoded"] = False
    """Whether to read the images from disk in batches, for datasets that do not fit into memory. decoded: they are
    decoded once, into a file that is mapped into memory; trainings are then as fast as with images in memory."""
    evaluation_seed: Seed = 0
    """The seed with which validation and test images are binarized."""
    condition: Literal["label"] | None = None
    """label: the model is conditional, p(x|z, y), and its condition y is the class of an image. By default it has
    none."""
    order: Literal["shuffled", "source"] = "shuffled"
    """shuffled: images whose order means nothing, such as the pictures of a folder, are put into a random order, which
    is the same in every run; source: all images keep the order of the files."""


class PartConfig(BaseModel):
    """The table of a part of the model, such as `[model.prior]`: its kind and its options, which the part checks.

    Attributes:
        kind: a name in the part's table of classes, or `module:Name` for a class in a file that was imported with
            `--import`.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else plain(value)

    @property
    def options(self) -> dict[str, Any]:
        """The options by name, without the kind."""
        return dict(self.model_extra or {})


class ModelConfig(_Section):
    """The size of the latent space and the parts of the model, as in `kvae.VAE`."""

    latent_dim: Whole = 2
    """The number of latent dimensions, the length of z."""
    network: PartConfig = PartConfig(kind=KINDS["network"])
    """The kind of the encoder and of the decoder, which has the same layers in reverse."""
    likelihood: PartConfig = PartConfig(kind=KINDS["likelihood"])
    """The kind of p(x|z): how the pixels of an image vary around the mean that the decoder predicts from z."""
    prior: PartConfig = PartConfig(kind=KINDS["prior"])
    """The kind of p(z): how z is distributed before an image is seen. New images begin with a draw from it."""
    posterior: PartConfig = PartConfig(kind=KINDS["posterior"])
    """The kind of q(z|x): how z is distributed for one image. The encoder predicts its parameters."""
    objective: PartConfig = PartConfig(kind=KINDS["objective"])
    """The kind of the loss that training minimises."""

    @model_validator(mode="before")
    @classmethod
    def _from_short_keys(cls, values: Any) -> Any:
        return with_tables(values) if isinstance(values, dict) else values


class TrainingConfig(_Section):
    """How the model is trained with Keras `fit`."""

    epochs: Whole = 10
    """The number of epochs, each of which shows every training image once."""
    optimizer: Literal["adam", "adamw", "adamax", "nadam", "lion", "muon", "rmsprop", "sgd"] = "adam"
    """The optimizer of Keras. muon, which makes the updates of a matrix orthogonal, needs fewer steps with batches of
    about 1,000 images; it has no weight decay here."""
    learning_rate: Real = Field(1e-3, gt=0)
    """The learning rate, after the warm-up and before the schedule lowers it."""
    schedule: Literal["constant", "cosine", "exponential"] = "constant"
    """How the learning rate changes during training."""
    final_learning_rate: Real = Field(0.0, ge=0)
    """The learning rate at the end of the schedule."""
    warmup_epochs: Real = Field(0.0, ge=0)
    """The number of epochs at the start in which the learning rate grows from 0; at most half of all epochs."""
    beta_warmup_epochs: Real = Field(0.0, ge=0)
    """The number of epochs at the start in which beta, the weight of the KL term, grows from 0 to its value."""
    average: Annotated[Real, Field(gt=0, lt=1)] | None = None
    """The momentum of a moving average of the weights, e.g. 0.999, which averages over about 1,000 steps; a training
    should have several times as many. The model is evaluated, drawn and saved with the averaged weights; training goes
    on with its own. None by default."""
    early_stopping: Whole | None = None
    """Training stops after this number of epochs without a better ELBO of the validation images, and keeps the best
    weights. By default it does not stop early."""
    monitor_test: bool = False
    """Whether to show the ELBO of the test images during training if there are no validation images."""
    monitor_every: Whole = 1
    """The number of epochs between two evaluations of the validation or test images."""
    show_batch_seconds: Annotated[Real, Field(ge=0)] | None = None
    """The seconds between two printed losses of a random training batch. By default none are printed."""
    plots: tuple[str, ...] = ()
    """The kinds of figures to draw, as in `kvae plot`. A kind can have options: `lattice(n=50)`."""
    plots_every: Whole | None = None
    """The number of epochs between two drawings of the figures. By default they are drawn only at the end."""
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    """The precision of the networks; all densities are computed in float32."""
    jit_compile: bool | Literal["auto"] = "auto"
    """Whether to compile with XLA; "auto" does so if this is faster."""
    steps_per_execution: Whole | Literal["auto"] = "auto"
    """The number of batches between two calls of the batch callbacks of Keras."""
    checkpoint_seconds: Real = Field(10.0, ge=0)
    """The least number of seconds between two checkpoints, from which `kvae train --resume` continues."""
    tensorboard: bool = False
    """Whether to write logs for TensorBoard into the folder of the run."""


class RunConfig(_Section):
    """The whole configuration of a run. On one machine, the same configuration gives the same weights bit for bit."""

    name: str = "run"
    """The name of the run and of its folder; by default that of the recipe."""
    description: str = ""
    """What the run is for, in one sentence."""
    seed: Seed = 0
    """The seed of the initial weights, of the order of the images and of all random numbers of the training."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _check_together(self) -> "RunConfig":
        training = self.training
        if training.early_stopping is not None and self.data.validation is None:
            raise ValueError(
                "training.early_stopping needs data.validation, e.g. data.train='train[:90%]' and "
                "data.validation='train[90%:]'; stopping on the test set would make its ELBO too good"
            )
        if training.early_stopping is not None and training.monitor_every > 1:
            raise ValueError(
                "training.early_stopping needs training.monitor_every=1, so that the ELBO is measured after every epoch"
            )
        if training.schedule == "exponential" and training.final_learning_rate == 0:
            raise ValueError("training.schedule='exponential' needs training.final_learning_rate above 0")
        if training.final_learning_rate > 0 and training.schedule == "constant":
            raise ValueError("training.final_learning_rate needs training.schedule='cosine' or 'exponential'")
        if training.beta_warmup_epochs > 0 and self.model.objective.kind != "elbo":
            raise ValueError("training.beta_warmup_epochs needs model.objective='elbo', whose beta it changes")
        if training.beta_warmup_epochs > 0 and isinstance(self.model.objective.options.get("beta"), dict):
            raise ValueError("training.beta_warmup_epochs needs model.beta to be a number. Received a schedule too")
        return self

    def to_dict(self) -> dict[str, Any]:
        """The configuration as nested dictionaries for JSON, without the keys whose value is None."""
        return self.model_dump(mode="json", exclude_none=True)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunConfig":
        """Checks nested dictionaries and makes the configuration from them.

        Raises:
            UserError: if a key is unknown or a value is not valid. The message names each mistake.
        """
        try:
            return cls.model_validate(values)
        except RecursionError:
            raise UserError(f"The configuration is not valid: {_TOO_DEEP}.") from None
        except ValidationError as error:
            mistakes = [_explain(cls, mistake) for mistake in error.errors()[:SHOWN]]
            more = error.error_count() - len(mistakes)
            raise UserError("; ".join(mistakes) + (f"; and {more} more mistakes" if more else "")) from None


def of_run(values: Any) -> RunConfig:
    """The configuration in a file of a run, which means what it meant in the version of kvae that wrote it.

    Args:
        values: the configuration as JSON. Runs of earlier versions have no `data.order`: they have that of the source.

    Raises:
        UserError: if the configuration is not valid.
    """
    if isinstance(values, dict):
        values = dict(values)
        if isinstance(values.get("data"), dict):
            values["data"] = {"order": "source", **values["data"]}
        if isinstance(values.get("model"), dict):
            values["model"] = with_tables(values["model"], of_version_0_2=True)
    return RunConfig.from_dict(values)


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """Reads TOML.

    Args:
        text: the TOML.
        name: the name of the file, for the error message.

    Raises:
        UserError: if the text is not valid TOML, which includes a number of more than 4,300 digits and values that are
            nested too deeply. The message has the number of the line.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{name} is not valid TOML: {error}.") from error
    except ValueError as error:
        raise UserError(f"{name} is not valid TOML: {_TOO_LONG}.") from error
    except RecursionError as error:
        raise UserError(f"{name} is not valid TOML: {_TOO_DEEP}.") from error


def _explain(cls: type[BaseModel], mistake: Any) -> str:
    """The message for one mistake that Pydantic has found."""
    path = [str(part) for part in mistake["loc"]]
    key = ".".join(path) or "configuration"
    if mistake["type"] == "extra_forbidden":
        return str(_unknown_key(key)).rstrip(".")
    if mistake["type"] == "value_error":
        return str(mistake["ctx"]["error"])
    key = ".".join(part for part in path if part != "bool" and "[" not in part)  # without the members of a union
    message = "expected a table of keys" if mistake["type"] == "model_type" else mistake["msg"]
    hint = ""
    if mistake["type"] == "literal_error":
        expected = re.findall(r"'([^']*)'", mistake["ctx"]["expected"])
        near = difflib.get_close_matches(str(mistake["input"])[:200], expected, n=1)
        hint = f". Did you mean {near[0]!r}?" if near else ""
    return f"{key}: {message[0].lower()}{message[1:]}. Received {shown(mistake['input'])}{hint}"


def keys(cls: type[BaseModel] = RunConfig, prefix: str = "") -> list[str]:
    """All dotted keys of a configuration, without the options of the parts, which check these themselves.

    Args:
        cls: the configuration, or one of its sections.
        prefix: the text before each key: the name of the section and a dot.
    """
    result = []
    for name, info in cls.model_fields.items():
        annotation = info.annotation
        if annotation is PartConfig or not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            result.append(prefix + name)
        else:
            result += keys(annotation, f"{prefix}{name}.")
    return [*result, *(f"{prefix}{name}" for name in SHORT)] if cls is ModelConfig else result


def recipes() -> dict[str, str]:
    """The recipes that are part of kvae: their TOML by name."""
    folder = resources.files("kvae.training") / "recipes"
    entries = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".toml")), key=str)
    return {entry.name.removesuffix(".toml"): entry.read_text(encoding="utf-8") for entry in entries}


def load_values(recipe: str) -> dict[str, Any]:
    """Reads the values of a recipe.

    Args:
        recipe: the name of a recipe of kvae, or the path of a TOML file.

    Raises:
        UserError: if there is no such recipe or file, if the file is not valid TOML, or if the name of the recipe,
            which is by default that of the file, could not be the name of a folder.
    """
    available = recipes()
    if recipe in available:
        return {"name": recipe, **parse_toml(available[recipe], f"recipe {recipe}")}
    path = Path(recipe)
    if path.suffix == ".toml":
        values = {"name": path.stem, **parse_toml(reading.read_text(path), recipe)}
        check_name(values["name"])
        return values
    raise unknown("recipe", recipe, available)


def override(values: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Sets dotted keys in nested values.

    Args:
        values: the values of a recipe. They are not changed.
        settings: values by dotted key, e.g. `{"model.beta": 1.5, "model.prior.kind": "mixture",
            "model.prior.components": 10}`. Another kind of a part starts with its default options, because those of a
            recipe belong to the kind that it had.

    Returns:
        The nested values with the settings.

    Raises:
        UserError: if a key is unknown, for which the message suggests the nearest known key; or if two keys stand for
            the same one, such as `model.beta` and `model.objective.beta`.
    """
    settings = collected((key, key, value) for key, value in settings.items())
    result = {name: dict(value) if isinstance(value, dict) else value for name, value in values.items()}
    if isinstance(result.get("model"), dict) and any(key.startswith("model.") for key in settings):
        try:
            result["model"] = with_tables(result["model"])
        except ValueError as error:
            raise UserError(f"{error}.") from None
    for key in sorted(settings, key=_options_last):
        path = _path_of(key)
        if path[0] == "model" and path[-1] == "kind":  # the same as the name of the part
            path = path[:-1]
        section: Any = result
        for name in path[:-1]:
            inner = section.get(name, {})
            if not isinstance(inner, dict):
                raise UserError(f"Expected [{'.'.join(path[:-1])}] to be a table of keys. Received {shown(inner)}.")
            section[name] = section = dict(inner)
        before, value = section.get(path[-1]), settings[key]
        if path[0] == "model" and path[-1] in KINDS and isinstance(value, str):
            same = isinstance(before, dict) and before.get("kind") == value
            value = before if same else {"kind": value}
        section[path[-1]] = value
    return result


def collected(given: Iterable[tuple[str, str, Any]]) -> dict[str, Any]:
    """Settings by dotted key, of which no two give a value to the same key.

    Args:
        given: for each setting, how the user gave it, e.g. `--epochs 3`; its key; and its value.

    Raises:
        UserError: if a key is unknown or has two values, or if the name of a run is not valid. A short key and the key
            that it stands for are the same.
    """
    settings: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, key, value in given:
        for target in _targets(key, value):
            if target in origins:
                both = f"{shortened(origins[target], 100)} and {shortened(origin, 100)}"
                raise UserError(f"Expected one value for {target}. Received two: {both}.")
            origins[target] = origin
        settings[key] = check_name(value) if key == "name" else value
    return settings


def _targets(key: str, value: Any) -> list[str]:
    """The dotted keys to which a setting gives a value; a table has one for each of its entries."""
    path = _path_of(key)
    if path[0] == "model" and path[-1] in KINDS and len(path) == 2:
        names = value if isinstance(value, dict) else ["kind"]
        return [f"{key}.{name}" for name in names]
    return [".".join(path)]


def _options_last(key: str) -> bool:
    """Whether a key is an option of a part. The kind of a part must be set before its options."""
    return key.removeprefix("model.").partition(".")[0] in (*KINDS, *SHORT) and not (
        key.removeprefix("model.") in KINDS or key.endswith(".kind")
    )


def _path_of(key: str) -> list[str]:
    """The names of the sections that contain a key, and its own name."""
    valid, path = keys(), key.split(".")
    if len(path) == 2 and path[0] == "model" and path[1] in SHORT:
        return ["model", SHORT[path[1]][0], path[1]]
    if key in valid or (len(path) == 3 and path[0] == "model" and path[1] in KINDS and path[2]):
        return path
    raise _unknown_key(key)


def _unknown_key(key: str) -> UserError:
    """The error for a key that does not exist; a key of the same name in another section is the nearest."""
    valid, name = keys(), key.rsplit(".", 1)[-1]
    same_name = [other for other in valid if other.rsplit(".", 1)[-1] == name]
    return unknown("key", key, valid, same_name, f"To list all keys: {kvae_command('keys')}")


def parse_setting(text: str) -> tuple[str, Any]:
    """Reads `key=value`. The value is read as TOML, or taken as a string if it is not valid TOML.

    Raises:
        UserError: if the text has no key or no equals sign, has several lines, or has a value that cannot be read.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"Expected key=value, e.g. model.beta=1.5. Received {shown(text)}.")
    if "\n" in text:
        raise UserError(f"Expected one key=value. Received several lines: {shown(text)}.")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()
    except ValueError:
        raise UserError(f"Could not read the value of {shown(key.strip())}: {_TOO_LONG}.") from None
    except RecursionError:
        raise UserError(f"Could not read the value of {shown(key.strip())}: {_TOO_DEEP}.") from None
