"""GreedyOptimizer saved, restored and made anew: the path of rates goes on."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from given_losses import (
    LOSSES,
    RULE,
    START,
    TOLERANCE,
    assert_same_state,
    fit,
    follow,
    given,
    greedy,
    make_model,
    record_compiled,
)
from helpers import Probe
from keras import ops

from keras_greedylr import GreedyRule


def through_keras_file(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def through_weights_file(model, folder):
    model.save_weights(folder / "model.weights.h5")
    again = make_model(greedy(gradient_accumulation_steps=2))
    again.optimizer.build(again.trainable_variables)
    again.load_weights(folder / "model.weights.h5")
    return again


@pytest.mark.parametrize("copied", [through_keras_file, through_weights_file])
def test_a_loaded_model_goes_on_exactly(copied, tmp_path):
    model = make_model(greedy(gradient_accumulation_steps=2))
    fit(model, LOSSES[:31])  # in the middle of an accumulation
    models = [model, copied(model, tmp_path)]
    probes = [Probe(), Probe()]
    for one, probe in zip(models, probes, strict=True):
        fit(one, LOSSES[31:], [probe])
    assert probes[0].batches == probes[1].batches
    assert len(set(probes[0].batches)) > 3
    assert models[0].optimizer.state == models[1].optimizer.state
    np.testing.assert_array_equal(models[0].get_weights()[0], models[1].get_weights()[0])


def test_backup_and_restore_goes_on_exactly(tmp_path):
    class Crash(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 4 and self.epoch == 2:
                raise KeyboardInterrupt

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

    whole, rest = Probe(), Probe()
    fit(make_model(greedy()), LOSSES[:11], [whole], epochs=4)
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(make_model(greedy()), LOSSES[:11], [backup, Crash()], epochs=4)
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    fit(make_model(greedy()), LOSSES[:11], [backup, rest], epochs=4)
    assert rest.batches == whole.batches[22:]


PATIENT = dataclasses.replace(RULE, patience=3)  # so that losses are kept for some steps


def look_at_state(optimizer):
    return optimizer.state


def look_at_variables(optimizer):
    return [ops.convert_to_numpy(variable) for variable in optimizer.variables]


@pytest.mark.parametrize("look", [look_at_state, look_at_variables])
def test_who_looks_sees_all_losses_and_changes_nothing(look):
    class Looks(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            look(self.model.optimizer)
            states.append(self.model.optimizer.state)

    states, models, probes = [], [], []
    for beside in ([], [Looks()]):
        models.append(make_model(greedy(PATIENT)))
        probes.append(Probe())
        fit(models[-1], LOSSES, [probes[-1], *beside])
    assert probes[0].batches == probes[1].batches
    assert models[0].optimizer.state == models[1].optimizer.state
    for ours, theirs in zip(states, follow(PATIENT, LOSSES)[1:], strict=True):
        assert_same_state(ours, theirs)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="formats of TensorFlow")
def test_a_trained_model_is_saved_in_tensorflows_formats(tmp_path):
    import tensorflow as tf

    model = make_model(greedy(PATIENT))
    fit(model, LOSSES[:2])
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    x = np.ones((3, *model.input_shape[1:]), "float32")
    np.testing.assert_allclose(exported.serve(x), model.predict(x, verbose=0), rtol=1e-6)
    saved = tf.train.Checkpoint(optimizer=model.optimizer).save(tmp_path / "checkpoint")
    again = make_model(greedy(PATIENT))
    fit(again, LOSSES[:1])
    tf.train.Checkpoint(optimizer=again.optimizer).restore(saved).assert_consumed()
    assert again.optimizer.state == model.optimizer.state


@pytest.mark.parametrize("done", range(20, 28))
def test_weights_that_are_loaded_in_the_middle_count(done):
    source, target = make_model(greedy(PATIENT)), make_model(greedy(PATIENT))
    fit(source, LOSSES[:done])
    fit(target, LOSSES[:2])  # both losses may be kept still
    for mine, other in zip(target.optimizer.variables, source.optimizer.variables, strict=True):
        mine.assign(ops.convert_to_numpy(other))
    fit(target, LOSSES[done:])
    fit(source, LOSSES[done:])
    assert target.optimizer.state == source.optimizer.state


@pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="elsewhere it is always on the device"
)
@pytest.mark.parametrize("cut", [13, 20, 30])
def test_compiled_steps_and_others_make_one_path(cut, monkeypatch):
    record_compiled(monkeypatch)
    model, probe, path = make_model(greedy(PATIENT)), Probe(), []
    for begin, end, compiled in ((0, cut, False), (cut, cut + 3, True), (cut + 3, 66, False)):
        model.compile(model.optimizer, loss=given, jit_compile=compiled)
        fit(model, LOSSES[begin:end], [probe])
        path += probe.batches
    expected = [state.learning_rate for state in follow(PATIENT, LOSSES)]
    np.testing.assert_allclose(path, expected[:-1], rtol=TOLERANCE)


def test_the_configuration_makes_the_same_optimizer():
    optimizer = greedy(dataclasses.replace(RULE, mode="max"), momentum=0.9, use_ema=True)
    config = json.loads(json.dumps(keras.optimizers.serialize(optimizer), allow_nan=False))
    again = keras.optimizers.deserialize(config)
    assert again.rule == optimizer.rule
    assert again.inner_optimizer.momentum == 0.9
    assert keras.optimizers.serialize(again) == keras.optimizers.serialize(optimizer)


def test_the_rule_goes_on_from_a_rate_that_is_assigned():
    model = make_model(greedy(GreedyRule(factor=0.5, patience=0)))
    fit(model, [3.0, 2.0])
    assert float(ops.convert_to_numpy(model.optimizer.learning_rate)) == pytest.approx(4 * START)
    model.optimizer.learning_rate = 0.2
    fit(model, [1.0])
    assert float(ops.convert_to_numpy(model.optimizer.learning_rate)) == pytest.approx(0.4)
    assert model.optimizer.state.initial_learning_rate == pytest.approx(START)
