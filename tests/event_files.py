"""What the tests of `ScheduleLogger` share."""

import keras
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

EPOCHS = 3
BATCHES = 13  # 203 samples in batches of 16


def read(log_dir):
    events = EventAccumulator(str(log_dir / "train"), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    scalars = {
        tag: {event.step: event.value for event in events.Scalars(tag)}
        for tag in events.Tags()["scalars"]
    }
    texts = {
        tag: {
            event.step: event.tensor_proto.string_val[0].decode() for event in events.Tensors(tag)
        }
        for tag in events.Tags()["tensors"]
    }
    return scalars, texts


class BatchRates(keras.callbacks.Callback):
    """The rate each batch was trained with, read the plain way."""

    def __init__(self):
        super().__init__()
        self.rates = []

    def on_train_batch_begin(self, batch, logs=None):
        rate = self.model.optimizer.learning_rate.value
        self.rates.append(float(keras.ops.convert_to_numpy(rate)))


def fit(model, data, callbacks, **arguments):
    return model.fit(
        *data, batch_size=16, epochs=EPOCHS, shuffle=False, verbose=0, callbacks=callbacks,
        **arguments,
    )  # fmt: skip
