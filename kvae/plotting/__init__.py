"""Pictures: `figures.py` says what each kind shows of a model, `plots.py` makes matplotlib figures of arrays."""

from kvae.internal.lazy import lazy

__getattr__, __dir__ = lazy(__name__, {name: f"{__name__}.{name}" for name in ("figures", "plots")})
