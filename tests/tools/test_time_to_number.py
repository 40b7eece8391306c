"""tools/time_to_number.py: what it counts, and the tool at work on embedded digits."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import time_to_number
from time_to_number import EPOCHS, NUMBERS, PUBLISHED, seconds_to, table

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("number", "seconds"), [(-170.0, 5.0), (-150.0, 9.0), (-149.0, None)])
def test_a_number_is_reached_at_the_end_of_the_first_epoch_that_passes_it(number, seconds):
    assert seconds_to(number, [5.0, 7.0, 9.0], [-160.0, -155.0, -150.0]) == seconds


def test_the_table_has_medians_and_says_what_was_not_reached():
    def ours(number, seconds, elbo):
        return {"number": number, "epochs": EPOCHS[number], "seconds": seconds, "elbo": elbo}

    kvae = [ours(number, 10.0 + place, -146.0) for number in NUMBERS[:2] for place in range(3)]
    kvae += [ours(NUMBERS[2], 20.0, -146.0), ours(NUMBERS[2], 20.0, -147.5), ours(NUMBERS[2], 20.0, -146.0)]
    others = {"pythae": [{"seconds": [30.0, 40.0], "elbo": [-156.0, -154.9]}] * 3}
    rows = list(zip(*(list(column.cells) for column in table({"kvae": kvae, "others": others}).columns), strict=True))
    assert rows[0][:4] == ("kvae", "11", "11", "not reached")
    assert rows[1] == ("pythae", "40", "not reached", "not reached", "2", "-154.9")


def test_settings_are_published_by_what_the_benchmark_runs():
    assert all(published.contender in time_to_number.CONTENDERS for published in PUBLISHED.values())
    assert list(EPOCHS) == list(NUMBERS) == sorted(NUMBERS)


@pytest.mark.exhaustive
def test_the_tool_prints_a_table_and_writes_what_it_measured(tmp_path):
    command = [sys.executable, ROOT / "tools" / "time_to_number.py", "--others", "keras.io", "--dataset", "mnist5k"]
    done = subprocess.run([*command, "--images", "300", "--out", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((tmp_path / "time_to_number.json").read_text())
    assert [run["epochs"] for run in report["kvae"]] == list(EPOCHS.values())
    (run,) = report["others"]["keras.io"]
    assert len(run["seconds"]) == len(run["elbo"]) == PUBLISHED["keras.io"].epochs
    assert run["seconds"] == sorted(run["seconds"])
    assert "not reached" in done.stdout  # with 300 images
