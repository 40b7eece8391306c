"""Figures show the names of users' classes and files as they are, whatever these contain, and without a warning."""

import warnings
from xml.dom import minidom

import matplotlib
import numpy as np
import pytest

from kvae.internal.errors import UserError
from kvae.plotting import canvas, drawing, figures
from kvae.plotting.words import words

NAMES = [
    "$x^$", r"$\frac", "$z_1$", "a$b", r"\$", "_a", "_", "", " ", "a\nb", "\t", "\x00\x01\x1b[31m", "<b>&\"'", "--",
    "]]>", "[/x]", "{x}", "%s", "猫", "\U0001f9a9", "e\u0301", "\u202eabc", "\udcff", "\ufffe", "x" * 300, "W" * 300,
]  # fmt: skip
IMAGES = np.linspace(0, 1, 2 * 3 * 4 * 5).reshape(2, 3, 4, 5, 1)
HISTORY = {
    name: [2.0, 1.0] for name in ("epoch", "loss", "reconstruction", "kl", "val_loss", "val_reconstruction", "val_kl")
}
FIGURES = {
    "the names of classes": lambda name: drawing.latent_scatter(np.eye(4)[:, :2], np.arange(4) % 2, [name, "other"]),
    "a title": lambda name: drawing.latent_scatter(np.eye(4)[:, :2], np.arange(4) % 2, title=name),
    "the ends of a path": lambda name: drawing.interpolation(IMAGES, [(name, name), ("a", name)]),
    "rows and columns": lambda name: drawing.titled_columns({name: IMAGES[0], "other": IMAGES[0]}, [name] * 3),
    "held-out data": lambda name: drawing.learning_curves(HISTORY, name),
}


def texts(figure: drawing.Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


SOME = ["$x^$", r"$\frac", "_a", "a\nb\x00\x1b[31m", "<b>&\"'--]]>", "猫\udcff\ufffe", "W" * 300]


@pytest.mark.parametrize("suffix", ["png", "svg"])
@pytest.mark.parametrize("make", FIGURES.values(), ids=FIGURES)
@pytest.mark.parametrize("name", SOME, ids=ascii)
def test_a_name_is_drawn_as_it_is(monkeypatch, tmp_path, name, make, suffix):
    monkeypatch.setattr(canvas, "DPI", 50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = make(name)
        drawing.save(figure, tmp_path / f"a.{suffix}")
    assert any(words(name) in text for text in texts(figure))
    if suffix == "svg":
        minidom.parse(str(tmp_path / "a.svg"))


def test_no_text_is_read_as_mathematics_or_tex(tmp_path):
    with matplotlib.rc_context({"text.usetex": True}):
        figure = FIGURES["the names of classes"]("$x^2$ ~ 100%")
    drawing.save(figure, tmp_path / "a.png")
    found = figure.findobj(matplotlib.text.Text)
    assert not any(text.get_parse_math() or text.get_usetex() for text in found)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_words_are_one_short_line_of_letters_that_the_fonts_have(name):
    assert words(name).isprintable()
    assert len(words(name)) <= 24


@pytest.mark.parametrize(
    "options", [{"suffix": "/../x.png"}, {"suffix": ".exe"}, {"label": "../x"}, {"label": "..\\x"}]
)
def test_a_part_of_a_file_name_leads_to_no_other_folder(tmp_path, digits_2d, options):
    with pytest.raises(UserError, match=r"Expected (a label and|the suffix)"):
        figures.draw("learning_curves", digits_2d, tmp_path / "plots", **options)
    assert not list(tmp_path.rglob("*.*"))


def test_letters_without_a_glyph_keep_names_different():
    assert (words("猫"), words("犬")) == (r"\u732b", r"\u72ac")
    assert words("ß β ж") == "ß β ж"


def test_every_class_of_nasty_names_is_in_the_legend():
    labels = np.arange(2 * len(NAMES)) % len(NAMES)
    figure = drawing.latent_scatter(np.random.default_rng(0).normal(size=(len(labels), 2)), labels, NAMES)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [words(name) for name in NAMES]


@pytest.mark.parametrize("classes", [16, 101])
def test_the_legend_of_many_long_names_leaves_space_for_the_points(tmp_path, classes):
    labels = np.arange(classes)
    figure = drawing.latent_scatter(np.random.default_rng(0).normal(size=(classes, 2)), labels, ["W" * 50] * classes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawing.save(figure, tmp_path / "a.png")
    legend = figure.axes[0].get_legend()
    assert len(legend.get_texts()) == min(classes, 100)
    assert legend.get_title().get_text() == ("the first 100 of 101 classes" if classes == 101 else "")
