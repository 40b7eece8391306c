"""`--import FILE`: the file runs once as the module of its name, and only its names are found."""

import sys

import pytest

from kvae.internal import user_files
from kvae.internal.errors import UserError


def written(folder, name, text="value = 7\n"):
    path = folder / name
    path.write_text(text)
    return path


def test_names_of_an_imported_file_are_found(tmp_path):
    path = written(tmp_path, "a_file_of_this_test.py", "class Part:\n    number = 7\n")
    module = user_files.import_file(path)
    assert user_files.find("a_file_of_this_test:Part").number == 7
    assert sys.modules["a_file_of_this_test"] is module
    assert user_files.is_imported("a_file_of_this_test")
    assert user_files.file_of("a_file_of_this_test:Part") == path


def test_a_file_runs_once(tmp_path):
    path = written(tmp_path, "a_counting_file.py", "import sys\nsys.runs = getattr(sys, 'runs', 0) + 1\n")
    assert user_files.import_file(path) is user_files.import_file(path)
    assert sys.runs == 1


@pytest.mark.parametrize("name", ["nowhere:Part", "subprocess:Popen", "os:system", "kvae:VAE", ":Part", "nowhere"])
def test_what_was_not_imported_is_not_found(name):
    with pytest.raises(UserError, match=r"was not imported\. Add --import"):
        user_files.find(name)


def test_a_name_that_the_file_lacks_is_refused(tmp_path):
    user_files.import_file(written(tmp_path, "a_file_with_a_value.py"))
    with pytest.raises(UserError, match=r"a_file_with_a_value\.py has no 'Part'"):
        user_files.find("a_file_with_a_value:Part")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("broken_file.py", "def f(:\n", r"Could not import .*broken_file\.py: SyntaxError"),
        ("failing_file.py", "1 / 0\n", r"Could not import .*failing_file\.py: ZeroDivisionError: division by zero"),
        ("numpy.py", "", "there is a module 'numpy' already"),
        ("kvae.py", "", "there is a module 'kvae' already"),
        ("my-part.py", "", "Expected --import with a Python file such as"),
        ("part.txt", "", "Expected --import with a Python file such as"),
    ],
)
def test_a_file_that_cannot_be_imported_is_refused(tmp_path, name, text, message):
    path = written(tmp_path, name, text)
    with pytest.raises(UserError, match=message):
        user_files.import_file(path)
    assert not user_files.is_imported(path.stem)


def test_a_file_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(UserError, match="with a file that exists"):
        user_files.import_file(tmp_path / "no_such_file_here.py")


def test_two_files_of_one_name_are_refused(tmp_path):
    user_files.import_file(written(tmp_path, "twice_named.py"))
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="there is a module 'twice_named' already"):
        user_files.import_file(written(tmp_path / "other", "twice_named.py"))
