"""The web page as a file: what is in it, which decoders it knows, and that NumPy reads the same decoder from it."""

import base64
import hashlib
import json
import re
import shutil

import keras
import numpy as np
import pytest
from exports import quick_parity, tree
from small_models import built, tiny_built
from tiny_runs import tiny_run
from web_pages import MODELS, check_z, described, in_turn, lively, sequential, write_page

import kvae
from kvae import export, runtime, training
from kvae.export import formats, web
from kvae.internal.errors import UserError
from kvae.runtime.web import WebDecoder, array_of
from kvae.training.config import RunConfig


class OwnPrior(kvae.priors.Flow):
    """It may compute anything."""


@pytest.fixture(scope="module")
def bundled(tmp_path_factory):
    """A bundle of two pages and nothing else."""
    folder = tmp_path_factory.mktemp("web") / "bundle"
    with quick_parity():
        card = export.bundle(MODELS["large"](), folder, formats=["web"], variants=["web_int8", "web_float32"])
    return folder, card


@pytest.mark.parametrize("name", MODELS)
def test_numpy_computes_from_a_page_what_keras_computes_from_the_model(name, tmp_path):
    vae, seeds = MODELS[name](), runtime.seeds(50, 3)
    decoder, labels = WebDecoder(write_page(vae, tmp_path)), in_turn(vae, 50)
    expected, drawn = vae.sample(seeds, labels), decoder.sample(seeds, labels)
    assert np.ptp(expected.means) > 0.1  # the means depend on z, so that a wrong layer would be noticed
    check_z(drawn.z, expected.z, vae)
    # Both are float32. Sums of up to 200 products round by about 1e-6.
    np.testing.assert_allclose(drawn.means, expected.means, rtol=0, atol=1e-5)
    images = vae.likelihood.as_bytes(expected.images).numpy().astype(int)
    assert (np.abs(drawn.images - images) > 0).mean() < 1e-3


def test_a_page_in_a_bundle_is_measured_and_listed_as_every_variant(bundled):
    folder, card = bundled
    assert set(tree(folder)) == {
        "README.md", "model_card.json", "preview.png", "web/index.html", "web/index_float32.html"
    }  # fmt: skip
    for variant, name in (("web_int8", "web/index.html"), ("web_float32", "web/index_float32.html")):
        content = (folder / name).read_bytes()
        assert card["files"][name] == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        assert card["variants"][variant]["file"] == name
        assert card["variants"][variant]["z_identical"]
    assert card["variants"]["web_float32"]["means_error_greatest"] < 1e-5
    assert 1e-5 < card["variants"]["web_int8"]["means_error_greatest"] < 0.02
    assert runtime.load(folder).path.name == "index.html"
    with quick_parity():
        assert [check for check in export.verify(folder) if check.passed is False] == []


def test_int8_weights_make_the_page_smaller(bundled):
    folder, _ = bundled
    arrays = [
        len(base64.b64decode(re.search(r'id="arrays">(.*?)</script>', (folder / name).read_text(), re.S)[1]))
        for name in ("web/index.html", "web/index_float32.html")
    ]
    assert arrays[1] - arrays[0] > 0.7 * 3 * 64 * 256  # three of four bytes of the weights of the large layer


def test_a_changed_page_is_not_opened(bundled, tmp_path):
    copy = shutil.copytree(bundled[0], tmp_path / "bundle")
    page = copy / "web" / "index.html"
    page.write_text(page.read_text().replace("kvae", "evil", 1))
    with pytest.raises(UserError, match=r"index\.html is not the file that model_card\.json states"):
        runtime.load(copy)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: sequential(keras.layers.Dense(30), keras.layers.LayerNormalization(), keras.layers.Reshape((6, 5, 1))),
         "LayerNormalization"),
        (lambda: sequential(keras.layers.Dense(30, "gelu"), keras.layers.Reshape((6, 5, 1))), "activation gelu"),
        (lambda: built((6, 5, 2), latent_dim=2, hidden_units=(8,)), r"images of shape \(6, 5, 2\)"),
        (lambda: tiny_built(prior=OwnPrior()), "the prior OwnPrior"),
        (lambda: tiny_built(prior="vamp", posterior="full_covariance"), "vamp with the posterior full_covariance"),
    ],
    ids=["layer", "activation", "channels", "prior", "posterior"],
)  # fmt: skip
def test_what_a_page_does_not_know_is_refused_before_anything_is_written(make, named, tmp_path):
    with pytest.raises(UserError, match=f"Expected a model that the web page knows.*{named}"):
        export.bundle(make(), tmp_path / "bundle", formats=["web"])
    assert not list(tmp_path.iterdir())


def test_a_subclass_of_a_known_decoder_is_refused_because_it_may_compute_anything(tmp_path):
    class Own(kvae.networks.MLPDecoder):
        pass

    with pytest.raises(UserError, match="Own"):
        web.check(built((6, 5, 1), latent_dim=2, hidden_units=(8,), decoder=Own((6, 5, 1))))


def test_pages_are_a_default_where_the_layers_are_known():
    unknown = sequential(keras.layers.Dense(30, "gelu"), keras.layers.Reshape((6, 5, 1)))
    plans = formats.plan(None, ["float32"], None)
    assert [entry.variant for entry in formats.possible(tiny_built(), plans, by_default=True)] == [
        "saved_model", "float32", "web_int8",
    ]  # fmt: skip
    said: list[str] = []
    left = formats.possible(unknown, plans, by_default=True, say=said.append)
    assert [entry.variant for entry in left] == ["saved_model", "float32"]
    assert len(said) == 1
    assert said[0].startswith("without the format web: Expected a model that the web page knows")
    assert said[0].endswith("Received Dense with activation gelu.")


def test_nothing_but_its_own_scripts_and_style_is_permitted(bundled):
    text = (bundled[0] / "web" / "index.html").read_text()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    executed = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert len(executed) == 1
    style = re.search(r"<style>(.*?)</style>", text, re.S)[1]
    for kind, content in (("script-src", executed[0]), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}';" in policy
    assert not re.search(r"(src|href)=|https?://|\son\w+=|style=|innerHTML|insertAdjacentHTML|document\.write", text)


def test_names_cannot_end_the_script_that_holds_them(tmp_path):
    evil = "</script><script>alert(1)</script><!--"
    vae = tiny_built()
    means = np.random.default_rng(0).normal(size=(40, 2))
    path = write_page(vae, tmp_path, name=evil, description=evil, means=means, labels=np.arange(40) % 2,
                      label_names=(evil, "b"))  # fmt: skip
    text = path.read_text()
    assert text.count("</script>") == write_page(vae, tmp_path).read_text().count("</script>")
    path = write_page(vae, tmp_path, name=evil, means=means, labels=np.arange(40) % 2, label_names=(evil, "b"))
    facts = described(path)
    assert facts["name"] == evil
    assert facts["plane"]["classes"] == [evil, "b"]


def test_the_plane_shows_the_encoded_images_of_each_class(tmp_path):
    means = np.random.default_rng(0).normal(size=(500, 2)) * [1, 0.2] + [3, 0]
    labels = np.where(means[:, 0] > 3, 7, -1)
    facts = described(path := write_page(tiny_built(), tmp_path, means=means, labels=labels, label_names=None))
    content = base64.b64decode(re.search(r'id="arrays">(.*?)</script>', path.read_text(), re.S)[1])
    plane = facts["plane"]
    low, high = np.array(plane["low"]), np.array(plane["high"])
    assert np.allclose(high - low, (high - low)[0])
    places = low + array_of(plane["points"], content) / 65535 * (high - low)
    inside = ((means >= low) & (means <= high)).all(axis=1)
    assert inside.mean() > 0.9
    np.testing.assert_allclose(places, means[inside], atol=(high - low)[0] / 65535)
    assert plane["classes"] == ["without a class", "7"]
    assert np.array_equal(array_of(plane["labels"], content), (labels[inside] == 7).astype(int))


@pytest.mark.parametrize(("name", "start"), [("mlp", [0, 0]), ("mixture", None)])
def test_the_place_where_the_page_begins_is_in_the_plane_though_all_images_are_elsewhere(name, start, tmp_path):
    means = np.random.default_rng(0).normal(20, 1, (50, 2))
    facts = described(write_page(MODELS[name](), tmp_path, means=means, labels=np.arange(50) % 2))
    start, plane = start or facts["prior"]["centre"], facts["plane"]
    assert plane["points"]["shape"][0] >= 49
    assert np.less(plane["low"], start).all()
    assert np.less(start, plane["high"]).all()


def test_the_classes_of_a_conditional_model_are_in_its_page(tmp_path):
    names, z = ("<b>", "two", "three"), np.zeros((2, 2))
    with quick_parity():
        card = export.bundle(MODELS["classes"](), tmp_path / "bundle", formats=["web"], class_names=names,
                             conditions=np.array([2, 0, 1]))  # fmt: skip
    path = tmp_path / "bundle" / "web" / "index.html"
    decoder = WebDecoder(path)
    assert (decoder.condition_shape, decoder.class_names) == ((3,), names)
    assert card["variants"]["web_int8"]["means_error_greatest"] < 1e-5
    assert card["model"]["condition_shape"] == [3]
    assert np.ptp(decoder.decode(z, [0, 2]).means, axis=0).max() > 0.1
    with pytest.raises(UserError, match="Expected a condition of shape"):
        decoder.decode(z)
    with pytest.raises(UserError, match=r"labels in 0\.\.2"):
        decoder.sample([1], 3)


def test_the_plane_of_a_conditional_model_shows_the_encoded_images_by_the_numbers_of_their_classes(tmp_path):
    means, labels = np.random.default_rng(0).normal(size=(9, 2)), np.full(9, 2)
    path = write_page(MODELS["classes"](), tmp_path, means=means, labels=labels)
    content = base64.b64decode(re.search(r'id="arrays">(.*?)</script>', path.read_text(), re.S)[1])
    plane = described(path)["plane"]
    assert plane["classes"] == ["0", "1", "2"]
    assert set(array_of(plane["labels"], content)) == {2}


def test_a_condition_that_is_no_class_is_refused():
    with pytest.raises(UserError, match=r"a condition of shape \(2, 3\), which is not a class"):
        web.check(built((6, 5, 1), latent_dim=2, hidden_units=(8,), condition=(2, 3)))


def test_the_sliders_are_in_the_order_of_the_kl_terms(tmp_path):
    vae = lively(built((6, 5, 1), latent_dim=3, hidden_units=(8,)))
    assert described(write_page(vae, tmp_path, kl_per_dimension=[0.5, 2.0, 1.0]))["order"] == [1, 2, 0]
    assert described(write_page(vae, tmp_path))["order"] == [0, 1, 2]


@pytest.mark.slow
def test_the_page_of_a_conditional_run_shows_its_test_images_encoded_with_their_classes(tmp_path):
    data = {"source": "mnist5k", "train": "train[:20]", "test": "test[:40]", "batch_size": 10, "condition": "label"}
    model = {"latent_dim": 2, "hidden_units": [4]}
    config = {"name": "c", "data": data, "model": model, "training": {"epochs": 1, "jit_compile": False}}
    run = training.train(RunConfig.from_dict(config), tmp_path / "run", verbose=0)
    data = export.bundles.data_of(run)
    with quick_parity():
        export.bundle_of_run(run, tmp_path / "out", formats=["web"], data=data)
    facts = described(path := tmp_path / "out" / "web" / "index.html")
    content = base64.b64decode(re.search(r'id="arrays">(.*?)</script>', path.read_text(), re.S)[1])
    x, labels = data.examples("test")
    means, plane = run.load_model().encode(x, labels).mean.numpy(), facts["plane"]
    inside = ((means >= plane["low"]) & (means <= plane["high"])).all(axis=1)
    assert facts["classes"] == {"count": 10, "names": list(map(str, range(10)))}
    assert np.array_equal(array_of(plane["labels"], content), labels[inside])


@pytest.mark.slow
def test_the_command_writes_the_page_of_a_run_with_its_name_and_its_encoded_test_images(call, tmp_path):
    run = tiny_run(tmp_path, latent_dim=2, hidden_units=[8])
    with quick_parity():
        status, out, err = call("export", run.folder, "--formats", "web", "--out", "out")
    assert (status, err) == (0, "")
    assert "web_int8" in out
    facts = described(tmp_path / "out" / "web" / "index.html")
    assert facts["name"] == run.config.name
    assert facts["plane"]["points"]["shape"][0] > 0


# Pages from strangers

COMPONENTS = ("ends", "means", "deviations")


def coupling(facts, **changes):
    """A prior with one coupling that computes with the layer of this page, whose sides do not fit it."""
    return {"kind": "couplings", "couplings": [{"kept": [0, 1], "layers": facts["decoder"][:1], **changes}]}


def changed(path, change):
    """The page with another description of its model."""
    facts = described(path)
    change(facts)
    text = path.read_text()
    start, end = re.search(r'id="model">(.*?)</script>', text, re.S).span(1)
    path.write_text(text[:start] + json.dumps(facts).replace("<", "\\u003c") + text[end:])
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: facts.update(format=2),
        lambda facts: facts.update(latent_dim=10**9),
        lambda facts: facts.update(image_shape=[6, 5, 10**9]),
        lambda facts: facts.update(decoder=[]),
        lambda facts: facts["decoder"][0].update(kind="system"),
        lambda facts: facts["decoder"][0].update(output=[2**40]),
        lambda facts: facts["decoder"][0]["kernel"].update(shape=[2**40, 2]),
        lambda facts: facts["decoder"][0]["kernel"].update(at=-4),
        lambda facts: facts["decoder"][0].pop("kernel"),
        lambda facts: facts.pop("likelihood"),
        lambda facts: facts["decoder"].insert(0, {"kind": "join", "input": [2], "output": [2]}),
        lambda facts: facts.update(classes={"count": 10**9, "names": None}),
        lambda facts: facts.update(prior={"kind": "system"}),
        lambda facts: facts.update(prior={"kind": "mixture", **dict.fromkeys(COMPONENTS, facts["decoder"][0]["bias"])}),
        lambda facts: facts.update(prior=coupling(facts)),
        lambda facts: facts.update(prior=coupling(facts, kept=[0, 1, 1])),
        lambda facts: facts.update(prior=coupling(facts, layers=[])),
        lambda facts: facts["decoder"].append({"kind": "upsample", "input": [6, 5, 1], "output": [2**20, 2**20, 1]}),
    ],
)  # fmt: skip
def test_a_damaged_page_is_refused(change, tmp_path):
    path = changed(write_page(tiny_built(), tmp_path), change)
    with pytest.raises(UserError, match=r"is damaged"):
        WebDecoder(path)


def test_another_page_is_refused(tmp_path):
    (tmp_path / "other.html").write_text("<html><body>Hello</body></html>")
    with pytest.raises(UserError, match="Expected a web page that kvae exported"):
        runtime.load(tmp_path / "other.html")
