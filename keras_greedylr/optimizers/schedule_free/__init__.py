"""Schedule-Free SGD and AdamW: averaging in place of a schedule.

    y_k     = (1 - beta) z_k + beta x_k               where the gradient is taken
    z_{k+1} = z_k - lr_k g(y_k)                       the plain optimizer's steps
    x_{k+1} = (1 - c_{k+1}) x_k + c_{k+1} z_{k+1}     their average, to be evaluated

with the warmed-up rate `lr_k = lr min(1, (k+1) / warmup_steps)` and the weights
`c_{k+1} = w_k / (w_0 + ... + w_k)`, `w_k = (k+1)^r max(lr_0, ..., lr_k)^p`,
`p = weight_lr_power` (Defazio et al., 2024, https://arxiv.org/abs/2405.15682).
"""

from keras_greedylr.optimizers.schedule_free.adamw import ScheduleFreeAdamW
from keras_greedylr.optimizers.schedule_free.sgd import ScheduleFreeSGD
from keras_greedylr.optimizers.schedule_free.swap_weights import SwapScheduleFreeWeights

__all__ = ["ScheduleFreeAdamW", "ScheduleFreeSGD", "SwapScheduleFreeWeights"]
