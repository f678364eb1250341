"""The learning rate of every step of a fine-tune, all of them before it starts.

A table instead of a scheduler: a fine-tune that is continued has nothing of it to restore.
"""

from __future__ import annotations

import torch
from litgpt.finetune.lora import get_lr_scheduler

from fractopt.objective.lora.hyperparameters import Hyperparameters


def learning_rates(hyperparameters: Hyperparameters, total: int) -> list[float]:
    """The learning rate of each of `total` steps: rising linearly from 0, then by the schedule.

    The cosine is litgpt's own, to the last bit. The linear schedule falls to 0 one step after the last. Each
    is as long as the warm-up leaves it; a warm-up that is longer than the training never ends.
    """
    warmup = hyperparameters.warmup(total)
    peak = hyperparameters.learning_rate
    if hyperparameters.schedule == "cosine":
        return _litgpts(peak, warmup, total)
    falls = hyperparameters.schedule == "linear"
    rising = [peak * (step / warmup) for step in range(min(warmup, total))]
    return rising + [
        peak * ((total - step) / (total - warmup)) if falls else peak for step in range(warmup, total)
    ]


def _litgpts(peak: float, warmup: int, total: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    if warmup == 0:  # which litgpt divides by
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total)
    else:
        scheduler = get_lr_scheduler(optimizer, warmup_steps=warmup, max_steps=max(total, warmup + 1))
    rates = []
    for _ in range(total):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return rates
