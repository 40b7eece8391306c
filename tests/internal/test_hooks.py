"""`kvae.hooks`: a function runs once, after a module has been imported, whoever imports it."""

import importlib
import sys

import pytest

from kvae import hooks
from kvae.hooks import after_imports, when_imported


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


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose module `first` imports `second`, which fails where the package says so."""
    folder = tmp_path / "a_package_of_this_test"
    folder.mkdir()
    (folder / "__init__.py").write_text("fails = False\n")
    (folder / "first.py").write_text("from a_package_of_this_test import second\nvalue = second.value + 1\n")
    (folder / "second.py").write_text("import a_package_of_this_test as own\nvalue = 1 / (not own.fails)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(hooks._FINDER, "packages", dict(hooks._FINDER.packages))
    yield folder.name
    for name in [name for name in sys.modules if name.startswith(folder.name)]:
        del sys.modules[name]


def test_a_function_after_imports_sees_no_half_module(package):
    seen = []
    after_imports(package, lambda: seen.append(sys.modules[f"{package}.first"].value))
    importlib.import_module(f"{package}.first")
    assert seen == [2]  # once, not after `second` already
    importlib.import_module(f"{package}.second")
    assert seen == [2]


def test_an_import_that_failed_is_followed_by_nothing_and_the_next_one_counts(package):
    seen = []
    after_imports(package, lambda: seen.append(True))
    importlib.import_module(package).fails = True
    with pytest.raises(ZeroDivisionError):
        importlib.import_module(f"{package}.first")
    assert seen == []
    sys.modules[package].fails = False
    importlib.import_module(f"{package}.first")
    assert seen == [True]
