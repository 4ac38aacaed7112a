"""Runs to report: made up, but with a plan that was compiled and a spool that the tracker has written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from random import Random

from storage.files import write_whole
from tunery.cluster.tracking import Tracker
from tunery.plan import Plan, Study, compile_plan
from tunery.runs import RunFolder, RunState, StudyState, TrialState, Value
from tunery.spec import parse_spec

START = 1_790_000_000.0

MATRIX = """
apiVersion: tunery/v1
kind: Sweep
name: scale
model: {id: "embedded:minilm"}
tasks: [cola]
tuner: {method: lora, rank: 8, alpha: 16, target_modules: [query, value]}
train: {learning_rate: 3.0e-4, epochs: 4}
matrix: {tuner.method: [lora, qlora], data.max_train: [2000, 5000, 20000]}
search:
  trials: 8
  rerun_best: {seeds: 3, top: 1}
  space:
    tuner.rank: {choice: [4, 8, 16]}
    train.learning_rate: {log_uniform: [1.0e-4, 1.0e-3]}
    tuner.dropout: {uniform: [0.0, 0.2]}
"""


class MadeUp:
    """A run on disk, as one that has finished would lie there."""

    def __init__(self, home: Path, text: str = MATRIX, *, seed: int = 0, failing: tuple[str, ...] = ()) -> None:
        """`failing`: studies whose every trial fails."""
        self.plan: Plan = compile_plan(parse_spec(text, file="made-up.yaml"))
        self.folder = RunFolder(home / "runs" / self.plan.run_id)
        self._draw = Random(seed)
        write_whole(self.folder.plan_file, self.plan.model_dump_json().encode())
        tracker = Tracker(self.folder.spool)
        studies = tuple(self._study(tracker, study, study.name in failing) for study in self.plan.studies)
        tracker.close()
        self.state = RunState(
            run_id=self.plan.run_id,
            name=self.plan.spec.name,
            status="failed" if failing else "finished",
            studies=studies,
            started_at=START,
            updated_at=START + 4000,
            ended_at=START + 4000,
        )
        self.folder.write_state(self.state)

    def _study(self, tracker: Tracker, study: Study, fails: bool) -> StudyState:
        tracker.study_started(
            study.name, experiment="e", run_name=study.name, tags={}, params={}, files={}, at_ms=int(START * 1000)
        )
        state = StudyState(
            name=study.name,
            task=study.task,
            cell=study.cell,
            objective=study.definition.objective_name,
            metrics=study.definition.metrics,
            planned=study.search.most_trials,
        )
        if fails:
            lost = TrialState(number=0, status="failed", error="diverged at step 3: the loss is nan\nmore of it")
            return state.model_copy(update={"status": "failed", "trials": (lost,), "error": "every trial failed: nan"})
        trials: list[TrialState] = []
        for number in range(study.search.trials):
            draw = study.default_draw() if number == 0 else self._drawn(study)
            trials.append(self._trial(tracker, study, number, draw, origin="spec" if number == 0 else ""))
        best = max((t for t in trials if t.status == "finished"), key=lambda trial: trial.objective or 0.0)
        again = study.search.rerun_best
        for seed in range(again.seeds if again else 0):
            config = {**best.config, "train.seed": 100 + seed}
            trials.append(self._trial(tracker, study, len(trials), config, rerun_of=best.number))
        best = max((t for t in trials if t.status == "finished"), key=lambda trial: trial.objective or 0.0)
        ended: Mapping[str, object] = {"status": "finished", "trials": tuple(trials), "best": best.number}
        return state.model_copy(update={**ended, "model": study.registry_name, "model_version": "1", "champion": True})

    def _drawn(self, study: Study) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for path, drawn in study.search.space.items():
            listed, ends = drawn.listed(), drawn.ends()
            low, high = ends[0], ends[-1]
            if listed is not None:
                values[path] = self._draw.choice(list(listed))
            else:
                assert isinstance(low, float)
                assert isinstance(high, float)
                values[path] = (
                    round(low * (high / low) ** self._draw.random(), 6) if low else self._draw.uniform(low, high)
                )
        return values

    def _trial(
        self,
        tracker: Tracker,
        study: Study,
        number: int,
        draw: Mapping[str, Value],
        *,
        origin: str = "",
        rerun_of: int | None = None,
    ) -> TrialState:
        """More data, and a rate near 4e-4, are better; 4 bits cost a little, and are slower; every fourth is pruned."""
        rows, quantised = study.data.max_train or 8551, study.tuner.method == "qlora"
        rate = float(draw.get("train.learning_rate") or 3e-4)
        top = 0.3 + 0.06 * math.log10(rows) - 0.012 * quantised - 0.08 * abs(math.log10(rate / 4e-4))
        top += self._draw.gauss(0, 0.006)
        pruned = rerun_of is None and number % 4 == 3
        epochs = 2 if pruned else 4
        began = START + 60 * number
        tracker.trial_started(study.name, number, params={}, tags={}, at_ms=int(began * 1000))
        took = rows / (400 if quantised else 600)
        metrics: dict[str, float] = {}
        best = -1.0
        for epoch in range(1, epochs + 1):
            value = top * (1 - 0.5**epoch) + self._draw.gauss(0, 0.002)
            found = {
                **dict.fromkeys(study.definition.metrics, value),
                "objective": value,
                "loss": 0.35 + 0.4 * 0.6**epoch + self._draw.gauss(0, 0.01),
                "train_loss": 0.25 + 0.5 * 0.5**epoch,
                "examples_per_s": rows / took,
                "evaluated_per_s": 2 * rows / took,
                "peak_memory_bytes": 0.9e9 if quantised else 1.4e9,
                "trainable_parameters": 147_456.0,
                "total_parameters": 22_713_216.0,
                "epoch": float(epoch),
            }
            if value > best:
                best, metrics = value, found
            at_ms = int((began + epoch * took) * 1000)
            tracker.metrics(study.name, number, found, step=epoch * rows // 32, at_ms=at_ms)
        ended = began + epochs * took + 1
        tracker.trial_ended(study.name, number, status="FINISHED", at_ms=int(ended * 1000))
        return TrialState(
            number=number,
            status="pruned" if pruned else "finished",
            config=draw,
            epoch=epochs,
            epochs=4,
            step=epochs * rows // 32,
            steps=4 * rows // 32,
            objective=best,
            metrics=metrics,
            started_at=began,
            ended_at=ended,
            origin=origin,
            rerun_of=rerun_of,
        )
