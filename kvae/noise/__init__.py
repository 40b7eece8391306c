"""Random numbers that are functions of what they are for.

`keyed.py` serves training and evaluation, `portable.py` the images that a seed stands for on every runtime, and
`streams.py` names every use, so that no two of them can share numbers.
"""

from kvae.internal.lazy import lazy

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
