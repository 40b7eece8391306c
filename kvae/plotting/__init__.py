"""Pictures of a model. `figures.py` computes what each kind of picture shows; `drawing.py` draws arrays."""

from kvae.internal.lazy_imports import lazy

__getattr__, __dir__ = lazy(__name__, {name: f"{__name__}.{name}" for name in ("comparison", "drawing", "figures")})
