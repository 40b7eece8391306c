"""tools/profile_step.py: where the time of a training step goes."""

import re
import subprocess
import sys
from pathlib import Path

import profile_step
import pytest

TOOL = Path(__file__).parents[2] / "tools" / "profile_step.py"
LISTING = """
%fused_computation.5 (param_0: f32[784,500]) -> f32[784,500] {
  ROOT %add.1 = f32[784,500]{1,0} add(%param_0, %param_0), metadata={op_type="x" op_name="while/adam/add"}
}
ENTRY %main {
  %MatMul.48 = f32[100,500]{1,0} dot(%a, %b), lhs_contracting_dims={1}, metadata={op_name="while/encoder/MatMul"}
  ROOT %sum_fusion.2 = f32[] fusion(%MatMul.48), kind=kLoop, metadata={op_name="while/Sum"}
  %copy.1 = s32[] copy(%c)
}
"""


def test_the_listing_of_xla_tells_what_an_operation_computes():
    known = profile_step.operations(LISTING)
    assert known == {
        "add.1": ("f32[784,500]", "add", "adam/add"),
        "MatMul.48": ("f32[100,500]", "dot", "encoder/MatMul"),
        "sum_fusion.2": ("f32[]", "fusion", "Sum"),
        "copy.1": ("s32[]", "copy", ""),
    }
    groups = {name: profile_step.group_of(kind, source) for name, (_, kind, source) in known.items()}
    assert groups == {
        "add.1": "optimizer",
        "MatMul.48": "matrix products",
        "sum_fusion.2": "all else",
        "copy.1": "all else",
    }


@pytest.mark.exhaustive  # a tool for those who work on kvae
def test_a_table_of_the_operations_and_their_groups():
    arguments = ["--dataset", "mnist5k", "--batch", "50", "--least", "0"]
    done = subprocess.run([sys.executable, TOOL, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"A step of 50 images: \d+\.\d\d ms", done.stdout)
    for group in ("matrix products", "optimizer", "all else"):
        (spent,) = re.findall(rf"([\d.]+) +│ {group} ", done.stdout)
        assert float(spent) > 0
    # The two largest matrices and their gradients.
    for shape in (r"f32\[50,500\]", r"f32\[50,784\]", r"f32\[784,500\]", r"f32\[500,784\]"):
        assert re.search(shape, done.stdout), shape
