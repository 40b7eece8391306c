"""What a method is handed is what it works on, also within a callback; and noise and order go on from step to step."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from slow_cases import slow

import kvae

pytestmark = pytest.mark.usefixtures("without_xla")  # many small models, of which XLA is not what is tested


@pytest.fixture
def x(rng):
    return rng.integers(0, 2, (60, 4, 4, 1)).astype(np.float32)


def compiled(vae=None, optimizer=None, **options):
    vae = vae or kvae.VAE(2, hidden_units=(4,), seed=0)
    vae.compile(optimizer or keras.optimizers.SGD(0.0), **options)
    return vae


class Within(keras.callbacks.Callback):
    """Calls a function once, within the fit of a model."""

    def __init__(self, when, function):
        super().__init__()
        self.function = function
        setattr(self, when, self._once)

    def _once(self, number=None, logs=None):
        function, self.function = self.function, None
        if function:
            self.result = function(self.model)


MOMENTS = ["on_train_batch_begin", "on_train_batch_end", "on_epoch_begin", "on_epoch_end", "on_test_begin"]


@pytest.mark.slow
@pytest.mark.parametrize("moment", [*MOMENTS[1::2], *slow(*MOMENTS[::2])])
def test_a_single_batch_within_fit_is_one_step_on_that_batch(moment, x):
    steps = []

    def train(model):
        before = int(model.steps)
        other, expected = (model.test_on_batch(images)[2] for images in (x[:7], 1 - x[:7]))
        assert abs(other - expected) > 0.3 * expected  # so that the images matter
        loss = model.train_on_batch(1 - x[:7])[2]
        steps.append(int(model.steps) - before)
        return loss, expected

    vae = compiled()
    vae.build(x.shape)
    vae.decoder.head.bias.assign(np.where(x[:7].mean(axis=0) > 0.5, 2.0, -2.0).ravel())  # it expects the others
    callback = Within(moment, train)
    vae.fit(x, batch_size=10, validation_data=x, epochs=2, callbacks=[callback], verbose=0)
    assert steps == [1]
    assert int(vae.steps) == 13
    # The reconstruction of those images, with other draws, at a learning rate of 0.
    assert callback.result[0] == pytest.approx(callback.result[1], rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [*MOMENTS[1::2], *slow(*MOMENTS[::2])])
@pytest.mark.parametrize("dataset", [False, *slow(True)])
def test_an_evaluation_within_fit_is_that_of_its_own_images(moment, dataset, x):
    vae = compiled()
    vae.build(x.shape)
    part = tf.data.Dataset.from_tensor_slices(x[:9]).batch(4) if dataset else x[:9]
    alone = vae.evaluate(part, verbose=0)
    callback = Within(moment, lambda model: model.evaluate(part, verbose=0))
    history = vae.fit(x, batch_size=10, validation_data=x, epochs=2, callbacks=[callback], verbose=0).history
    assert callback.result == pytest.approx(alone, rel=1e-5)
    assert len(history["val_loss"]) == 2


@pytest.mark.slow
def test_a_fit_within_fit_trains_on_its_own_images(x):
    vae = compiled()
    callback = Within("on_train_batch_end", lambda model: model.fit(x[:20], batch_size=5, epochs=2, verbose=0).params)
    vae.fit(x, batch_size=10, epochs=2, callbacks=[callback], verbose=0)
    assert callback.result["steps"] == 4
    assert int(vae.steps) == 2 * 6 + 2 * 4


class Recording(kvae.VAE):
    """Records the first coordinate of z for the first image of each batch."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.__dict__["drawn"] = []

    def draw(self, *args, **options):
        draws = super().draw(*args, **options)
        tf.py_function(lambda z: self.drawn.append(float(z)), [draws.z[0, 0, 0]], [])
        return draws


def noises(optimizer, x, *, again=None):
    """The noise of each step of a training on one image, at a learning rate of 0."""
    vae = compiled(Recording(2, hidden_units=(4,), seed=0), optimizer, jit_compile=False)
    vae.build(x.shape)
    vae.fit(np.repeat(x[:1], 8, axis=0), batch_size=1, verbose=0)
    if again is not None:
        compiled(vae, again, jit_compile=False).fit(np.repeat(x[:1], 8, axis=0), batch_size=1, verbose=0)
    return vae.drawn


@pytest.mark.slow
@pytest.mark.parametrize("accumulated", [2, None, 4])
def test_each_step_has_its_own_noise_also_where_gradients_are_accumulated(accumulated, x):
    drawn = noises(keras.optimizers.SGD(0.0, gradient_accumulation_steps=accumulated), x)
    assert len(set(drawn)) == 8
    assert drawn == pytest.approx(noises(keras.optimizers.SGD(0.0), x))


@pytest.mark.slow
def test_compiling_again_goes_on_with_the_noise(x):
    assert len(set(noises(keras.optimizers.SGD(0.0), x, again=keras.optimizers.SGD(0.0)))) == 16


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [keras.optimizers.SGD(0.0), keras.optimizers.Adam(0.0), "adamw"])
def test_the_order_of_images_goes_on_after_compiling_again(optimizer, x):
    numbered = np.tile(np.arange(12, dtype=np.float32)[:, None, None, None] / 16, (1, 4, 4, 1))
    seen, orders = [], []

    class Order(kvae.VAE):
        def draw(self, x, *args, **options):
            tf.py_function(lambda number: seen.append(float(number)), [x[0, 0, 0, 0]], [])
            return super().draw(x, *args, **options)

    vae = Order(2, hidden_units=(4,), likelihood="gaussian", seed=0)
    vae.build(numbered.shape)
    for _ in range(2):
        vae.compile(optimizer, jit_compile=False)
        seen.clear()
        vae.fit(numbered, batch_size=1, verbose=0)
        orders.append(tuple(seen))
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(numbered[:, 0, 0, 0])
    assert orders[0] != orders[1]


@pytest.mark.slow
def test_a_warm_up_goes_on_after_compiling_again_for_fine_tuning(x):
    vae = compiled(kvae.VAE(2, hidden_units=(4,), beta=kvae.objectives.LinearWarmup(1.0, 12), seed=0))
    vae.fit(x, batch_size=10, verbose=0)
    vae.encoder.trainable = False
    compiled(vae).fit(x, batch_size=10, verbose=0)
    history = compiled(vae).fit(x, batch_size=10, verbose=0).history
    assert int(vae.steps) == 18
    assert history["loss"][0] == pytest.approx(-history["elbo"][0], rel=1e-6)  # beta is 1 at last


def test_a_step_of_a_subclass_that_does_not_count_is_counted(x):
    class Own(kvae.VAE):
        def train_step(self, data):
            return {"loss": tf.reduce_sum(self.batch_of(data).x)}

    vae = compiled(Own(2, hidden_units=(4,), seed=0))
    vae.fit(x, batch_size=10, verbose=0)
    vae.fit(tf.data.Dataset.from_tensor_slices(x).batch(30), verbose=0)
    vae.train_on_batch(x)
    assert int(vae.steps) == 6 + 2 + 1


def test_predict_takes_the_condition_beside_the_images(x):
    class Shifted(keras.Model):
        """Its logits are the condition alone."""

        def __init__(self):
            super().__init__()
            self.scale = keras.layers.Dense(1)

        def call(self, z, condition=None):
            return tf.tile(condition[:, None, None, None], [1, 4, 4, 1]) + 0 * self.scale(z)[..., None, None]

    vae = kvae.VAE(2, hidden_units=(4,), decoder=Shifted(), condition_shape=(), seed=0)
    vae.compile()
    vae.build((None, 4, 4, 1))
    condition = np.linspace(-2, 2, 60, dtype=np.float32)
    expected = np.broadcast_to(1 / (1 + np.exp(-condition))[:, None, None, None], (60, 4, 4, 1))
    np.testing.assert_allclose(vae.predict((x, condition), verbose=0), expected, rtol=1e-5)
    batches = tf.data.Dataset.from_tensor_slices((x, condition)).batch(7)
    np.testing.assert_allclose(vae.predict(batches, verbose=0), expected, rtol=1e-5)
