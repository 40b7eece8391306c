"""The examples of docs/KERAS.md run as they are written."""

import re
from pathlib import Path

import pytest

TEXT = (Path(__file__).parent.parent / "docs" / "KERAS.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The posterior has collapsed")  # after a few steps of an example
def test_the_examples_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)
    assert len(blocks) == 5
    scope: dict = {}
    for block in blocks:
        exec(compile(block, "docs/KERAS.md", "exec"), scope)


@pytest.mark.parametrize(
    "name", ["fit", "evaluate", "predict", "train_on_batch", "export", "save", "quantize", "callbacks"]
)
def test_the_page_says_what_each_entry_point_does(name):
    table = [line for line in TEXT.splitlines() if line.startswith("| ")]
    assert any(name in line for line in table)
