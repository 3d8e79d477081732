"""What may stand in one folder of runs: the same problem, and schedules as they are now."""

import keras
import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("rich")
from comparing import X, Y, bare, quick, small

from keras_greedylr.compare import runner
from keras_greedylr.compare.contestants import equip, resolve
from keras_greedylr.compare.identity import describe_model


@pytest.mark.parametrize("other", ["optimizer_config", "model"])
def test_a_folder_of_another_model_is_refused(tmp_path, other):
    def changed():
        model = small()
        if other == "optimizer_config":
            model.compile(keras.optimizers.SGD(0.05, momentum=0.5), loss="mse", run_eagerly=True)
            return model
        model.layers[0].activation = keras.activations.relu
        return model

    bare(["constant"], seeds=1, out=tmp_path)
    bare(["constant"], seeds=1, out=tmp_path)  # built anew, with other names
    with pytest.raises(ValueError, match=rf"comparison of other settings: .*{other} was"):
        bare(["constant"], changed, seeds=1, out=tmp_path)


class Silent(keras.layers.Dense):
    """A layer that cannot tell how it is set."""

    def get_config(self):
        raise NotImplementedError


class Doubled(Silent):
    """The same weights, and another layer."""

    def call(self, x):
        return 2.0 * super().call(x)


class Whole(keras.Model):
    """A model of the user's."""

    def __init__(self, kind):
        super().__init__()
        self.layer = kind(1)

    def get_config(self):
        raise NotImplementedError

    def call(self, x):
        return self.layer(x)


@pytest.mark.parametrize("make", [Whole, lambda kind: keras.Sequential([kind(1)])])
def test_a_model_that_cannot_tell_is_known_by_its_code(make, tmp_path):
    def build(kind):
        model = make(kind)
        model(X[:1])
        model.compile(keras.optimizers.SGD(0.05), loss="mse", run_eagerly=True)
        return model

    for _ in range(2):
        bare(["constant"], lambda: build(Silent), seeds=1, out=tmp_path)
    with pytest.raises(ValueError, match=r"comparison of other settings: .*model was"):
        bare(["constant"], lambda: build(Doubled), seeds=1, out=tmp_path)


class Faulty(keras.layers.Dense):
    """A layer whose configuration has a fault."""

    def get_config(self):
        return super().get_config() | int("none")


def test_a_fault_in_a_configuration_is_not_kept_quiet():
    model = keras.Sequential([keras.Input((3,)), Faulty(1)])
    with pytest.warns(UserWarning, match="cannot be serialized: ValueError: invalid literal"):
        describe_model(model)


def absolute(y, prediction):
    return keras.ops.abs(y - prediction)


def squared(y, prediction):
    return keras.ops.square(y - prediction)


squared.__name__ = "absolute"  # as one that was edited has the old name

MSE, HUBER = "mse", keras.losses.Huber
LOSSES = {
    "setting": ({"loss": HUBER(1.0)}, {"loss": HUBER(2.0)}),
    "function": ({"loss": absolute}, {"loss": squared}),
    "outputs": ({"loss": {"a": MSE, "b": MSE}}, {"loss": {"a": MSE, "b": "mae"}}),
    "objects": ({"loss": [HUBER(1.0), MSE]}, {"loss": [HUBER(2.0), MSE]}),
    "weights": tuple({"loss": [MSE, MSE], "loss_weights": [1.0, w]} for w in (1.0, 2.0)),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_a_folder_of_another_loss_is_refused(kind, tmp_path):
    one, other = LOSSES[kind]

    def build(compiled):
        inputs = keras.Input((3,))
        outputs = {name: keras.layers.Dense(1, name=name)(inputs) for name in "ab"}
        if isinstance(one["loss"], list):
            outputs = list(outputs.values())
        elif not isinstance(one["loss"], dict):
            outputs = outputs["a"]
        model = keras.Model(inputs, outputs)
        model.compile(keras.optimizers.SGD(0.05), **compiled)
        return model

    data = (X, keras.tree.map_structure(lambda loss: Y, one["loss"]))
    for _ in range(2):
        bare(["constant"], lambda: build(one), data, seeds=1, out=tmp_path)
    with pytest.raises(ValueError, match=r"comparison of other settings: .*loss_config was"):
        bare(["constant"], lambda: build(other), data, seeds=1, out=tmp_path)


@pytest.fixture
def trained(monkeypatch):
    """The names of those that are trained, as the test goes on."""
    names, run = [], runner.Trainer.run

    def note(self, task):
        names.append(task.contestant)
        return run(self, task)

    monkeypatch.setattr(runner.Trainer, "run", note)
    return names


# What two calls of one of these make has the same text and another configuration.


def schedule(steps):
    return lambda setting: keras.optimizers.schedules.ExponentialDecay(setting.rate, steps, 0.5)


def callback(patience):
    return lambda setting: keras.callbacks.ReduceLROnPlateau("loss", patience=patience)


def optimizer(momentum):
    return lambda setting: keras.optimizers.SGD(setting.rate, momentum)


class Untold(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule without a configuration, as users write them."""

    def __init__(self, rates):
        super().__init__()
        self.rates = rates

    def __call__(self, step):
        return keras.ops.take(keras.ops.convert_to_tensor(self.rates), keras.ops.minimum(step, 1))


def untold(rates):
    return lambda setting: Untold(rates)


def captured(rate):
    return lambda setting: keras.callbacks.LearningRateScheduler(lambda epoch: rate)


class Settings:
    def __init__(self, rate):
        self.rate = np.float32(rate)


class Constant(keras.callbacks.Callback):
    def __init__(self, settings):
        super().__init__()
        self.settings = settings


def held(settings):
    return lambda setting: Constant(settings)


EDITS = {
    "what a function captured": (captured(0.1), captured(0.2)),
    "an object's attribute": (held(Settings(0.1)), held(Settings(0.2))),
    "schedule without a configuration": (untold([0.1, 0.01]), untold([0.1, 0.02])),
    "schedule": (schedule(5), schedule(6)),
    "callback": (callback(1), callback(2)),
    "optimizer": (optimizer(0.0), optimizer(0.5)),
    "text": (
        lambda setting: keras.callbacks.LearningRateScheduler(lambda epoch: 0.1),
        lambda setting: keras.callbacks.LearningRateScheduler(lambda epoch: 0.2),
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_schedule_that_was_edited_is_run_anew(edit, tmp_path, trained):
    before, after = EDITS[edit]
    first = bare({"constant": None, "mine": before}, seeds=1, out=tmp_path)
    bare({"constant": None, "mine": before}, seeds=1, out=tmp_path)
    assert trained == ["constant", "mine"]  # the second time all was there
    bare({"constant": None, "mine": after}, seeds=1, out=tmp_path)
    assert trained == ["constant", "mine", "mine"]
    again = bare({"constant": None, "mine": before}, seeds=1, out=tmp_path)
    assert trained == ["constant", "mine", "mine"]  # its runs are still there
    assert again.rows == first.rows


class Batches(keras.utils.PyDataset):
    """A dataset; with noise it is another each time."""

    def __init__(self, scale=1.0, noise=0.0):
        super().__init__()
        self.scale, self.noise = scale, noise

    def __len__(self):
        return 2

    def __getitem__(self, index):
        noise = self.noise * np.random.default_rng().normal(size=(20, 3))
        rows = slice(20 * index, 20 * index + 20)
        return self.scale * X[rows] + noise.astype("float32"), Y[rows]


def tensorflow_dataset(scale, **shuffle):
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices((scale * X[:40], Y[:40]))
    return (data.shuffle(40) if shuffle else data).batch(20)


@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")
@pytest.mark.parametrize("make", [Batches, tensorflow_dataset], ids=["keras", "tensorflow"])
def test_a_folder_of_other_batches_is_refused(make, tmp_path):
    bare(["constant"], data={"x": make(1.0)}, seeds=1, out=tmp_path)
    bare(["constant"], data={"x": make(1.0)}, seeds=1, out=tmp_path)
    with pytest.raises(ValueError, match="other settings: data was"):
        bare(["constant"], data={"x": make(2.0)}, seeds=1, out=tmp_path)


@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")
@pytest.mark.parametrize(
    "make",
    [lambda: Batches(noise=1.0), lambda: tensorflow_dataset(1.0, shuffle=True)],
    ids=["keras", "tensorflow"],
)
def test_a_dataset_that_is_another_each_time_may_go_on(make, tmp_path):
    for _ in range(2):
        bare(["constant"], data={"x": make()}, seeds=1, out=tmp_path)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"class_weight": {0: 1.0}}, {"class_weight": {0: 2.0}}),
        ({"sample_weight": np.ones(40)}, {"sample_weight": np.arange(40.0)}),
    ],
    ids=["class weight", "sample weight"],
)
def test_weights_are_part_of_the_data(one, other, tmp_path):
    arrays = {"x": X[:40], "y": Y[:40]}
    quick(["constant"], data={**arrays, **one}, seeds=1, out=tmp_path)
    with pytest.raises(ValueError, match="other settings: data was"):
        quick(["constant"], data={**arrays, **other}, seeds=1, out=tmp_path)


class OwnLoss(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.mean(keras.ops.abs(y_true - y_pred), axis=-1)


def test_a_loss_of_the_users_own_stays_the_same_one(tmp_path):
    """Keras counts those that have no name."""

    def build():
        model = small()
        model.compile(keras.optimizers.SGD(0.01), OwnLoss(), run_eagerly=True)
        return model

    for seeds in (1, 2):
        assert len(bare(["constant"], build, seeds=seeds, out=tmp_path).runs) == seeds


def test_an_optimizer_in_its_place_averages_as_the_models_does():
    model = small()
    model.compile(keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.7), loss="mse")
    made, _, _ = equip(model, resolve("prodigy"), 1.0, steps=4, epochs=1, validated=False)
    assert (made.optimizer.use_ema, made.optimizer.ema_momentum) == (True, 0.7)


@pytest.mark.parametrize("name", ["cosine", "hypergradient", "schedule-free", "prodigy"])
def test_an_optimizer_in_its_place_clips_and_decays_as_the_models_does(name):
    model = small()
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1, clipnorm=0.5)
    optimizer.exclude_from_weight_decay(var_list=[model.weights[1]], var_names=["gamma"])
    model.compile(optimizer, loss="mse")
    made, _, _ = equip(model, resolve(name), 1.0, steps=4, epochs=1, validated=False)
    new = made.optimizer
    assert new is not optimizer and (new.weight_decay, new.clipnorm) == (0.1, 0.5)
    for weight in model.trainable_weights:
        assert new._use_weight_decay(weight) == optimizer._use_weight_decay(weight)
    assert not all(map(new._use_weight_decay, model.trainable_weights))
