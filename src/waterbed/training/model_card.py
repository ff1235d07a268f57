"""The README.md of a published run: front matter for the Hugging Face Hub, and the numbers that were measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from waterbed.errors import UsageError, UsageTypeError

TASK = "image-classification"
# What waterbed evaluate RUN and waterbed measure RUN write into the run folder.
EVALUATION, MEASURES = "evaluation.json", "measures.json"
WATCHED = {"test_clean": "clean, at the end of training", "test_robust": "robust, at the end of training"}
ENVIRONMENT = ("waterbed", "torch", "python", "device")


def model_card(
    repository: str,
    config: Mapping[str, Any],
    record: Mapping[str, Any],
    reports: Sequence[Mapping[str, Any]],
    measures: Mapping[str, Any],
    environment: Mapping[str, Any],
    license: str | None,
) -> str:
    """The text of README.md.

    Args:
        repository: "owner/name".
        config: of the run; where its data lay is left out.
        record: of the epoch whose weights are published.
        reports: accuracies, see :func:`evaluations`.
        measures: see :func:`measurements`.
        environment: of the training.
        license: of the weights, such as "mit".
    """
    from huggingface_hub import EvalResult, ModelCardData

    data = config["data"]
    accuracies = _accuracies(reports, record)
    results = [
        EvalResult(
            task_type=TASK,
            dataset_type=data["name"],
            dataset_name=data["name"],
            dataset_split="test",
            metric_type="accuracy",
            metric_name=name,
            metric_value=round(row["value"], 2),
        )
        for name, row in accuracies.items()
    ]
    front = ModelCardData(
        model_name=repository.partition("/")[2],
        library_name="waterbed",
        license=license,
        pipeline_tag=TASK,
        tags=["waterbed", "robustness", str(config["objective"]["name"])],
        datasets=[data["name"]],
        metrics=["accuracy"],
        eval_results=results or None,
    )
    sections = [
        f"---\n{front.to_yaml()}\n---",
        f"# {repository.partition('/')[2]}",
        f"A classifier of {data['name']} ({len(data['classes'])} classes), trained with waterbed. It takes images "
        f"{_times(data['shape'])} in [0, 1]; normalisation is inside the model.",
        f'```python\nimport waterbed as wb\n\nrun = wb.Run.from_pretrained("{repository}", download=True)\n'
        "run.model(images)  # images in [0, 1]\n```",
        _table("Accuracy on test images [%]", ("", "accuracy", "95 % interval", "images"), _accuracy_rows(accuracies)),
        _table("Measured", ("quantity", "value", "standard error", "unit", "images"), _measure_rows(measures)),
        _table("Training", ("setting", "value"), _setting_rows(config)),
        _table("Environment", ("", ""), [[k, environment[k]] for k in ENVIRONMENT if k in environment]),
        f"Classes, in the order of the logits: {', '.join(map(str, data['classes']))}.",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def evaluations(given: Any, folder: Path | None) -> list[Mapping[str, Any]]:
    """Accuracies as plain numbers: of the scores or reports ``given``, else of the run folder's evaluation.json.

    Raises:
        UsageTypeError: ``given`` is nothing of the kind.
        UsageError: the file is damaged or about other runs.
    """
    found = _beside(folder, EVALUATION) if given is None else given
    found = list(found) if isinstance(found, Sequence) else [found] if found else []
    plain = [report.to_dict() if hasattr(report, "to_dict") else report for report in found]
    if not all(isinstance(report, Mapping) and {"clean", "robust"} <= set(report) for report in plain):
        raise UsageTypeError(
            f"evaluation={type(given).__name__} must be what evaluate or evaluate_standard returned, or a list of them"
        )
    return plain


def measurements(given: Any, folder: Path | None) -> dict[str, Any]:
    """Measures as plain numbers: those ``given``, else those of the run folder's measures.json; errors as above."""
    found = _beside(folder, MEASURES) if given is None else given
    if found and not isinstance(found, Mapping):
        raise UsageTypeError(f"measures={type(given).__name__} must be what measure returned")
    return {name: e.to_dict() if hasattr(e, "to_dict") else e for name, e in (found or {}).items()}


def _beside(folder: Path | None, file: str) -> Any:
    """What a command wrote about the run into its folder; None if there is no such file."""
    path = None if folder is None else folder / file
    if path is None or not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
        return content[folder.resolve().name] if len(content) > 1 else next(iter(content.values()))
    except (OSError, ValueError, TypeError, AttributeError, KeyError, StopIteration) as error:
        raise UsageError(
            f"{str(path)!r} holds no results of this run ({type(error).__name__}); delete it or write it again"
        ) from error


def _accuracies(reports: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What was measured, by its name, each with value and, from an evaluation, interval and number of images."""
    if not reports:
        return {name: {"value": record[key]} for key, name in WATCHED.items() if key in record}
    accuracies = {"clean": reports[0]["clean"]}
    for report in reports:
        accuracies |= {name: row for name, row in report["robust"].items() if row is not None}
    return accuracies


def _accuracy_rows(accuracies: Mapping[str, Mapping[str, Any]]) -> list[list[Any]]:
    return [
        [
            name,
            f"{row['value']:.2f}",
            f"[{row['low']:.2f}, {row['high']:.2f}]" if "low" in row else "",
            row.get("n", ""),
        ]
        for name, row in accuracies.items()
    ]


def _measure_rows(measures: Mapping[str, Any]) -> list[list[Any]]:
    return [
        [name, f"{e['value']:.6g}", "" if e["stderr"] is None else f"{e['stderr']:.2g}", e["unit"], e["n"]]
        if isinstance(e, Mapping)
        else [name, f"{e:.6g}", "", "", ""]
        for name, e in measures.items()
    ]


def _setting_rows(config: Mapping[str, Any]) -> list[list[Any]]:
    shown = {key: value for key, value in config.items() if key not in ("source", "data")}
    images = [[f"{split} images", config["data"][split]] for split in ("train", "test") if split in config["data"]]
    return images + [
        [key, ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)]
        for key, value in shown.items()
    ]


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown under a heading; empty without rows."""
    if not rows:
        return ""
    lines = [columns, ["---"] * len(columns), *rows]
    return f"## {title}\n\n" + "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
