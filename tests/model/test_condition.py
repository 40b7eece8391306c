"""A condition travels from the data through training to the exported decoder of a small conditional model."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from exports import without_costs

import kvae
from kvae import completion, evaluation, export, runtime
from kvae.data import load
from kvae.evaluation import evidence
from kvae.export import parity
from kvae.internal.errors import UserError
from kvae.model import priors
from kvae.noise import portable
from kvae.noise.streams import Stream
from kvae.plotting import figures

registered = keras.saving.register_keras_serializable("test_condition")
CLASSES = 10
pytestmark = pytest.mark.usefixtures("without_xla")  # many small models, of which XLA is not what is tested


@registered
class LabelledEncoder(keras.Model):
    def build(self, shape):
        self.hidden, self.head = keras.layers.Dense(12, "tanh"), keras.layers.Dense(4)
        self.hidden.build((None, int(np.prod(shape[1:])) + CLASSES))
        self.head.build((None, 12))

    def call(self, x, condition=None):
        x = tf.reshape(x, [-1, int(np.prod(x.shape[1:]))])
        h = self.head(self.hidden(tf.concat([x, one_hot(condition)], axis=1)))
        return h[:, :2], h[:, 2:]


@registered
class LabelledDecoder(keras.Model):
    def build(self, shape):
        self.hidden, self.head = keras.layers.Dense(12, "tanh"), keras.layers.Dense(784)
        self.hidden.build((None, 2 + CLASSES))
        self.head.build((None, 12))

    def call(self, z, condition=None):
        h = self.head(self.hidden(tf.concat([z, one_hot(condition)], axis=1)))
        return tf.reshape(h, [-1, 28, 28, 1])


@registered
class LabelledPrior(priors.Prior):
    """N(centre of the class, I)."""

    def build(self, latent_dim):
        super().build(latent_dim)
        start = keras.initializers.RandomNormal(0.5, seed=0)
        self.centres = self.add_weight(name="centres", shape=(CLASSES, latent_dim), initializer=start)

    def log_prob(self, z, condition=None):
        away = z - one_hot(condition) @ self.centres.value
        return tf.reduce_sum(-0.5 * (np.log(2 * np.pi) + tf.square(away)), axis=-1)

    def sample(self, noise, condition=None):
        return one_hot(condition) @ self.centres.value + noise.normal((self.latent_dim,), Stream.LATENT)


def one_hot(label):
    return tf.one_hot(tf.cast(label, tf.int32), CLASSES)


def make(run_eagerly=False, **options):
    keras.utils.set_random_seed(1)  # of the networks' weights, whose own business these are
    options = {"prior": LabelledPrior(), "condition_shape": (), "seed": 1, **options}
    vae = kvae.VAE(encoder=LabelledEncoder(), decoder=LabelledDecoder(), **options)
    vae.compile(keras.optimizers.Adam(1e-2), run_eagerly=run_eagerly)
    return vae


@pytest.fixture(scope="module")
def data():
    return load("mnist5k", train="train[:150]", test="test[:40]", batch_size=40, seed=2, labels=True)


@pytest.fixture(scope="module")
def arrays(data):
    return data.examples("test")


@pytest.fixture(scope="module")
def vae(data):
    vae = make()
    vae.fit(data.train, validation_data=data.test, epochs=15, verbose=0)
    return vae


def test_data_bring_the_label_of_every_image(data, arrays):
    x, labels = (np.concatenate(part) for part in zip(*data.test.as_numpy_iterator(), strict=True))
    assert np.array_equal(x, arrays[0])
    assert np.array_equal(labels, arrays[1])


def test_shuffled_labels_stay_with_their_images(data):
    x, labels = (np.concatenate(part) for part in zip(*data.train.as_numpy_iterator(), strict=True))
    own = {image.tobytes(): label for image, label in zip(*data.examples("train"), strict=True)}
    assert [own[image.tobytes()] for image in x] == labels.tolist()
    assert not np.array_equal(labels, data.examples("train")[1])


def test_data_without_labels_cannot_bring_them(tmp_path):
    np.savez(tmp_path / "x.npz", x_train=np.zeros((30, 4, 4), np.uint8), x_test=np.zeros((30, 4, 4), np.uint8))
    with pytest.raises(UserError, match="labels"):
        load(f"npz:{tmp_path / 'x.npz'}", labels=True, batch_size=5)


@pytest.mark.slow
def test_a_dataset_in_memory_takes_the_fast_path_with_its_condition(paths):
    given, same = (load("mnist5k", train="train[:150]", test="test[:40]", batch_size=40, labels=True) for _ in range(2))
    fast = make().fit(given.train, validation_data=given.test, epochs=2, verbose=0).history
    assert set(paths) == {"fast"}
    ordinary = make(run_eagerly=True).fit(same.train, validation_data=same.test, epochs=2, verbose=0).history
    for name, values in fast.items():
        np.testing.assert_allclose(values, ordinary[name], rtol=2e-5, err_msg=name)


@pytest.mark.slow
def test_arrays_and_their_labels_train_as_a_dataset_of_them(arrays):
    x, labels = arrays
    eager = make(run_eagerly=True)
    first = eager.fit(x, labels, batch_size=16, shuffle=False, validation_data=(x, labels), verbose=0).history
    dataset = tf.data.Dataset.from_tensor_slices((x, labels)).batch(16)
    second = make().fit(dataset, validation_data=dataset, verbose=0).history
    for name, values in first.items():
        np.testing.assert_allclose(values, second[name], rtol=2e-5, err_msg=name)


def test_a_condition_for_another_number_of_images_is_refused(arrays):
    x, labels = arrays
    vae = kvae.VAE(2, hidden_units=(5,), condition=CLASSES)
    vae.build(x.shape)
    for call in (
        lambda: vae.encode(x[:4], labels[:3]),
        lambda: vae.elbo(x[:4], condition=labels[:1]),
        lambda: vae.reconstruct(x[:4], condition=labels[:5]),
        lambda: vae.decode(tf.zeros((4, 2)), labels[:3]),
        lambda: vae.decode(tf.zeros((3, 4, 2)), labels[:1]),
        lambda: vae(x[:4], labels[:3]),
    ):
        with pytest.raises(UserError, match=r"Expected a condition \[4, 10\]"):
            call()
    assert vae.decode(tf.zeros((3, 4, 2)), labels[:4]).shape[:2] == (3, 4)


@pytest.mark.slow
def test_validation_split_splits_the_condition_as_well(arrays):
    x, labels = arrays
    options = {"batch_size": 16, "shuffle": False, "verbose": 0}
    split = make(run_eagerly=True).fit(x, labels, validation_split=0.25, **options).history
    held = make(run_eagerly=True).fit(x[:30], labels[:30], validation_data=(x[30:], labels[30:]), **options)
    assert split["val_loss"] == pytest.approx(held.history["val_loss"], rel=1e-5)


@pytest.mark.slow
def test_the_condition_matters(vae, arrays):
    x, labels = arrays
    right, wrong = vae.elbo(x, 0, labels), vae.elbo(x, 0, (labels + 1) % CLASSES)
    assert float(tf.reduce_mean(right - wrong)) > 0.5


def test_the_densities_are_those_of_the_condition(vae, arrays, rng):
    x, labels = arrays
    z = rng.normal(size=(3, len(x), 2)).astype(np.float32)
    joint = vae.log_joint(x, z, labels)
    for place in (0, 7):
        alone = vae.log_joint(x[place : place + 1], z[:, place : place + 1], labels[place : place + 1])
        np.testing.assert_allclose(joint[:, place], alone[:, 0], rtol=1e-5)
    assert not np.allclose(joint, vae.log_joint(x, z, (labels + 1) % CLASSES))
    np.testing.assert_allclose(joint, vae.log_likelihood(x, z, None, labels) + vae.log_prior(z, labels), rtol=1e-6)


def test_keras_evaluates_and_predicts_with_it(vae, data, arrays):
    x, labels = arrays
    results = [vae.evaluate(*given, return_dict=True, verbose=0) for given in ((data.test,), (x, labels))]
    assert results[0] == pytest.approx(results[1], rel=1e-5)
    np.testing.assert_allclose(vae.predict(data.test, verbose=0), vae.reconstruct(x, condition=labels), atol=1e-5)


@pytest.mark.slow
def test_evaluation_takes_it(vae, data, arrays):
    result = evaluation.evaluate(vae, data.test, samples=30)
    assert "kl_per_dimension" not in result  # no closed form against this prior
    both = [evaluation.log_likelihood(vae, given, samples=30).mean for given in (data.test, arrays)]
    assert both[0] == pytest.approx(both[1], rel=1e-5)
    exact = evidence.log_evidence(vae, arrays[0][:4], condition=arrays[1][:4])
    bound = evaluation.log_likelihood(vae, (arrays[0][:4], arrays[1][:4]), samples=3000).per_example
    assert (exact.log_value - bound > -0.2).all()
    assert (exact.log_value - bound < 3).all()


@pytest.mark.slow
def test_completion_takes_it(vae, arrays):
    x, labels = arrays[0][:4], arrays[1][:4]
    found = completion.complete(vae, x, "top", samples=200, steps=60, condition=labels)
    exact = completion.quadrature_score(vae, x, "top", labels)
    allowed = 4 * found.score.standard_error + exact.error + 0.05
    assert (np.abs(found.score.log_density - exact.log_value) < allowed).all()
    other = completion.complete(vae, x, "top", samples=200, steps=60, condition=(labels + 3) % CLASSES)
    assert not np.allclose(found.means, other.means)


def test_pictures_say_that_they_need_one(vae, data, tmp_path):
    with pytest.raises(figures.Unsuitable, match="condition"):
        figures.draw("samples", figures.Subject(vae, data), tmp_path)


def test_it_is_saved_with_the_model(vae, arrays, tmp_path):
    vae.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    assert loaded.condition_shape == ()
    assert np.array_equal(loaded.elbo(arrays[0], 1, arrays[1]), vae.elbo(arrays[0], 1, arrays[1]))


@pytest.fixture(scope="module")
def bundle(vae, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("condition") / "bundle"
    with without_costs():
        export.bundle(vae, folder, variants=("float32", "int8"), test=data.test)
    return folder


@pytest.mark.slow
def test_a_decoder_with_a_condition_runs_in_a_process_of_its_own(bundle):
    for path, format in ((bundle / "decoder.tflite", "tflite"), (bundle / "saved_model", "savedmodel")):
        assert parity.costs(path, format)["latency_us"]["1 threads"]["64"] > 0


@pytest.mark.slow
def test_every_runtime_takes_it(vae, bundle):
    seeds, labels = portable.seeds(30, 4), np.arange(30) % CLASSES
    ours = vae.sample(seeds, labels)
    for decoder in (runtime.load(bundle), export.SavedModelDecoder(bundle / "saved_model")):
        assert decoder.condition_shape == ()
        theirs = decoder.sample(seeds, labels)
        np.testing.assert_allclose(theirs.z, ours.z, atol=1e-6)
        np.testing.assert_allclose(theirs.means, ours.means, atol=1e-5)
        decoded = decoder.decode(ours.z.numpy(), labels)
        np.testing.assert_allclose(decoded.means, ours.means, atol=1e-5)
        others = decoder.sample(seeds, (labels + 1) % CLASSES)
        assert not np.allclose(others.means, theirs.means)


@pytest.mark.slow
def test_a_bundle_with_a_condition_verifies(bundle):
    assert [check for check in export.verify(bundle) if check.passed is False] == []
    card = json.loads((bundle / "model_card.json").read_text())
    assert card["model"]["condition_shape"] == []
    assert "condition float32 [n]" in card["signatures"]["sample"]


@pytest.mark.slow
def test_the_stand_alone_script_takes_it(bundle, tmp_path):
    def draw(*arguments):
        command = [sys.executable, str(bundle / "sample.py"), "-n", "4", "-o", str(tmp_path / "x.png"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = draw("--condition", "3")
    assert done.returncode == 0, done.stderr
    three = (tmp_path / "x.png").read_bytes()
    assert draw("--condition", "4").returncode == 0
    assert (tmp_path / "x.png").read_bytes() != three
    missing = draw()
    assert missing.returncode == 2
    assert "expected --condition with 1 numbers" in missing.stderr


def test_errors_say_what_is_missing(vae, arrays, bundle):
    x, labels = arrays
    plain = kvae.VAE(2, hidden_units=(4,), seed=0)
    plain.build(x.shape)
    decoder = runtime.load(bundle)
    for call, message in (
        (lambda: vae.elbo(x), r"Expected a condition \[40\] for this model. Received none"),
        (lambda: vae.elbo(x, 0, labels[:, None]), r"Expected a condition \[40\]. Received \[40, 1\]"),
        (lambda: plain.elbo(x, 0, labels), "Expected no condition"),
        (lambda: vae.fit(x, verbose=0), "y is the condition of this model"),
        (lambda: vae.fit(x, labels[:5], verbose=0), "Expected one y per image, 40 in all. Received 5"),
        (lambda: evaluation.elbo(vae, x), "y is the condition of this model"),
        (lambda: decoder.sample([1, 2]), r"Expected a condition of shape \[2\] for this decoder. Received none"),
        (lambda: decoder.sample([1, 2], [1, 2, 3]), r"Expected a condition of shape \[2\]"),
        (lambda: export.bundle(vae, bundle.parent / "other"), "conditions="),
    ):
        with pytest.raises(UserError, match=message):
            call()


@pytest.mark.slow
def test_labels_are_ignored_by_a_model_that_asks_for_no_condition(arrays):
    x, labels = arrays
    histories = []
    for given in ((x,), (x, labels)):
        vae = kvae.VAE(2, hidden_units=(4,), seed=0)
        vae.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)
        histories.append(vae.fit(*given, batch_size=16, epochs=2, verbose=0).history)
    assert histories[0] == histories[1]
    data = load("mnist5k", train="train[:60]", test="test[:20]", batch_size=20, labels=True)
    vae = kvae.VAE(2, hidden_units=(4,), seed=0)
    vae.compile()
    vae.fit(data.train, validation_data=data.test, verbose=0)
