"""tools/kill.py at work: some kills of the command that replaces a run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.exhaustive
def test_killed_replacements_leave_the_old_run_or_the_new_one(tmp_path):
    command = [sys.executable, ROOT / "tools" / "kill.py", "--only", "overwrite", "--kills", "3"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    assert "3 kills" in result.stdout
    assert list(tmp_path.iterdir()) == []
