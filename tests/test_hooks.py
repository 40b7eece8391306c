"""`kvae.hooks`: a function runs once, after a module has been imported, whoever imports it."""

import importlib
import sys

import pytest

from kvae.hooks import when_imported


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module that has not been imported."""
    (tmp_path / "a_module_of_this_test.py").write_text("value = 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "a_module_of_this_test"
    sys.modules.pop("a_module_of_this_test", None)


def test_function_is_called_with_the_module_once_it_has_run(module):
    seen = []
    when_imported(module, lambda imported: seen.append(imported.value))
    assert seen == []
    importlib.import_module(module)
    importlib.import_module(module)
    assert seen == [7]


def test_function_is_called_at_once_where_the_module_was_imported(module):
    importlib.import_module(module)
    seen = []
    when_imported(module, lambda imported: seen.append(imported.value))
    assert seen == [7]


def test_a_module_that_does_not_exist_stays_one_that_does_not(module):
    seen = []
    when_imported("no_such_module_of_this_test", seen.append)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("no_such_module_of_this_test")
    assert seen == []


def test_an_exception_of_the_module_passes_and_the_function_is_not_called(module, tmp_path):
    (tmp_path / f"{module}.py").write_text("raise RuntimeError('within')\n")
    seen = []
    when_imported(module, seen.append)
    with pytest.raises(RuntimeError, match="within"):
        importlib.import_module(module)
    assert seen == []
    assert module not in sys.modules


def test_the_module_keeps_its_spec_and_file(module, tmp_path):
    when_imported(module, lambda imported: None)
    imported = importlib.import_module(module)
    assert imported.__spec__.name == module
    assert imported.__file__ == str(tmp_path / f"{module}.py")
