"""`kvae encode`: what it prints and writes, and what it refuses before anything is written."""

import json

import numpy as np


def test_encode_writes_the_file_and_says_what_is_in_it(call, tiny_run, tmp_path):
    status, out, err = call("encode", tiny_run, "-o", "z.npz", "-n", 7)
    assert (status, err) == (0, "")
    assert out.startswith("z.npz: 7 test images of ")
    assert "--split all for the other images" in out
    assert "have no labels" in out
    with np.load(tmp_path / "z.npz") as archive:
        assert archive["mean"].shape == archive["variance"].shape == (7, 3)


def test_encode_as_json_is_one_object(call, tiny_run):
    status, out, _ = call("encode", tiny_run, "-o", "z.csv", "--split", "train", "--json")
    result = json.loads(out)
    assert status == 0
    assert (result["images"], result["latent_dim"], result["variance"], result["labels"]) == (20, 3, True, False)
    assert result["protocol"]["split"] == "train"


def test_encode_refuses_before_it_writes(call, tiny_run, tmp_path):
    np.savez(tmp_path / "large.npz", x=np.zeros((30, 7, 5), np.uint8))
    (tmp_path / "old.csv").write_text("mine")
    for arguments, reason in (
        (["npz:large.npz", "-o", "z.npz"], "Expected images of 6 x 5 x 1"),
        (["-o", "old.csv"], "--overwrite"),
        (["-o", "z.txt"], ".npz or .csv"),
        (["-o", "z.npz", "-n", 0], "Expected -n"),
    ):
        status, _, err = call("encode", tiny_run, *arguments)
        assert status == 2
        assert reason in err
        assert err.count("\n") == 1
    assert (tmp_path / "old.csv").read_text() == "mine"
    assert not list(tmp_path.glob("z.*"))
