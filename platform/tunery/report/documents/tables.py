"""For programs: `results_summary.csv`, a row a study, and `all_results.json`, with every metric of each evaluation."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tunery.report import trials
from tunery.report.documents.answers import NOTES, Answer
from tunery.report.documents.facts import Facts, Result


def summary_csv(facts: Facts) -> bytes:
    """A row a study; UTF-8. What is not known is empty."""
    rows = [_summary(facts, result) for result in facts.results]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def all_results(facts: Facts, answers: Sequence[Answer], left_out: Mapping[str, str]) -> bytes:
    """`compare`'s document, and of each study what the summary has, of each trial its evaluations."""
    document = trials.document(facts.state, facts.defaults)
    for study, result in zip(document["studies"], facts.results, strict=True):
        study["summary"] = _summary(facts, result)
        study["error"], study["notes"] = result.study.error, list(result.study.notes)
        for trial in study["trials"]:
            points = facts.curves.of(study["study"], trial["trial"])
            trial["evaluations"] = [
                {"step": point.step, "at": point.at_s, "cost_s": point.cost_s, **point.values} for point in points
            ]
    document["answers"] = [asdict(answer) for answer in answers]
    document["notes"] = list(NOTES)
    document["left_out"] = dict(left_out)
    return json.dumps(_finite(document), indent=1, ensure_ascii=False, allow_nan=False).encode()


def _summary(facts: Facts, result: Result) -> dict[str, Any]:
    study, standing, best = result.study, result.standing, result.best
    return {
        "study": study.name,
        "task": study.task,
        **{path: study.cell.get(path) for path in facts.axes},
        "status": study.status,
        "objective": study.objective,
        "direction": study.direction,
        "best_score": result.score,
        "best_trial": best.number if best else None,
        "mean_over_seeds": standing.mean if standing else None,
        "deviation_over_seeds": standing.deviation if standing else None,
        "seeds": len(standing.runs) if standing else None,
        "trials": len(study.trials),
        **{status: result.count(status) for status in ("finished", "pruned", "failed")},
        "trial_seconds": round(result.seconds, 3),
        "best_trial_seconds": round(result.best_seconds, 3),
        "trainable_share": result.trainable_share,
        "model": study.model,
        "model_version": study.model_version,
        "champion": study.champion,
        **(best.metrics if best else {}),
        **({f"best:{path}": value for path, value in best.config.items()} if best else {}),
    }


def _finite(value: Any) -> Any:
    """JSON has no NaN: null, as in the commands' documents."""
    match value:
        case Mapping():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case float() if not math.isfinite(value):
            return None
        case _:
            return value
