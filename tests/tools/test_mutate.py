"""tools/mutate.py: its mutations fit the code, and it tells a fault that tests find from one that they do not."""

import subprocess
import sys
from pathlib import Path

import mutate
import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments):
    words = [sys.executable, ROOT / "tools" / "mutate.py", *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("mutation", mutate.MUTATIONS, ids=lambda each: each.fault)
def test_a_mutation_changes_code_that_tests_of_its_own_cover(mutation):
    code = (ROOT / "kvae" / "evaluation" / mutation.module).read_text(encoding="utf-8")
    changed = mutate.mutate(code, mutation)
    assert changed != code
    compile(changed, mutation.module, "exec")
    assert (ROOT / "tests" / "evaluation" / mutation.tests).exists()


def test_there_are_at_least_ten():
    assert len(mutate.MUTATIONS) >= 10


def test_code_that_is_no_longer_there_is_an_error():
    with pytest.raises(Exception, match="Found it 0 times"):
        mutate.mutate("x = 1", mutate.MUTATIONS[0])


def test_an_unknown_module_ends_in_status_2():
    done = run("importance.py")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_the_list_has_a_line_per_mutation():
    done = run("--list")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == len(mutate.MUTATIONS)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_fault_is_killed_and_a_change_of_nothing_survives():
    fault = next(each for each in mutate.MUTATIONS if each.module == "pareto.py")
    assert mutate.is_killed(fault)
    assert not mutate.is_killed(fault._replace(changed=f"{fault.code}  # as before"))
