"""tools/runtimes.py: one seed gives one image on every runtime, and docs/DEVICES.md has a row for each of them."""

from pathlib import Path

import pytest
import runtimes
from runtimes import HEADINGS, RUNTIMES, TITLE

from kvae.internal import user_files
from kvae.internal.errors import UserError

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "DEVICES.md"
IMAGES = 10_000


def rows(text: str) -> list[list[str]]:
    """The cells of the rows of a table below its headings."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert tuple(lines[0]) == HEADINGS
    return lines[2:]


def test_the_page_has_a_row_for_each_runtime_with_the_same_z_and_few_differing_pixels():
    section = PAGE.read_text(encoding="utf-8").partition(f"{TITLE}\n")[2].partition("\n## ")[0]
    measured = {cells[0]: cells for cells in rows(section)}
    assert list(measured) == [runtime.name for runtime in RUNTIMES]
    for runtime in RUNTIMES:
        cells = dict(zip(HEADINGS, measured[runtime.name], strict=True))
        assert cells["same z"] == "yes"
        assert float(cells["differing pixels per 10^7"].replace(",", "")) <= runtime.most
    assert "10,000 seeds" in section


def test_the_table_of_a_page_is_replaced_and_nothing_else(tmp_path):
    page, new = tmp_path / "page.md", f"| {' | '.join(HEADINGS)} |\n\nHow."
    before, after = f"| runtime |\n\n{TITLE}\n\nWords.\n\n", "\n## Next\n\n| runtime |\n"
    page.write_text(f"{before}| runtime | old |\n| a |\n\nOld.\n{after}")
    runtimes.put(page, new)
    assert page.read_text() == f"{before}{new}\n{after}"
    page.write_text("# Another page\n\n| runtime | old |\n")
    with pytest.raises(UserError, match="Expected a page with the section"):
        runtimes.put(page, new)


# The page has the same engine in Chromium and in Node: here it runs in one of them, for the whole table in both.
OTHER = "chromium" if runtimes.page_decoders.missing("chromium") else "node"
RUN = [runtime for runtime in RUNTIMES if runtime.engine != OTHER]
HERE = [runtime for runtime in RUN if runtimes.missing(runtime) is None]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    run, folder = ROOT / "saved_models" / "mnist_2d", tmp_path_factory.mktemp("exported")
    return runtimes.export(run, folder, {runtime.variant for runtime in HERE})


@pytest.fixture(scope="module")
def compared(exported):
    return runtimes.compare(exported, HERE, IMAGES, latents=200)


@pytest.mark.slow
def test_some_seeds_give_the_same_z_and_the_same_images_on_every_runtime_that_is_installed(exported):
    for name, found in runtimes.compare(exported, HERE, 300, latents=20).items():
        (runtime,) = (each for each in HERE if each.name == name)
        assert found["z_identical"], name
        assert found["means_error_greatest"] < {runtimes.FLOAT16: 5e-3, runtimes.INT8: 5e-2}.get(runtime.most, 1e-5)


@pytest.mark.exhaustive
@pytest.mark.parametrize("runtime", RUN, ids=lambda runtime: runtime.name)
def test_10000_seeds_give_the_same_z_and_the_same_images_on_every_runtime(runtime, request):
    if runtime not in HERE:
        pytest.skip(f"{runtimes.missing(runtime)} is not installed")
    found = request.getfixturevalue("compared")[runtime.name]
    assert found["z_identical"]
    assert found["pixels"] == IMAGES * 28 * 28
    assert found["pixels_differing"] * 1e7 / found["pixels"] <= runtime.most
    # float32 rounds means to about 1e-7, and sums of 500 products to some 1e-6; int8 weights have 8 bits.
    assert found["means_error_greatest"] < {runtimes.FLOAT16: 5e-3, runtimes.INT8: 5e-2}.get(runtime.most, 1e-5)


@pytest.mark.slow
def test_costs_are_measured_in_a_process_of_its_own_and_stand_in_the_table(exported, monkeypatch):
    monkeypatch.setattr(user_files, "_MODULES", {})
    chosen = [runtime for runtime in HERE if runtime.variant in ("int8", "web_int8")]
    spent = runtimes.costs(exported, chosen, rounds=1)
    errors = {"pixels_differing": 0, "pixels": 7840, "z_identical": True, "means_error_greatest": 0.0128}
    table = rows(runtimes.table({name: {**cost, **errors} for name, cost in spent.items()}))
    assert [cells[0] for cells in table] == [runtime.name for runtime in chosen]
    for cells in table:
        assert cells[2:5] == ["yes", "0", "1.3e-02"]
        for value in (cells[1], cells[5], *cells[7:]):
            assert float(value.replace(",", "")) > 0
