"""The model card of an exported adapter: README.md as the Hugging Face hub reads it.

It says what the adapter is, what it is worth and how that is known, and nothing of the machine that it
comes from: a path is cut to its last name, a secret masked.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fractopt.archive.history import History, Row
from fractopt.archive.result import evaluation_directory
from fractopt.objective.lora.answers import mean_and_stderr, read_answers
from fractopt.objective.lora.export.saved import Saved
from fractopt.objective.lora.files import COMMIT
from fractopt.objective.lora.metrics import YAML
from fractopt.objective.lora.settings import LoraSettings
from fractopt.optimizer.replicates import Recommended
from fractopt.report.comparison import comparisons, test_metrics
from fractopt.report.verdict import comparison_text, error_source
from fractopt.text import shown
from fractopt.trial import Kind

_PATH = re.compile(r"(?<![\w./:])(?:~|/[\w.@+-]+)(?:/[\w.@+-]+)+")  # an absolute path of two names or more


def card(
    history: History,
    directory: Path,
    row: Row,
    found: Recommended | None,
    settings: LoraSettings,
    saved: Saved,
    *,
    versions: Mapping[str, str],
    again: bool,
) -> str:
    """The card of the adapter of evaluation `row`, of the run in `directory` that recommends `found`.

    `again` where it was fine-tuned once more to be exported; `versions` of the packages, by name.
    """
    paragraphs = [
        "\n".join(["---", *_front(history, directory, row, settings, saved), "---"]),
        *_head(history, directory, row, found, saved, again),
        "## Loading it",
        *_loading(settings, saved),
        "## What it is worth",
        "\n".join(_worth(history, directory, row, found)),
        "## How it was made",
        "\n".join(_training(row, settings, saved)),
        "## What was checked",
        *_checked(saved),
        "## Where it comes from",
        _origin(history, directory, versions),
    ]
    return shown(without_paths("\n\n".join(paragraphs))) + "\n"


def without_paths(text: str) -> str:
    """`text` with no absolute path in it: each is cut to its last name."""
    return _PATH.sub(lambda match: match[0].rpartition("/")[2], text)


def _shown_metric(metric: str) -> str:
    """A metric whose task is a file of this machine, by the file's name."""
    task, _, score = metric.rpartition("/")
    return f"{os.path.basename(task)}/{score}" if task.endswith(YAML) else metric


def _front(
    history: History, directory: Path, row: Row, settings: LoraSettings, saved: Saved
) -> Iterator[str]:
    """The front matter. A text of JSON is one of YAML."""
    yield f"base_model: {json.dumps(saved.base_name)}"
    yield f"library_name: {'peft' if 'PEFT adapter' in saved.differences else 'litgpt'}"
    yield "pipeline_tag: text-generation"
    data = settings.data.name
    if data is not None and "/" in data and not data.startswith("fractopt/"):
        yield f"datasets: [{json.dumps(data)}]"
    yield 'tags: ["lora", "fractopt", "text-generation"]'
    yield "model-index:"
    yield f"- name: {json.dumps(_name(directory, row))}"
    yield "  results:"
    for metric, value, _ in _values(history, directory, row):
        task, _, score = _shown_metric(metric).rpartition("/")
        yield "  - task: {type: text-generation}"
        yield f"    dataset: {{type: {json.dumps(task)}, name: {json.dumps(task)}}}"
        yield f"    metrics: [{{type: {json.dumps(score)}, value: {value:.6g}}}]"


def _name(directory: Path, row: Row) -> str:
    return f"{directory.absolute().name}-{row.id}"


def _head(
    history: History, directory: Path, row: Row, found: Recommended | None, saved: Saved, again: bool
) -> Iterator[str]:
    chosen = "the one" if found is not None and found.id == row.id else "not the one"
    default = ", the default," if row.kind is Kind.DEFAULT else ""
    yield f"# {_name(directory, row)}: a LoRA adapter of {saved.base_name}"
    yield (
        f"Configuration {row.id}{default} of a hyperparameter search by fractopt "
        f"({history.manifest.optimizer}, {len(history.evaluations)} evaluations), {chosen} it recommends."
    )
    if again:
        yield (
            "The search did not keep these weights: they were fine-tuned once more, with the same seed. The "
            "values below are those of the search's own fine-tune."
        )


def _loading(settings: LoraSettings, saved: Saved) -> Iterator[str]:
    base, revision = json.dumps(saved.base_name), settings.model.revision
    if COMMIT.fullmatch(revision):
        base += f", revision={json.dumps(revision)}"
    merged = "transformers merged" in saved.differences
    if not saved.on_hub:
        yield (
            f"The search had its base model from files, not from the hub: where {saved.base_name} below is "
            "not there, or is another one there, give the directory of the right one."
        )
    if "PEFT adapter" in saved.differences:
        yield (
            "```python\n"
            "from peft import PeftModel; from transformers import AutoModelForCausalLM, AutoTokenizer\n"
            f'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({base}), ".")\n'
            'tokenizer = AutoTokenizer.from_pretrained(".")\n'
            "```"
        )
    if merged:
        yield 'The whole model, in 32 bits, is in merged/: `AutoModelForCausalLM.from_pretrained("merged")`.'
    if "PEFT adapter" in saved.differences and saved.tied:
        instead = "take merged/, which has a head of its own" if merged else "export it merged instead"
        yield (
            "The base model has one matrix for its embedding and its head, and the adapter changes the head: "
            f"PEFT's `merge_and_unload` would change the embedding with it, so {instead}."
        )
    if "litgpt adapter" in saved.differences:
        merge = f"litgpt merge_lora litgpt --pretrained_checkpoint_dir checkpoints/{saved.base_name}\n"
        yield (
            "```bash\n"
            f"{'' if 'litgpt merged' in saved.differences else merge}"
            'litgpt generate litgpt --prompt "..."\n'
            "litgpt chat litgpt\n"
            "```"
        )


def _values(history: History, directory: Path, row: Row) -> Iterator[tuple[str, float, str]]:
    """Metric, value of this adapter, and what kind of number that is with its error."""
    assert row.outcome is not None
    error = row.outcome.stderr
    plus = "" if error is None else f" ± {error:.4g} (standard error {error_source(history)})"
    yield history.manifest.metric, row.value, f"{plus}; it took part in the choice, which flatters it"
    try:
        answers = read_answers(evaluation_directory(directory, row.id))
    except (OSError, ValueError):
        answers = {}
    record = history.tests.get(row.id, {"outcome": {}})
    for metric in sorted(test_metrics(history, row)):
        value = {**row.outcome.metrics, **record["outcome"].get("metrics", {})}[metric]
        plus = ""
        if metric in answers:
            plus = f" ± {mean_and_stderr(answers[metric])[1]:.4g} (standard error of sampling the questions)"
        yield metric, float(value), f"{plus}; the search never saw it"


def _worth(history: History, directory: Path, row: Row, found: Recommended | None) -> Iterator[str]:
    for metric, value, said in _values(history, directory, row):
        yield f"- {_shown_metric(metric)} {value:.6g}{said}"
    if found is not None and found.id == row.id and found.confirmations:
        known = not math.isnan(found.stderr)
        seeds = f" ± {found.stderr:.4g} (standard error by training seed)" if known else ""
        yield (
            f"- {_shown_metric(history.manifest.metric)} {found.value:.6g}{seeds}: the mean of "
            f"{found.confirmations} fine-tunes of this configuration with other seeds, which took no part in "
            "the choice. That is what to expect of it; this adapter is none of them"
        )
    for c in comparisons(history, directory, row.id):
        whom = "the untuned model" if c.against is Kind.BASE else "the default configuration"
        yield f"- against {whom}: {comparison_text(replace(c, metric=_shown_metric(c.metric)))}"


def _training(row: Row, settings: LoraSettings, saved: Saved) -> Iterator[str]:
    seed = settings.train.seed
    yield "| | |"
    yield "|---|---|"
    yield f"| base model | {saved.base_name}, revision {settings.model.revision} |"
    yield f"| precision | {saved.precision} |"
    for name, value in asdict(settings.data).items():
        if value is not None:  # a path is of this machine, its last name is not
            yield f"| data: {name} | {os.path.basename(value) if name == 'path' else _cell(value)} |"
    for name, value in asdict(settings.train.hyperparameters(row.params)).items():
        if value is not None:
            yield f"| {name} | {_cell(value)}{' (searched)' if name in row.params else ''} |"
    yield f"| training seed | {'one of its own' if seed == 'per-trial' else seed} |"


def _cell(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _checked(saved: Saved) -> Iterator[str]:
    yield (
        "Each form was loaded again and its logits compared with the tuned model's, in 32 bits on the CPU: "
        f"the largest logit is {saved.scale:.3g}, and the adapter changes logits by up to {saved.effect:.3g}."
    )
    yield "\n".join(
        f"- {form}: they differ by {most:.2g} at most" for form, most in saved.differences.items()
    )


def _origin(history: History, directory: Path, versions: Mapping[str, str]) -> str:
    first: Mapping[str, Any] = next((record for record in history.records if "uuid" in record), {})
    begun = time.strftime("%Y-%m-%d", time.gmtime(float(first.get("time", 0.0))))
    known = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"Run {directory.absolute().name}, begun {begun}, identity {first.get('uuid', 'unknown')}, seed "
        f"{history.manifest.seed}. Versions: {known or 'unknown'}."
    )
