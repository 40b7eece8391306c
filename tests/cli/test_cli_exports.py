"""`kvae export`, `kvae sample`, `kvae verify`: exit status, words, and one picture from everything exported."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kvae import export
from kvae.cli.exports import print_variants
from kvae.internal import quantities, sealed

pytestmark = pytest.mark.usefixtures("quick_exports")


# --- export


@pytest.mark.slow
def test_export_writes_a_bundle_into_the_run_and_prints_the_report(call, tiny_run, tmp_path):
    folder = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    status, out, err = call("export", folder)
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == str(folder / "bundle")
    assert {path.name for path in (folder / "bundle").iterdir()} == {
        "saved_model", "decoder.tflite", "decoder_float16.tflite", "decoder_int8.tflite", "model_card.json",
        "sample.py", "web", "README.md", "preview.png",
    }  # fmt: skip
    card = json.loads((folder / "bundle" / "model_card.json").read_text())
    for name, report in card["variants"].items():
        row = next(line for line in out.splitlines() if line.startswith(f"│{name} "))
        assert quantities.size(report["bytes"]) in row
        assert f"{report['means_error_greatest']:.1e}" in row
        assert f"{report['elbo_change']:+.4f}" in row
    for words in ("of 3,000 that", "means at 100 z of seed 0", "cores, Python"):
        assert words in out


@pytest.mark.slow
def test_export_takes_formats_variants_and_tolerances_in_lists(call, tiny_run, tmp_path):
    status, out, err = call(
        "export", tiny_run, "--formats", " tflite ,", "--variants", "float16, float32", "--out", "new/b",
        "--no-evaluation", "--tolerance", "float16=0.5", "--tolerance", " float32 =0.25",
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == "new/b"
    card = json.loads((tmp_path / "new" / "b" / "model_card.json").read_text())
    assert list(card["variants"]) == ["float16", "float32"]
    assert {name: limits["means"] for name, limits in card["tolerances"].items()} == {"float16": 0.5, "float32": 0.25}
    assert "elbo_change" not in card["variants"]["float32"]
    assert not (tiny_run / "bundle").exists()


@pytest.mark.slow
def test_export_takes_the_licences_and_names_the_readme(call, tiny_run, tmp_path):
    few = ["--formats", "tflite", "--variants", "float32", "--no-evaluation"]
    status, out, _ = call("export", tiny_run, *few, "--out", "b", "--licence", "CC-BY-4.0", "--data-licence", "my own")
    assert status == 0
    assert "README.md in the bundle says which file is for what" in out
    stated = json.loads((tmp_path / "b" / "model_card.json").read_text())["licence"]
    assert (stated["model"], stated["data"]["licence"]) == ("CC-BY-4.0", "my own")
    assert "- the model: CC-BY-4.0\n" in (tmp_path / "b" / "README.md").read_text()


@pytest.mark.slow
def test_export_prints_each_step_and_then_its_report_unless_it_is_quiet(call, tiny_run):
    few = ["--formats", "tflite", "--variants", "float32", "--no-evaluation"]
    status, out, _ = call("export", tiny_run, *few, "--out", "told")
    assert (status, out.splitlines()[:3]) == (0, [
        "step 1 of 3: writing float32",
        "step 2 of 3: comparing means at 100 z and 100 images with the Keras model",
        "step 3 of 3: measuring time and memory of float32",
    ])  # fmt: skip
    assert call("export", tiny_run, *few, "--out", "quiet", "--quiet")[:2] == (0, "quiet\n")


@pytest.mark.slow
def test_a_quick_export_compares_fewer_samples_and_no_elbo_and_is_verified_with_as_many(call, tiny_run, tmp_path):
    few = ["--formats", "tflite", "--variants", "float32,float16", "--out", "b"]
    assert call("export", tiny_run, *few, "--quick")[0] == 0
    card = json.loads((tmp_path / "b" / "model_card.json").read_text())
    report = card["variants"]["float32"]
    assert "means at 10 z of seed 0 and samples of 10 seeds" in card["protocol"]["parity"]
    assert report["pixels"] == 10 * 30
    assert list(report["latency_us"]) == ["1 threads"]
    assert "elbo_change" not in report
    status, out, _ = call("verify", "b")
    assert status == 0
    assert "of 300 pixels differ" in out


def test_the_table_of_an_export_has_100_columns_and_whole_names(capsys):
    report = {
        "bytes": 12_345_678, "means_error_greatest": 1.7e-6, "pixels_differing": 123_456, "elbo_change": -0.0123,
        "latency_us": {"1 threads": {"1": 1234.0, "64": 12345.0}}, "peak_memory_mb": 708.0, "load_seconds": 1.34,
        "pixels": 7_840_000,
    }  # fmt: skip
    names = ["saved_model", "saved_model_decoder", "float32", "web_float32"]
    print_variants({"variants": dict.fromkeys(names, report), "protocol": {"parity": "none", "costs": "none"}})
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines() if line[0] in "┏┃┡│└") <= 100
    assert "…" not in out
    for words in (*names, "differing", "12.3 MB", "123,456", "-0.0123", "12.35", "1.34", "708"):
        assert words in out


@pytest.mark.slow
def test_export_replaces_a_bundle_on_request_alone(call, copied):
    before = (copied / "bundle" / "model_card.json").read_bytes()
    few = ["--formats", "tflite", "--variants", "float32", "--no-evaluation"]
    status, _, err = call("export", copied, *few)
    assert status == 2
    assert "exists. Replace it with --overwrite, or choose another --out" in err
    assert (copied / "bundle" / "model_card.json").read_bytes() == before
    assert call("export", copied, *few, "--overwrite")[0] == 0
    assert list(json.loads((copied / "bundle" / "model_card.json").read_text())["variants"]) == ["float32"]


@pytest.mark.slow
def test_a_tolerance_that_is_exceeded_ends_in_status_2_and_no_bundle(call, tiny_run, tmp_path):
    arguments = ["--formats", "tflite", "--variants", "float16", "--tolerance", "float16=1e-7", "--no-evaluation"]
    status, out, err = call("export", tiny_run, *arguments, "--out", "b", "--quiet")
    assert (status, out) == (2, "")
    assert err.startswith("kvae: Nothing was exported. float16: its means differ by")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_export_without_its_data_says_how_to_export_without_evaluation(call, copied):
    config = json.loads((copied / "config.json").read_text())
    config["config"]["data"]["source"] = "npz:nowhere.npz"
    (copied / "config.json").write_text(json.dumps(config))
    status, _, err = call("export", copied, "--out", "b")
    assert status == 2
    assert "nowhere.npz" in err
    assert "--no-evaluation" in err
    few = ["--formats", "tflite", "--variants", "float32"]
    assert call("export", copied, "--out", "b", *few, "--no-evaluation")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["export", "nowhere"], "'nowhere' is not a run folder: it does not exist"),
        (["export", "{unfinished}"], "has no model.keras: its training has not finished"),
        (["export", "{bare}", "--formats", "tflit"], "Unknown format 'tflit'. Did you mean 'tflite'"),
        (["export", "{bare}", "--formats", ","], "Expected a list of at least one format"),
        (["export", "{bare}", "--variants", "int4"], "Unknown variant 'int4'"),
        (["export", "{bare}", "--formats", "web", "--variants", "int8"], "Add tflite to the formats"),
        (["export", "{bare}", "--variants", ""], "Expected a list of at least one variant"),
        (["export", "{bare}", "--tolerance", "int8"], "VARIANT=ERROR, e.g. int8=0.2. Received 'int8'"),
        (["export", "{bare}", "--tolerance", "int8=much"], "Received 'int8=much'"),
        (["export", "{bare}", "--tolerance", "int9=0.1"], "Unknown variant 'int9'"),
        (["export", "{bare}", "--tolerance", "int8=2"], "in (0, 1] for the means of int8. Received 2.0"),
        (["export", "{bare}", "--licence", " "], "Expected licence to be the name of a licence, such as MIT"),
        (["export", "{bare}", "--out", "full"], "full' exists"),
        (
            ["export", "{bare}", "--out", "full", "--overwrite"],
            "is not a bundle of kvae, so it is not replaced. It has no model_card.json.",
        ),
        (["export", "{bare}", "--out", "full/file/b", "--formats", "savedmodel"], "Could not write full/file/b"),
        (["sample", "nowhere"], "'nowhere', which does not exist"),
        (["sample", "full"], "Expected a bundle, which has a model_card.json"),
        (["sample", "full/file"], "full/file is not a .tflite file"),
        (["sample", "{unfinished}"], "has no model.keras"),
        (["sample", "{run}", "-n", "0"], "Expected -n to be a whole number of at least 1. Received 0"),
        (["sample", "{run}", "-n", "-1"], "Received -1"),
        (["sample", "{run}", "-n", "1000000"], "Expected at most 10,000 images in one picture. Received -n 1,000,000"),
        (["sample", "{run}", "--seed", "2147483648"], "--seed to be a whole number from 0 to 2147483647"),
        (["sample", "{run}", "--seed", "-1"], "--seed"),
        (["sample", "{run}", "--variant", "int4"], "Unknown variant 'int4'"),
        (["sample", "{run}", "--variant", "full_int8"], "has no full_int8 decoder. It has: float32, float16, int8"),
        (["sample", "{bare}", "--variant", "int8"], "kvae export RUN"),
        (["sample", "{run}", "-o", "full/file/x.png"], "full/file/x.png"),
        (
            ["sample", "{run}", "-o", "x.xyz"],
            "Expected the name of a picture that ends with .png, .jpg, .gif, .bmp, .tiff or .pdf",
        ),
        (["verify", "nowhere"], "Expected a run or a bundle"),
        (["verify", "full"], "Expected a run or a bundle"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_users_mistake_ends_in_status_2_and_one_line(arguments, expected, call, exported, tiny_run, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "unfinished").mkdir()
    shutil.copy(tiny_run / "config.json", tmp_path / "unfinished")
    places = {"{run}": str(exported), "{bare}": str(tiny_run), "{unfinished}": "unfinished"}
    before = sorted(tmp_path.rglob("*"))
    status, out, err = call(*[places.get(argument, argument) for argument in arguments])
    assert (status, out) == (2, "")
    assert expected in err
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


# --- sample


def drawn(call, tmp_path, *arguments: object) -> np.ndarray:
    """The picture that `kvae sample` writes."""
    status, out, err = call("sample", *arguments, "-o", "drawn.png")
    assert (status, out.strip(), err) == (0, "drawn.png", "")
    with Image.open(tmp_path / "drawn.png") as picture:
        return np.asarray(picture).astype(int)


SOURCES = {
    "a run with a bundle": lambda exported, tiny_run: exported,
    "a run without one": lambda exported, tiny_run: tiny_run,
    "a bundle": lambda exported, tiny_run: exported / "bundle",
    "a SavedModel": lambda exported, tiny_run: exported / "bundle" / "saved_model",
    "a SavedModel of the decoder": lambda exported, tiny_run: exported / "bundle" / "saved_model_decoder",
    "a .tflite": lambda exported, tiny_run: exported / "bundle" / "decoder.tflite",
    "a .tflite of float16": lambda exported, tiny_run: exported / "bundle" / "decoder_float16.tflite",
    "a .tflite of int8": lambda exported, tiny_run: exported / "bundle" / "decoder_int8.tflite",
}


@pytest.fixture(scope="module")
def expected(shared_run) -> dict[tuple, np.ndarray]:
    """Pictures by the model itself, made here of `VAE.sample`."""
    from kvae.internal import pictures
    from kvae.noise import portable
    from kvae.training.runs import Run

    vae, found = Run.open(shared_run).load_model(), {}
    for count in (10, 23):
        sample = vae.sample(portable.seeds(count, 6))
        for more, images in (((), sample.means), (("--draws",), sample.images)):
            found[count, *more] = pictures.sheet(images.numpy()).astype(int)[..., 0]
    return found


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("count", "more"), [(10, ("--draws",)), (23, ())])
def test_one_seed_draws_one_picture_from_everything(call, exported, tiny_run, expected, tmp_path, source, count, more):
    found = drawn(call, tmp_path, SOURCES[source](exported, tiny_run), "-n", count, "--seed", 6, *more)
    picture = expected[count, *more]
    assert found.shape == picture.shape
    apart = np.abs(found - picture)
    # Means within a level, as rounding to 0..255 falls. Draws are 0 or 255: one in 2^11 may be the other in float16,
    # which is none of these 300; each pixel is many in the enlarged picture, so even one would be over the share.
    assert apart.max() <= 1
    assert (apart > 0).mean() < 0.05


def test_another_seed_draws_another_picture(call, exported, tmp_path):
    first, again, other = (drawn(call, tmp_path, exported, "--seed", seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_variant_is_the_file_of_that_name(call, exported, tmp_path):
    for place in (exported, exported / "bundle"):
        found = drawn(call, tmp_path, place, "--variant", "float16", "--means")
        file = drawn(call, tmp_path, exported / "bundle" / "decoder_float16.tflite", "--means")
        np.testing.assert_array_equal(found, file)


def test_a_bundle_of_a_savedmodel_alone_is_sampled(call, exported, copied, tmp_path):
    card = json.loads((copied / "bundle" / "model_card.json").read_text())
    card["variants"] = {name: report for name, report in card["variants"].items() if name.startswith("saved_model")}
    card["files"] = {name: facts for name, facts in card["files"].items() if not name.endswith(".tflite")}
    sealed.write(copied / "bundle" / "model_card.json", card)
    for path in (copied / "bundle").glob("*.tflite"):
        path.unlink()
    found = drawn(call, tmp_path, copied / "bundle")
    np.testing.assert_array_equal(found, drawn(call, tmp_path, exported / "bundle" / "saved_model"))


def test_a_bundle_of_another_model_warns_and_the_runs_own_is_sampled(call, tiny_run, copied, tmp_path):
    expected = drawn(call, tmp_path, tiny_run, "--means")
    model = copied / "model.keras"
    vae = export.bundles.Run.open(copied).load_model()
    vae.decoder.head.bias.assign(vae.decoder.head.bias + 1.0)
    vae.save(model)
    status, _, err = call("sample", copied, "--means", "-o", "new.png")
    assert status == 0
    assert err.startswith("kvae: warning: ")
    assert "another model" in err
    assert err.count("\n") == 1
    with Image.open(tmp_path / "new.png") as picture:
        found = np.asarray(picture).astype(int)
    # The logits rise by 1 from about 0, so the means by 0.23: 59 levels; gaps stay white.
    assert np.median((found - expected)[expected < 255]) > 30


def test_a_stale_bundle_is_not_sampled_silently_by_variant_either(call, copied):
    vae = export.bundles.Run.open(copied).load_model()
    vae.decoder.head.bias.assign(vae.decoder.head.bias + 1.0)
    vae.save(copied / "model.keras")
    status, _, err = call("sample", copied, "--variant", "int8")
    assert status == 2
    assert "another model" in err


def test_a_damaged_decoder_of_a_bundle_is_not_sampled(call, copied):
    path = copied / "bundle" / "decoder.tflite"
    path.write_bytes(path.read_bytes() + b" ")
    status, _, err = call("sample", copied / "bundle")
    assert status == 2
    assert "decoder.tflite is not the file that model_card.json states" in err


LOADED = """
import sys
sys.argv = ["kvae", *sys.argv[1:]]
from kvae import cli
try:
    cli.run()
finally:
    print([name for name in ("tensorflow", "keras", "pydantic") if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize("source", ["a bundle", "a .tflite", "a run with a bundle"])
def test_sampling_from_a_tflite_loads_no_tensorflow(exported, tiny_run, tmp_path, source):
    result = subprocess.run(
        [sys.executable, "-c", LOADED, "sample", str(SOURCES[source](exported, tiny_run))],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ},
        check=False,
    )
    assert (result.returncode, result.stdout.strip()) == (0, "samples.png"), result.stderr
    assert result.stderr.strip() == "[]"


# --- verify


@pytest.mark.slow
def test_verify_prints_every_claim_and_ends_in_status_0(call, exported):
    status, out, err = call("verify", exported)
    assert (status, err) == (0, "")
    *checks, last = out.splitlines()
    assert last == f"{exported}: all claims hold, except for those not checked (-)"
    assert all(line.startswith(("ok  ", "-   ")) for line in checks)
    for name in ("decoder_int8.tflite", "sample.py", "reference z", "float32 parity", "evaluation.json: elbo"):
        assert any(line.startswith(f"ok   {name}: ") for line in checks)


@pytest.mark.slow
def test_verify_of_a_bundle_alone_needs_no_run(call, exported, tmp_path):
    shutil.copytree(exported / "bundle", tmp_path / "alone")
    status, out, _ = call("verify", "alone")
    assert (status, out.splitlines()[-1]) == (0, "alone: all claims hold, except for those not checked (-)")
    assert ": elbo" not in out


@pytest.mark.slow
def test_verify_without_evaluation_leaves_the_elbo_out(call, exported):
    status, out, _ = call("verify", exported, "--no-evaluation")
    assert status == 0
    assert "evaluation.json" not in out
    assert "float32 parity" in out


@pytest.mark.slow
def test_claims_that_do_not_hold_end_in_status_1(call, copied):
    with (copied / "bundle" / "sample.py").open("a") as file:
        file.write("# mine\n")
    status, out, err = call("verify", copied, "--no-evaluation")
    assert status == 1
    assert err == f"kvae: {copied}: 1 claim does not hold\n"
    assert [line.split(":")[0] for line in out.splitlines() if line.startswith("FAIL")] == ["FAIL sample.py"]
    evaluation = json.loads((copied / "evaluation.json").read_text())
    sealed.write(copied / "evaluation.json", {**evaluation, "elbo": evaluation["elbo"] + 1})
    status, out, err = call("verify", copied)
    assert status == 1
    assert err == f"kvae: {copied}: 2 claims do not hold\n"
    assert "FAIL evaluation.json: elbo" in out


@pytest.mark.slow
@pytest.mark.exhaustive  # those of the README are run in processes of their own, too
def test_the_three_commands_in_processes_of_their_own(tiny_run, tmp_path):
    for arguments in (
        ("export", tiny_run, "--out", "bundle", "--variants", "float32,int8"),
        ("sample", "bundle", "-n", 8, "--seed", 1),
        ("verify", "bundle"),
    ):
        command = [sys.executable, "-m", "kvae", *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert (result.returncode, result.stderr) == (0, ""), arguments
    assert result.stdout.splitlines()[-1] == "bundle: all claims hold, except for those not checked (-)"
    assert (tmp_path / "samples.png").is_file()
