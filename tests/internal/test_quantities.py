"""`kvae.internal.quantities`: sizes and times with their units."""

import pytest

from kvae.internal.quantities import duration, size


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (3_191_177, "3.2 MB"), (145_000, "145 kB"),
     (999_600, "1.0 MB"), (10**10, "10.0 GB"), (5 * 10**15, "5000 TB")],
)  # fmt: skip
def test_a_size_has_two_or_three_digits_and_its_unit(number, text):
    assert size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (8.6, "8.6 s"), (43.2, "43 s"), (119, "119 s"), (120, "2 min"),
                          (3600, "60 min"), (5400, "1.5 h"), (36_000, "10.0 h")],
)  # fmt: skip
def test_a_duration_has_the_unit_that_suits_it(seconds, text):
    assert duration(seconds) == text
