"""Callbacks that listen at batches' ends, in every way there is."""

import keras


class Hears(keras.callbacks.Callback):
    """Keeps which batches it was told of."""

    def __init__(self):
        super().__init__()
        self.heard = []

    def hear(self, batch, logs=None):
        self.heard.append(batch)


class AtTrainBatches(Hears):
    on_train_batch_end = Hears.hear


class AtBatches(Hears):
    on_batch_end = Hears.hear


class InAThread(AtTrainBatches):
    async_safe = True


class OfItsOwn(Hears):
    def __init__(self):
        super().__init__()
        self.on_train_batch_end = self.hear


class AProgressBar(keras.callbacks.ProgbarLogger):
    """A subclass, of which Keras' class does not tell how often it wants to be called."""


LISTENERS = [AtTrainBatches, AtBatches, InAThread, OfItsOwn, AProgressBar]
