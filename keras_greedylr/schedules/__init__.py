"""The fixed schedules that Keras lacks.

Each is a pure function of the step `t`, counted from 0 and trained with the
rate `schedule(t)`. Keras has the others, and they are not written again:

| schedule | in `keras.optimizers.schedules` |
| --- | --- |
| step | `ExponentialDecay(..., staircase=True)`, `PiecewiseConstantDecay` |
| exponential | `ExponentialDecay` |
| linear, polynomial | `PolynomialDecay` (linear is its default, `power=1.0`) |
| cosine, with restarts | `CosineDecay`, `CosineDecayRestarts` |

`Warmup` puts a linear warmup before any schedule, or before a constant rate.
"""

from keras_greedylr.schedules.cyclic import Cyclic
from keras_greedylr.schedules.inverse_square_root import InverseSquareRoot
from keras_greedylr.schedules.one_cycle import OneCycle
from keras_greedylr.schedules.warmup import Warmup
from keras_greedylr.schedules.warmup_stable_decay import WarmupStableDecay

__all__ = ["Cyclic", "InverseSquareRoot", "OneCycle", "Warmup", "WarmupStableDecay"]
