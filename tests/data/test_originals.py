"""Images before they are binarized, from memory and from a stream."""

import numpy as np
import pytest
from PIL import Image

import kvae


@pytest.mark.parametrize("streaming", [False, True])
def test_originals_are_the_pixels_of_the_files_whatever_the_binarization(tmp_path, rng, streaming):
    pixels = rng.integers(0, 256, (6, 3, 4), np.uint8)
    for part in ("train", "test"):
        (tmp_path / part / "a").mkdir(parents=True)
        for place, image in enumerate(pixels):
            Image.fromarray(image).save(tmp_path / part / "a" / f"{place}.png")
    data = kvae.data.load(
        f"images:{tmp_path}", binarize="stochastic", batch_size=2, order="source", streaming=streaming
    )
    before = data.images_at("test", [4, 1])
    np.testing.assert_allclose(data.originals_at("test", [4, 1])[..., 0], pixels[[4, 1]] / 255, atol=1e-7)  # float32
    np.testing.assert_array_equal(data.images_at("test", [4, 1]), before)
    assert set(np.unique(before)) <= {0, 1}
