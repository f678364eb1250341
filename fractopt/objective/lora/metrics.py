"""A metric by its name: a task of lm-eval and one of its scores. No torch here."""

from __future__ import annotations

YAML = (".yaml", ".yml")  # what the path of a task's file ends with

# lm-eval's scores of which less is better, and those that are no mean over the questions.
LESS_IS_BETTER = ("brier_score",)
NO_MEANS = ("f1", "mcc", "perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte")


def split_metric(metric: str) -> tuple[str, str]:
    """Task and score of "task/score"; raises ValueError for another form, or a score that is no mean."""
    task, _, score = metric.rpartition("/")
    if not task or not score:
        raise ValueError(f"expected 'task/score' (for example 'hellaswag/acc_norm'), got {metric!r}")
    if score in NO_MEANS:
        raise ValueError(
            f"expected a score that is a mean over the questions, such as acc or acc_norm, got {metric!r}"
        )
    if not task.endswith(YAML) and ("/" in task or task.startswith(".")):
        raise ValueError(f"expected a task's name, or the path of its {YAML[0]} file, got {task!r}")
    return task, score


def less_is_better(metric: str) -> bool:
    """Whether of a metric "task/score" a lower value is better."""
    return metric.rpartition("/")[2] in LESS_IS_BETTER
