"""How much an export compares and measures: less of what takes longer, and as much in a verification."""

import numpy as np
import pytest

from kvae import runtime
from kvae.export import parity, quantization
from kvae.export.parity import Counts, counts, stated_counts
from kvae.runtime import Decoder, children, footprint


@pytest.mark.parametrize(
    ("shape", "quick", "expected"),
    [
        ((28, 28, 1), False, (4096, 10_000)),
        ((8, 8, 1), False, (4096, 10_000)),
        ((64, 48, 3), False, (174, 425)),  # 3,916,800 pixels
        ((512, 512, 3), False, (40, 100)),
        ((28, 28, 1), True, (409, 1000)),
        ((64, 48, 3), True, (17, 42)),
        ((512, 512, 3), True, (4, 10)),
    ],
)
def test_fewer_images_are_compared_if_they_are_larger(shape, quick, expected):
    assert counts(shape, quick=quick) == expected
    assert stated_counts({"float32": {"pixels": expected[1] * int(np.prod(shape))}}, shape) == expected


@pytest.mark.parametrize("pixels", [None, True, 0, -784, 784, 785_000.0, 785_001, 784 * 10**9, "784000"])
def test_a_stated_number_that_no_export_compares_is_not_used(pixels):
    assert stated_counts({"float32": {"pixels": pixels}}, (28, 28, 1)) == counts((28, 28, 1))


class Fixed(Decoder):
    """Decodes every z to its first coordinate, and counts its calls."""

    latent_dim, image_shape = 1, (2, 2, 1)

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.shift, self.calls = shift, 0

    def run(self, name, inputs):
        self.calls += 1
        z = inputs["z"] if name == "decode" else (inputs["seed"][:, None] % 100).astype(np.float32)
        means = np.broadcast_to((z / 100 + self.shift)[:, :, None, None], (len(z), 2, 2, 1)).astype(np.float32)
        return {"means": means, "logits": means, "images": (means * 200).astype(np.uint8), "z": z}


def test_the_reference_is_computed_once_for_all_decoders(monkeypatch):
    monkeypatch.setattr(parity, "CHUNK", 10)
    reference, decoders = Fixed(), {"same": Fixed(), "other": Fixed(0.25)}
    report = parity.errors(reference, decoders, Counts(7, 25))
    assert reference.calls == 3 + 1  # three chunks of samples, and the means at the first 7 of their z
    assert (report["same"]["pixels_differing"], report["same"]["means_error_greatest"]) == (0, 0)
    assert (report["other"]["pixels_differing"], report["other"]["pixels_difference_greatest"]) == (100, 50)
    assert report["other"]["means_error_greatest"] == pytest.approx(0.25)
    assert report["other"]["pixels"] == 25 * 4


def test_a_slow_decoder_is_called_less_often(tmp_path, monkeypatch):
    decoder = Fixed()
    monkeypatch.setattr(runtime, "open_decoder", lambda *_: decoder)
    monkeypatch.setattr(footprint, "SECONDS", 0)
    footprint._measure(tmp_path, [1], 0.0, None)
    assert decoder.calls == len(footprint.BATCHES) * footprint.FEWEST


def test_every_number_of_threads_is_measured_with_a_decoder_of_its_own(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(runtime, "open_decoder", lambda _, threads, __: opened.append(threads) or Fixed())
    monkeypatch.setattr(footprint, "SECONDS", 0)
    latency = footprint._measure(tmp_path, [1, 2], 0.0, None)["latency_us"]
    assert opened == [1, 2]
    assert {name: list(times) for name, times in latency.items()} == {
        "1 threads": ["1", "64"],
        "2 threads": ["1", "64"],
    }


@pytest.mark.parametrize(
    ("name", "threads", "expected"),
    [("tflite", (1, 2), [1, 2]), ("tflite", (1,), [1]), ("savedmodel", (1, 2), [1]), ("web", (1, 2), [1])],
)
def test_one_process_measures_as_many_threads_as_its_runtime_can_have(tmp_path, monkeypatch, name, threads, expected):
    asked = []
    monkeypatch.setattr(footprint, "footprint", lambda _, counts, __: asked.append(counts) or {"latency_us": {}})
    (tmp_path / "decoder").write_bytes(b"12345")
    assert parity.costs(tmp_path / "decoder", name, threads) == {"bytes": 5, "latency_us": {}}
    assert asked == [expected]


def test_products_of_matrices_in_numpy_have_one_thread_too(tmp_path, monkeypatch):
    environments = []
    monkeypatch.setattr(children, "run_module", lambda *_, environment: environments.append(environment) or "{}")
    footprint.footprint(tmp_path, [1], "web")
    assert environments[0]["OPENBLAS_NUM_THREADS"] == "1"


@pytest.mark.parametrize(("shape", "expected"), [((28, 28, 1), 4096), ((8, 8), 4096), ((64, 48, 3), 1024)])
def test_int8_weights_are_rounded_with_fewer_examples_if_images_are_larger(shape, expected):
    assert quantization.examples(shape) == expected


def test_the_tolerance_of_the_elbo_grows_with_the_number_of_pixels():
    tolerance = {"means": 0.02, "elbo": 0.1}
    assert parity.tolerance_for((28, 28, 1), tolerance) == parity.tolerance_for((8, 8, 1), tolerance) == tolerance
    assert parity.tolerance_for((48, 64, 3), tolerance) == {
        "means": 0.02,
        "elbo": pytest.approx(0.1 * 48 * 64 * 3 / 784),
    }
