"""The JavaScript of the page in Node, without a browser: the numbers of seeds and the layers of networks."""

import base64

import numpy as np
import pytest
from node import NODE, javascript
from web_pages import MODELS, check_z, expected_samples, write_page

from kvae.noise import portable
from kvae.noise.streams import Stream

pytestmark = pytest.mark.skipif(NODE is None, reason="Node is not installed; the same is tested in the browser")


def decoded(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def test_seeds_uniform_and_normal_numbers_are_those_of_python_bit_for_bit(tmp_path):
    page = write_page(MODELS["mlp"](), tmp_path)
    count = 100_000
    code = f"""
    const seeds = seedsOf({count}, 5);
    const all = (numbers) => Float32Array.from({{ length: {count} * 3 }}, (_, i) => numbers(i));
    let three;
    const normal = all((i) => (three = i % 3 ? three : normals(seeds[i / 3], LATENT, 3, model.quantiles))[i % 3]);
    const uniform = all((i) => (three = i % 3 ? three : uniforms(seeds[i / 3], PIXELS, 3))[i % 3]);
    console.log(JSON.stringify({{ seeds: shown(seeds), normal: shown(normal), uniform: shown(uniform) }}));
    """
    result, seeds = javascript(tmp_path, page, code), portable.seeds(count, 5)
    assert np.array_equal(decoded(result["seeds"], "<i4"), seeds)
    normal = decoded(result["normal"], "<f4").reshape(count, 3)
    assert np.abs(normal).max() > 4.2  # so that the last segments of the table were needed
    assert np.array_equal(normal, portable.normals(seeds, Stream.LATENT, 3))
    assert np.array_equal(
        decoded(result["uniform"], "<f4").reshape(count, 3), portable.uniforms(seeds, Stream.PIXELS, 3)
    )


@pytest.mark.parametrize("name", MODELS)
def test_javascript_computes_what_numpy_computes(name, tmp_path):
    vae, count = MODELS[name](), 30
    page = write_page(vae, tmp_path, "web_int8")
    code = f"""
    const samples = Array.from(seedsOf({count}, 1), (seed, i) => sample(model, seed, i % model.classCount));
    const joined = (name) => Buffer.concat(samples.map((each) => Buffer.from(each[name].buffer))).toString("base64");
    const means = samples.map(({{ z }}, i) => Buffer.from(decode(model, z, i % model.classCount).means.buffer));
    console.log(JSON.stringify({{ z: joined("z"), draw: joined("draw"), bytes: joined("means"),
                                 means: Buffer.concat(means).toString("base64") }}));
    """
    result, expected = javascript(tmp_path, page, code), expected_samples(page, count, 1)
    check_z(decoded(result["z"], "<f4").reshape(expected.z.shape), expected.z, vae)
    means = decoded(result["means"], "<f4").reshape(expected.means.shape)
    assert np.ptp(means) > 0.1
    np.testing.assert_allclose(means, expected.means, rtol=0, atol=1e-5)  # sums of up to 200 products in float32
    # A value at the boundary between two levels may be rounded to the one or to the other.
    draws = decoded(result["draw"], np.uint8).reshape(expected.images.shape).astype(int)
    assert (np.abs(draws - expected.images) > 0).mean() < 1e-3
    assert np.abs(draws - expected.images).max() <= (255 if name not in ("grey", "colour") else 1)
    levels = decoded(result["bytes"], np.uint8).reshape(means.shape)
    assert np.abs(levels - 255 * expected.means.astype(float)).max() <= 0.5 + 1e-2
