"""Text in figures: it is shown as it is. No text is read as mathematics or TeX, and none breaks a figure."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from matplotlib import figure, font_manager
from matplotlib.text import Text

from kvae.internal.visible import shortened, visible

LONGEST = 24  # characters


class Figure(figure.Figure):
    """A figure that shows every text as it is, also `$x^$`, and also if the user's settings turn TeX on."""

    def draw(self, renderer: Any) -> None:
        for text in self.findobj(Text):
            text.set(parse_math=False, usetex=False)
        super().draw(renderer)


def words(text: object, most: int = LONGEST) -> str:
    r"""The name of a class or a file for a figure: one line, in letters that the fonts have, and not too long.

    A letter that the fonts lack becomes its escape, such as `\u732b`, so that two names still differ. To have such
    letters in figures, add a font that has them to `font.family` in the settings of Matplotlib.
    """
    fonts = _fonts(tuple(font_manager.FontProperties().get_family()))
    letters = (letter if _is_in(fonts, letter) else _escape(letter) for letter in visible(text))
    return shortened("".join(letters), most)


def legend(owner: Any, artists: Sequence[Any], names: Sequence[object], most: int = LONGEST, **options: Any) -> None:
    """The legend of axes or of a figure, with any names, of which at most `most` characters are shown.

    Matplotlib itself leaves out a name that begins with an underscore.
    """
    made = owner.legend(artists, [str(number) for number in range(len(artists))], frameon=False, **options)
    for text, name in zip(made.get_texts(), names, strict=True):
        text.set_text(words(name, most))


def _is_in(fonts: tuple[Any, ...], letter: str) -> bool:
    return any(font.get_char_index(ord(letter)) for font in fonts)


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


@cache
def _fonts(families: tuple[str, ...]) -> tuple[Any, ...]:
    """The fonts that Matplotlib uses for these families: for each one the best that is installed."""
    found = []
    for family in families:
        try:
            found.append(font_manager.findfont(font_manager.FontProperties(family=family), fallback_to_default=False))
        except ValueError:  # it is not installed
            continue
    return tuple(map(font_manager.get_font, found or [font_manager.findfont(font_manager.FontProperties())]))
