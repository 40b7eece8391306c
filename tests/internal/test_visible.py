"""Text from outside becomes one line that can be seen; a value in a message has a bounded length."""

import pytest

from kvae.internal.visible import shortened, shown, visible


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain 'text' \\ ü 数", "plain 'text' \\ ü 数"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[31m\x07\x00\x7f\x9b", r"\x1b[31m\x07\x00\x7f\x9b"),
        ("\u2028\u202e\ufeff\u200b", r"\u2028\u202e\ufeff\u200b"),
        ("\udcff", r"\udcff"),
        ("\U000e0001", r"\U000e0001"),
        ("[/x] [red]", "[/x] [red]"),
        (ValueError("a\nb"), r"a\nb"),
    ],
)
def test_what_cannot_be_seen_is_escaped(text, expected):
    assert visible(text) == expected
    assert visible(text).isprintable()


def nested() -> list:
    inner: list = []
    for _ in range(100_000):
        inner = [inner]
    return inner


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", "'a'"),
        ([1, 2], "[1, 2]"),
        ("a" * 1000, "'" + "a" * 98 + "…" + "a" * 99 + "'"),
    ],
)
def test_a_value_is_shown_shortly(value, expected):
    assert shown(value) == expected


def test_a_number_that_python_does_not_print_is_shown():
    assert shown(16**5000) == shown([16**5000]) == "a number with too many digits"


def test_a_nested_value_is_shown():
    assert shown(nested()) == "a value that is nested too deeply"


@pytest.mark.parametrize(("text", "expected"), [("abcdefg", "abcdefg"), ("abcdefgh", "abc…fgh"), ("", "")])
def test_a_long_text_loses_its_middle(text, expected):
    assert shortened(text, 7) == expected
