"""`kvae.internal.sealed`: damage to a file that kvae wrote is noticed."""

import json

import pytest

from kvae.internal import sealed
from kvae.internal.errors import KvaeWarning, UserError

CONTENT = {"epochs": 12, "history": [{"loss": -1.5e-7, "name": "ü"}], "none": None, "on": True}


@pytest.fixture
def path(tmp_path):
    sealed.write(tmp_path / "a.json", CONTENT)
    return tmp_path / "a.json"


def test_the_content_comes_back_without_its_digest(path):
    assert sealed.read(path) == CONTENT
    assert sealed.DIGEST in json.loads(path.read_text())


@pytest.mark.filterwarnings("error")
def test_every_change_of_one_byte_is_noticed_or_has_no_effect(path):
    original = path.read_bytes()
    passed = 0
    for place in range(len(original)):
        for change in (b"7", b" ", b"-"):
            changed = original[:place] + change + original[place + 1 :]
            path.write_bytes(changed)
            try:
                assert sealed.read(path) == CONTENT
                passed += 1
            except (UserError, KvaeWarning):
                pass
    assert passed < 3 * sum(byte in b" \n" for byte in original) + 30  # white space, and what was there already


def test_the_order_of_keys_does_not_matter(path):
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(content.items()))))
    assert sealed.read(path) == CONTENT


def test_a_file_of_an_earlier_version_is_read_with_a_line(path):
    path.write_text(json.dumps(CONTENT))
    with pytest.warns(KvaeWarning, match=r"a\.json has no digest.*earlier version of kvae wrote it"):
        assert sealed.read(path) == CONTENT


@pytest.mark.parametrize("content", ["[]", "5", '"text"', "null"])
def test_what_is_no_object_is_refused(path, content):
    path.write_text(content)
    with pytest.raises(UserError, match="Expected a JSON object"):
        sealed.read(path)


@pytest.mark.parametrize("keys", [(1, 10, 2), (None, "a"), (True, 2.5)])
def test_keys_that_are_no_texts_become_texts(tmp_path, keys):
    sealed.write(tmp_path / "b.json", {"values": dict.fromkeys(keys, 0)})
    found = sealed.read(tmp_path / "b.json")["values"]
    assert list(found) == [json.loads(json.dumps(key)) if isinstance(key, str) else json.dumps(key) for key in keys]
