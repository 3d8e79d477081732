"""The losses GreedyLR acts on batch by batch are those of the batches."""

import itertools

import keras
import numpy as np
import pytest
from helpers import NEVER, Spy, data, fit, linear

from keras_greedylr.callbacks.batch_loss import BatchLoss

FIRST = {"rtol": 1e-4}  # in the first 200 steps of an epoch
LATE = {"rtol": 2e-3}  # at its step 5,000


def split(arrays, batch_size):
    """The batches `fit` makes of arrays."""
    samples = len(arrays[0])
    return [
        tuple(array[i : i + batch_size] for array in arrays) for i in range(0, samples, batch_size)
    ]


def losses_one_by_one(model, batches):
    """What `train_on_batch` reports for each."""
    losses = []
    for batch in batches:
        model.reset_metrics()
        losses.append(float(model.train_on_batch(*batch, return_dict=True)["loss"]))
    return losses


@pytest.mark.parametrize("samples", [40, 37, 3], ids=["equal", "unequal last", "one short batch"])
def test_several_epochs(samples):
    spy = Spy(update_every=1, patience=NEVER)
    fit(linear(), [spy], samples=samples, epochs=3)
    expected = losses_one_by_one(linear(), split(data(samples), 8) * 3)
    np.testing.assert_allclose(spy.looked, expected, **FIRST)


@pytest.mark.parametrize("together", [1, 4])
def test_metrics_that_are_reset_after_the_epoch_began(together):
    """As a training loop of the user's own may do it."""
    model, true, found = linear(), np.random.default_rng(0).uniform(1.0, 2.0, (3, 5)), []
    fit(model, [])
    (tracker,) = (metric for metric in model.metrics if metric.name == "loss")
    losses = BatchLoss(model, steps=5)
    for epoch in true:
        losses.begin_epoch()
        tracker.reset_state()
        reports = []
        for batch, loss in enumerate(epoch):
            tracker.update_state(loss, sample_weight=8.0)
            reports.append((batch, {"loss": tracker.result()}))
            if losses.alone or batch == 4 or len(reports) == together:
                found += [loss for loss, _ in losses.take(reports)]
                reports = []
    np.testing.assert_allclose(found, true.ravel(), **FIRST)


class ShowsItsOwn(keras.Sequential):
    """Of a `train_step` that keeps its loss in a metric of its own."""

    @property
    def metrics(self):
        return self.kept


@pytest.mark.parametrize("together", [1, 4])
@pytest.mark.parametrize("raw", [False, True], ids=["mean", "loss"])
@pytest.mark.parametrize("weight", [1.0, 8.0])
def test_a_metric_of_another_name(together, raw, weight):
    """The mean it shows is undone; a loss that is shown itself, beside such a metric, is not."""
    model, true, found = ShowsItsOwn(), np.random.default_rng(0).uniform(1.0, 2.0, (3, 5)), []
    tracker, other = keras.metrics.Mean("total_loss"), keras.metrics.Mean("kl_loss")
    model.kept = [other, tracker]
    losses = BatchLoss(model, steps=5)
    for epoch in true:
        for metric in model.kept:
            metric.reset_state()
        losses.begin_epoch()
        reports = []
        for batch, loss in enumerate(epoch):
            tracker.update_state(loss, sample_weight=weight)
            other.update_state(0.1 * loss, sample_weight=weight)
            reports.append((batch, {"loss": loss if raw else tracker.result()}))
            if losses.alone or batch == 4 or len(reports) == together:
                found += [loss for loss, _ in losses.take(reports)]
                reports = []
    np.testing.assert_allclose(found, true.ravel(), **FIRST)


class Renames(keras.Sequential):
    """Shows the mean of a metric called otherwise as its loss."""

    def compile(self, **arguments):
        super().compile(**arguments)
        self._loss_tracker = keras.metrics.Mean("total_loss")

    def get_metrics_result(self):
        return {"loss": super().get_metrics_result()["total_loss"]}


def test_a_metric_of_another_name_in_a_fit():
    spy, model = Spy(update_every=1, patience=NEVER), Renames(linear().layers)
    model.compile(optimizer=keras.optimizers.SGD(0.01), loss="mse")
    fit(model, [spy], samples=37, epochs=3)
    expected = losses_one_by_one(linear(), split(data(37), 8) * 3)
    np.testing.assert_allclose(spy.looked, expected, **FIRST)


def test_sample_weight():
    x, y = data(37)
    weights = np.random.default_rng(1).uniform(0.1, 3.0, size=37).astype("float32")
    spy = Spy(update_every=1, patience=NEVER)
    fit(linear(), [spy], samples=37, epochs=2, sample_weight=weights)
    expected = losses_one_by_one(linear(), split((x, y, weights), 8) * 2)
    np.testing.assert_allclose(spy.looked, expected, **FIRST)


def test_two_fits_with_different_batch_sizes():
    spy = Spy(update_every=1, patience=NEVER)
    model, reference = linear(), linear()
    for batch_size in (8, 5):
        fit(model, [spy], samples=37, batch_size=batch_size, epochs=2)
        expected = losses_one_by_one(reference, split(data(37), batch_size) * 2)
        np.testing.assert_allclose(spy.looked, expected, **FIRST)
        spy.looked = []


def test_a_long_epoch():
    # Targets of size one that nothing predicts: each batch's loss is near their mean,
    # and the float32 error of the mean is all that is left.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, 3)).astype("float32")
    y = rng.choice([-1.0, 1.0], size=(20_000, 1)).astype("float32")
    reference, late, batches = linear(), linear(), split((x, y), 4)

    class Copy(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == len(batches) - 200:
                late.set_weights(self.model.get_weights())

    spy = Spy(update_every=1, patience=NEVER)
    linear().fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=[spy, Copy()])
    np.testing.assert_allclose(
        spy.looked[:200], losses_one_by_one(reference, batches[:200]), **FIRST
    )
    np.testing.assert_allclose(spy.looked[-200:], losses_one_by_one(late, batches[-200:]), **LATE)
    assert len(spy.looked) == 5_000


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="one step per execution only")
@pytest.mark.parametrize("samples", [64, 93], ids=["whole executions", "unequal last"])
def test_steps_per_execution_gives_the_mean_of_the_four(samples):
    spy = Spy(update_every=1, patience=NEVER)
    fit(linear(steps_per_execution=4), [spy], samples=samples, epochs=2)
    batches = split(data(samples), 8)
    losses = losses_one_by_one(linear(), batches * 2)
    expected = []
    for epoch in (losses[: len(batches)], losses[len(batches) :]):
        for i in range(0, len(batches), 4):
            sizes = [len(batch[0]) for batch in batches[i : i + 4]]
            expected.append(np.average(epoch[i : i + 4], weights=sizes))
    np.testing.assert_allclose(spy.looked, expected, **FIRST)


def test_a_generator_of_unknown_length_with_batches_of_any_size():
    x, y = data(40)
    cuts = [0, 8, 11, 19, 20, 33, 40]
    batches = [(x[i:j], y[i:j]) for i, j in itertools.pairwise(cuts)]
    spy = Spy(update_every=1, patience=NEVER)
    linear().fit((batch for batch in batches), verbose=0, callbacks=[spy])
    assert spy.params["steps"] is None
    np.testing.assert_allclose(spy.looked, losses_one_by_one(linear(), batches), **FIRST)


def test_epochs_of_different_lengths():
    tf = pytest.importorskip("tensorflow")
    x, y = data(40)
    batches = split((x, y), 8)
    epochs = [batches[:3], batches, batches[:2], batches[1:]]
    lengths = []

    class Lengths(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            lengths.append(0)

        def on_train_batch_end(self, batch, logs=None):
            lengths[-1] = batch + 1

    dataset = tf.data.Dataset.from_generator(
        lambda: iter(epochs[len(lengths) - 1 if lengths else 0]),
        output_signature=(tf.TensorSpec((None, 3)), tf.TensorSpec((None, 1))),
    )
    spy = Spy(update_every=1, patience=NEVER)
    linear().fit(dataset, epochs=4, verbose=0, callbacks=[spy, Lengths()])
    assert lengths[0] < lengths[1] > lengths[2]  # Keras may end an epoch before the data do
    seen = [batch for part, n in zip(epochs, lengths, strict=True) for batch in part[:n]]
    np.testing.assert_allclose(spy.looked, losses_one_by_one(linear(), seen), **FIRST)


def test_batches_of_different_sizes_are_noticed_by_the_end_of_the_first_epoch():
    x, y = data(40)
    cuts = [0, 8, 11, 19, 20, 33, 40]
    batches = [(x[i:j], y[i:j]) for i, j in itertools.pairwise(cuts)]
    spy = Spy(update_every=1, patience=NEVER)
    linear().fit(
        (batch for batch in batches * 2),
        steps_per_epoch=6,
        epochs=2,
        verbose=0,
        callbacks=[spy],
    )
    expected = losses_one_by_one(linear(), batches * 2)
    np.testing.assert_allclose(spy.looked[6:], expected[6:], **FIRST)


def test_groups_of_batches_go_on_across_epochs():
    spy = Spy(update_every=3, patience=NEVER)
    fit(linear(), [spy], samples=40, epochs=4)
    losses = losses_one_by_one(linear(), split(data(40), 8) * 4)
    expected = np.mean(np.reshape(losses[:18], (6, 3)), axis=1)
    np.testing.assert_allclose(spy.looked, expected, **FIRST)


def test_a_group_of_an_epoch_is_the_loss_keras_shows():
    spy = Spy(update_every=5, patience=NEVER)
    history = fit(linear(), [spy], samples=40, epochs=4)
    np.testing.assert_allclose(spy.looked, history["loss"], **FIRST)


@pytest.mark.parametrize(
    "sizes",
    [[8, 8, 8, 8, 5], [8, 3, 8, 8, 2, 8], [3, 8, 8, 8], [8, 8, 8, 12]],
    ids=["short ones inside", "any", "a short first", "a long last"],
)
def test_batches_of_different_sizes_where_each_is_looked_at(sizes):
    x, y = data(sum(sizes))
    cuts = np.cumsum([0, *sizes])
    batches = [(x[i:j], y[i:j]) for i, j in itertools.pairwise(cuts)] * 9
    spy = Spy(update_every=1, factor=1 - 1e-9, patience=0)
    linear().fit(
        (batch for batch in batches), steps_per_epoch=7, epochs=4, verbose=0, callbacks=[spy]
    )  # 7: an epoch's end is not that of a pass through the data
    np.testing.assert_allclose(spy.looked, losses_one_by_one(linear(), batches[:28]), **FIRST)


def test_batches_of_different_sizes_that_were_looked_at_together_share_their_loss():
    x, y = data(69)
    batches = split((x, y), 8) * 9  # of nine the last is of five
    spy = Spy(update_every=1, patience=NEVER)
    stream = (batch for batch in batches)
    linear().fit(stream, steps_per_epoch=12, epochs=3, verbose=0, callbacks=[spy])
    losses = losses_one_by_one(linear(), batches[:36])
    sizes = [len(batch[0]) for batch in batches[:36]]
    # After the first report all but the last are looked at together; then each by itself.
    losses[1:11] = [np.average(losses[1:11], weights=sizes[1:11])] * 10
    np.testing.assert_allclose(spy.looked, losses, **FIRST)
