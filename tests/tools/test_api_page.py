"""tools/api_page.py: docs/API.md is that of the present code."""

import api_page

import kvae


def test_the_page_is_that_of_the_present_code():
    assert api_page.PAGE.read_text(encoding="utf-8") == api_page.page(), "run python tools/api_page.py"


def test_calls_and_sentences():
    rows = dict(api_page._rows("kvae.objectives", ["IWAE", "DReG", "Objective"]))
    assert list(rows) == ["IWAE(samples)", "DReG(samples)", "Objective"]
    assert all(sentence.endswith(".") for sentence in rows.values())
    assert api_page._call("load", kvae.data.load) == "load(source, ...)"
    assert dict(api_page._rows("kvae.runtime", ["Decoder"])).keys() == {
        "Decoder", "Decoder.decode(z, condition)", "Decoder.sample(seeds, condition)"
    }  # fmt: skip
