"""The typed configuration of a run: TOML in, JSON beside the results, every value checked, unknown keys refused."""

import difflib
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from kvae.internal.errors import UserError, unknown
from kvae.training.tables import KINDS, SHORT, plain, with_tables


def _no_bool(value: Any) -> Any:
    """Python and Pydantic take True for 1; a configuration should not."""
    if isinstance(value, bool):
        raise PydanticCustomError("number", "expected a number")
    return value


Whole = Annotated[int, Field(ge=1), BeforeValidator(_no_bool)]
Seed = Annotated[int, Field(ge=0, lt=2**31), BeforeValidator(_no_bool)]
Real = Annotated[float, BeforeValidator(_no_bool)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(_Section):
    """Where the images come from and how they become model input; see `kvae.data.load`."""

    source: str = "mnist5k"
    train: str = "train"
    validation: str | None = None
    test: str = "test"
    binarize: Literal["threshold", "stochastic", "fixed", "none"] = "threshold"
    threshold: Real = Field(0.5, ge=0, lt=1)
    batch_size: Whole = 100
    drop_remainder: bool = False
    streaming: bool = False
    evaluation_seed: Seed = 0


class PartConfig(BaseModel):
    """A part of the model, such as the table `[model.prior]`: its kind, and options that the part itself checks.

    Attributes:
        kind: a name in the part's table, or `module:Name` of a file that was imported with `--import`.
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
    """The size of the latent space and the parts of the model; see `kvae.VAE`."""

    latent_dim: Whole = 2
    network: PartConfig = PartConfig(kind=KINDS["network"])
    likelihood: PartConfig = PartConfig(kind=KINDS["likelihood"])
    prior: PartConfig = PartConfig(kind=KINDS["prior"])
    posterior: PartConfig = PartConfig(kind=KINDS["posterior"])
    objective: PartConfig = PartConfig(kind=KINDS["objective"])

    @model_validator(mode="before")
    @classmethod
    def _from_short_keys(cls, values: Any) -> Any:
        return with_tables(values) if isinstance(values, dict) else values


class TrainingConfig(_Section):
    """How Keras `fit` is called."""

    epochs: Whole = 10
    optimizer: Literal["adam", "adamw", "adamax", "rmsprop", "sgd"] = "adam"
    learning_rate: Real = Field(1e-3, gt=0)
    schedule: Literal["constant", "cosine", "exponential"] = "constant"
    final_learning_rate: Real = Field(0.0, ge=0)  # where the schedule ends
    warmup_epochs: Real = Field(0.0, ge=0)  # the learning rate grows from 0, for half of the training at most
    beta_warmup_epochs: Real = Field(0.0, ge=0)  # beta grows from 0
    early_stopping: Whole | None = None  # epochs without a better val_elbo
    monitor_test: bool = False  # where there is no validation set, show the test set after every epoch
    monitor_every: Whole = 1  # epochs between two looks at the validation or test set
    show_batch_seconds: Annotated[Real, Field(ge=0)] | None = None  # print the loss of a random batch now and then
    plots: tuple[str, ...] = ()  # kinds of pictures to draw
    plots_every: Whole | None = None  # epochs; by default they are drawn at the end only
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    jit_compile: bool | Literal["auto"] = "auto"  # XLA; auto: where that is faster
    steps_per_execution: Whole | Literal["auto"] = "auto"  # batches between two calls of batch callbacks
    checkpoint_seconds: Real = Field(10.0, ge=0)  # least time between two checkpoints
    tensorboard: bool = False


class RunConfig(_Section):
    """One training, whole. The same configuration and machine give the same weights, bit for bit."""

    name: str = "run"
    description: str = ""
    seed: Seed = 0
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
            raise ValueError("training.early_stopping needs training.monitor_every=1, a val_elbo after every epoch")
        if training.schedule == "exponential" and training.final_learning_rate == 0:
            raise ValueError("training.schedule='exponential' needs training.final_learning_rate above 0")
        if training.final_learning_rate > 0 and training.schedule == "constant":
            raise ValueError("training.final_learning_rate needs training.schedule='cosine' or 'exponential'")
        if training.beta_warmup_epochs > 0 and self.model.objective.kind != "elbo":
            raise ValueError("training.beta_warmup_epochs needs model.objective='elbo', whose beta it changes")
        return self

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without what is None."""
        return self.model_dump(mode="json", exclude_none=True)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunConfig":
        """Checks and converts nested values.

        Raises:
            UserError: one line a mistake, with the key, what was expected and what was received.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UserError("; ".join(_explain(cls, mistake) for mistake in error.errors())) from None


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """TOML as nested dictionaries, or a `UserError` with the line."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{where} is not valid TOML: {error}.") from error


def _explain(cls: type[BaseModel], mistake: Any) -> str:
    path = [str(part) for part in mistake["loc"]]
    key = ".".join(path) or "configuration"
    if mistake["type"] == "extra_forbidden":
        return str(unknown("key", key, keys(cls))).rstrip(".")
    if mistake["type"] == "value_error":
        return str(mistake["ctx"]["error"])
    return f"{key}: {mistake['msg'][0].lower()}{mistake['msg'][1:]}. Received {mistake['input']!r}"


def keys(cls: type[BaseModel] = RunConfig, prefix: str = "") -> list[str]:
    """Every dotted key that a configuration may have, but for the options of parts, which these check themselves."""
    found = []
    for name, info in cls.model_fields.items():
        annotation = info.annotation
        if annotation is PartConfig or not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            found.append(prefix + name)
        else:
            found += keys(annotation, f"{prefix}{name}.")
    return [*found, *(f"{prefix}{name}" for name in SHORT)] if cls is ModelConfig else found


def recipes() -> dict[str, str]:
    """The recipes that ship: name -> TOML text."""
    folder = resources.files("kvae.training") / "recipes"
    found = [entry for entry in folder.iterdir() if entry.name.endswith(".toml")]
    return {entry.name.removesuffix(".toml"): entry.read_text(encoding="utf-8") for entry in sorted(found, key=str)}


def load_values(recipe: str) -> dict[str, Any]:
    """The values of a recipe that ships, or of a TOML file of the user's.

    Raises:
        UserError: neither, with the nearest match.
    """
    known = recipes()
    if recipe in known:
        return {"name": recipe, **parse_toml(known[recipe], f"recipe {recipe}")}
    path = Path(recipe)
    if path.suffix == ".toml":
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"Could not read {recipe}: {error}.") from error
        return {"name": path.stem, **parse_toml(text, recipe)}
    raise unknown("recipe", recipe, known)


def override(values: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Nested values with dotted settings in their place.

    Args:
        values: as a recipe has them.
        settings: new values by key, e.g. `{"model.prior.kind": "mixture", "model.prior.components": 10}`. Another kind
            of a part starts with its default options, because those of a recipe belong to the kind that it had.

    Raises:
        UserError: if a key is unknown, with the nearest match.
    """
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
                raise UserError(f"Expected [{'.'.join(path[:-1])}] to be a table of keys. Received {inner!r}.")
            section[name] = section = dict(inner)
        before, value = section.get(path[-1]), settings[key]
        if path[0] == "model" and path[-1] in KINDS and isinstance(value, str):
            same = isinstance(before, dict) and before.get("kind") == value
            value = before if same else {"kind": value}
        section[path[-1]] = value
    return result


def _options_last(key: str) -> bool:
    """Whether a key is an option of a part: its kind, which other settings choose, comes first."""
    return key.removeprefix("model.").partition(".")[0] in (*KINDS, *SHORT) and not (
        key.removeprefix("model.") in KINDS or key.endswith(".kind")
    )


def _path_of(key: str) -> list[str]:
    """The names from the whole configuration down to a key."""
    known, path = keys(), key.split(".")
    if len(path) == 2 and path[0] == "model" and path[1] in SHORT:
        return ["model", SHORT[path[1]][0], path[1]]
    if key in known or (len(path) == 3 and path[0] == "model" and path[1] in KINDS and path[2]):
        return path
    last = [name for name in known if name.rsplit(".", 1)[-1] == path[-1]]
    near = last or difflib.get_close_matches(key, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UserError(f"Unknown key {key!r}.{hint} Expected one of: {', '.join(known)}.")


def parse_setting(text: str) -> tuple[str, Any]:
    """`key=value` with the value read as TOML, or as a plain string where it is not TOML.

    Raises:
        UserError: no equals sign.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"Expected key=value, e.g. model.beta=1.5. Received {text!r}.")
    if "\n" in text:
        raise UserError(f"Expected one key=value. Received several lines: {text!r}.")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()
