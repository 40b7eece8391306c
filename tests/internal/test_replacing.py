"""`kvae.internal.replacing`: only a folder that kvae wrote, and that holds nothing else, is replaced."""

import os
from pathlib import Path

import pytest

from kvae.internal import replacing
from kvae.internal.errors import UserError


def strangers(folder: Path) -> list[str]:
    """What is not of a folder that has a card.json: all but this file and those in `deep`."""
    if not (folder / "card.json").is_file():
        raise UserError("It has no card.json.")
    return replacing.not_among(replacing.files_in(folder), r"card\.json | deep/.*")


def check(folder, overwrite=True) -> None:
    replacing.check_free(folder, overwrite, noun="a bundle", strangers=strangers)


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A folder that may be replaced; the current folder is beside it."""
    (tmp_path / "run" / "deep").mkdir(parents=True)
    for name in ("card.json", "deep/er.txt"):
        (tmp_path / "run" / name).write_bytes(b"old")
    (tmp_path / "current").mkdir()
    monkeypatch.chdir(tmp_path / "current")
    return tmp_path / "run"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_does_not_exist_is_free(tmp_path, overwrite):
    check(tmp_path / "deep" / "run", overwrite)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_empty_folder_is_free(tmp_path, overwrite):
    check(str(tmp_path), overwrite)


def test_a_folder_that_exists_is_replaced_only_on_request(old):
    check(old)
    with pytest.raises(UserError, match=r"run' exists\. Replace it with --overwrite, or choose another"):
        check(old, overwrite=False)


@pytest.mark.parametrize(
    "name", [".DS_Store", "deep/Thumbs.db", "desktop.ini", ".partial-1-01234567-0123456789abcdef-"]
)
def test_what_systems_and_kvae_make_does_not_count(old, name):
    (old / name).touch()
    check(old)


@pytest.mark.parametrize("name", ["thesis.tex", "deeper/a", "card.json.bak", ".hidden", "deep er/x", "CARD.JSON"])
def test_what_would_be_lost_is_named(old, name):
    (old / name).parent.mkdir(exist_ok=True)
    (old / name).touch()
    with pytest.raises(UserError, match=rf"did not write and that would be lost: {name}\. Move"):
        check(old)


def test_many_names_are_counted(old):
    for number in range(10):
        (old / f"{number}.txt").touch()
    with pytest.raises(UserError, match=r"0\.txt, 1\.txt, 2\.txt and 7 more\. Move"):
        check(old)


@pytest.mark.parametrize("target", ["file", "folder", "nowhere"])
def test_a_link_within_counts_as_a_file(old, tmp_path, target):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (old / "link").symlink_to(tmp_path / target)
    with pytest.raises(UserError, match="would be lost: link"):
        check(old)


def test_a_folder_of_another_kind_is_not_replaced(old):
    (old / "card.json").unlink()
    with pytest.raises(UserError, match=r"run' is not a bundle of kvae, so it is not replaced\. It has no card\.json"):
        check(old)


@pytest.mark.parametrize(("overwrite", "message"), [(False, "exists"), (True, "is a file")])
def test_a_file_is_not_a_free_folder(tmp_path, overwrite, message):
    (tmp_path / "run").write_bytes(b"old")
    with pytest.raises(UserError, match=message):
        check(tmp_path / "run", overwrite)


def in_current_folder(old, monkeypatch):
    monkeypatch.chdir(old)
    return "."


def above_the_current_folder(old, monkeypatch):
    monkeypatch.chdir(old / "deep")
    return old


def home(old, monkeypatch):
    monkeypatch.setenv("HOME", str(old))
    return old


def above_home(old, monkeypatch):
    monkeypatch.setenv("HOME", str(old / "deep"))
    return old


def link(old, monkeypatch):
    (old.parent / "link").symlink_to(old)
    return old.parent / "link"


def dangling_link(old, monkeypatch):
    (old.parent / "link").symlink_to(old.parent / "nowhere")
    return old.parent / "link"


def mount(old, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: path == os.path.realpath(old))
    return old


def root(old, monkeypatch):
    return "/"


PLACES = {
    in_current_folder: "Received the current folder; name a folder within it",
    above_the_current_folder: "contains the current folder",
    home: "Received the home folder",
    above_home: "contains the home folder",
    link: "is a symbolic link",
    dangling_link: "is a symbolic link",
    mount: "is a mount",
    root: "contains the current folder",
}


@pytest.mark.parametrize(("place", "message"), PLACES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_places_of_a_user_are_never_replaced(old, monkeypatch, place, message):
    with pytest.raises(UserError, match=message):
        check(place(old, monkeypatch))


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_nothing_but_what_systems_make_is_free(tmp_path, overwrite):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / ".DS_Store").touch()
    check(tmp_path / "new", overwrite)
