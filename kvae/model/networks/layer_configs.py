"""The layers that a network makes in `build`, made again as they were when the network was saved.

Keras saves the configuration of each layer of a functional model: whether it trains, its dtype policy (which also says
how it is quantized), and its LoRA. For a subclass of `keras.Model` it saves none, so the networks do it here.
"""

from collections.abc import Mapping
from typing import Any


class LayerConfigs:
    """Makes the layers of a network in order, each from its saved configuration if there is one.

    It is no list or dictionary, because Keras would then save its layers a second time.

    Args:
        saved: configurations of layers, each by its number in the order in which the network makes them, as text.
    """

    def __init__(self, saved: Mapping[str, Any] | None = None) -> None:
        self._saved = dict(saved or {})
        self._made: list[tuple[Any, dict[str, Any] | None]] = []  # each layer and the configuration that it began with

    def make(self, kind: type, width: int, **options: Any) -> Any:
        """The next layer: of the class `kind`, with this width and these options, or with its saved configuration."""
        saved = self._saved.get(str(len(self._made)))
        layer = kind(width, **options) if saved is None else kind.from_config(saved)  # type: ignore[attr-defined]
        self._made.append((layer, _of(layer) if saved is None else None))
        return layer

    def changed(self) -> dict[str, Any]:
        """The configurations of the layers that are not as the network made them: frozen, quantized or with LoRA."""
        if not self._made:
            return self._saved
        configs = [(_of(layer), first) for layer, first in self._made]
        return {str(i): config for i, (config, first) in enumerate(configs) if config != first}


def _of(layer: Any) -> dict[str, Any]:
    """The configuration of a layer, without the numbers of shared objects that Keras adds while it saves a model."""
    return _without_shared_ids(layer.get_config())


def _without_shared_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_shared_ids(part) for key, part in value.items() if key != "shared_object_id"}
    return [_without_shared_ids(part) for part in value] if isinstance(value, list) else value
