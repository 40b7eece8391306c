"""`kvae.internal.with_options`: names with options in one text."""

import pytest

from kvae.internal import with_options
from kvae.internal.errors import UserError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", ("a", {})),
        ("a()", ("a", {})),
        ("a(n=50, yes=true)", ("a", {"n": 50, "yes": True})),
        ("a(sizes=[1, 5], text='x')", ("a", {"sizes": [1, 5], "text": "x"})),
    ],
)
def test_a_name_and_its_options_are_read(text, expected):
    assert with_options.parse(text, "kind", ["a", "b"], "a(n=1)") == expected


@pytest.mark.parametrize("text", ["a(n)", "a(n=)", "a(n=1, n=2)", "a(n=1)\nx(", "a(=1)"])
def test_another_form_is_refused_with_an_example(text):
    with pytest.raises(UserError, match=r"such as a\(n=1\)|kind"):
        with_options.parse(text, "kind", ["a", "b"], "a(n=1)")


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="ais"):
        with_options.parse("aiss(n=1)", "evaluation", ["ais", "elbo"], "ais(n=1)")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" , ,", []),
        ("a", ["a"]),
        (" a , b(n=1, m=[2, 3]),c", ["a", "b(n=1, m=[2, 3])", "c"]),
        ("a),b", ["a)", "b"]),
        ("a(b,c", ["a(b,c"]),
    ],
)
def test_commas_within_brackets_do_not_split(text, expected):
    assert with_options.split(text) == expected
