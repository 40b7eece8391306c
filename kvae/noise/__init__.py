"""Random numbers that depend only on a seed and on what they are used for.

`keyed.py` is for training and evaluation. `portable.py` draws the image of a seed, the same on every runtime.
`streams.py` lists all uses, so that no two of them share numbers.
"""

from kvae.internal.lazy_imports import lazy

_KEYED = ("Keyed", "Noise", "Numbered", "normal", "uniform")
_MODULES = ("keyed", "portable", "streams")
__getattr__, __dir__ = lazy(
    __name__,
    {
        **{name: f"{__name__}.keyed:{name}" for name in _KEYED},
        **{name: f"{__name__}.{name}" for name in _MODULES},
        "Portable": f"{__name__}.portable:Portable",
        "Stream": f"{__name__}.streams:Stream",
        "seeds": f"{__name__}.portable:seeds",
    },
)
