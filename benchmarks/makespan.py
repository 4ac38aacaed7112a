"""Makespan of a whole sweep at equal quality: the rivals and the platform on the same rows and configurations.

    python -m benchmarks.makespan --tasks cola stsb sst2
    python -m benchmarks.makespan --tasks qnli --min-tokens 55         # pairs as long as RTE's (69 tokens a row)

Wall seconds of each arm hold everything that a user waits for: processes, imports, loading, tokenising, training, an
evaluation after every epoch, and for the platform the registration of the best model. All arms train the same
configurations (rank and learning rate drawn once with a seed) on the same rows for the same number of steps.

The arms:
  a   hf-padded            HF Trainer + PEFT padded to --max-length, a process a trial, one after another
  b   hf-grouped           the same, length-grouped
  b2  hf-grouped-per-core  the same, a process a core with one thread each
  c   ray-tune             Ray Tune + Optuna over (b), a trial a core, actors used again
  d   bare                 the engine in a plain loop: unpadded, one trial after another in one process, no platform
  e   ours-one             `platform submit` with one pack of one seat
  f   ours-packs           `platform submit` with a pack a core of --seats seats
  g   ours-asha            (f) with early stopping

e/d is the platform's tax, e/f what packs bring, f/g what early stopping brings. Of (a), which is slow, a few trials
run (--padded-trials) and their time is scaled up; the table says so. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.sweeps import arms
from benchmarks.sweeps.outcome import Outcome, difference
from benchmarks.sweeps.rows import Bounds, Written, write
from benchmarks.sweeps.sweep import Draw, Sweep, draws
from benchmarks.trials import options

REFERENCE = "hf-grouped"
"""The honest rival: scores are compared with its."""
TAX = 1.03
"""Most of `ours-one` over `bare`."""

Outcomes = Mapping[str, Sequence[Outcome]]
"""By the arm's name, one a repetition."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    chosen = _parser().parse_args(arguments)
    if chosen.data is None:
        raise SystemExit("name the data folder with --data FOLDER or the environment's TUNERY_DATA")
    known = arms.known()
    if unknown := sorted(set(chosen.arms) - set(known)):
        raise SystemExit(f"unknown arms {unknown}; known: {', '.join(known)}")
    content: dict[str, Any] = {"machine": report.machine(), "options": report.options(vars(chosen)), "tasks": {}}
    print(report.where(content["machine"]))
    name = chosen.name or f"makespan-{'-'.join(chosen.tasks)}{'-long' if chosen.min_tokens else ''}"
    for task in chosen.tasks:
        with tempfile.TemporaryDirectory(prefix="makespan-") as folder:
            _run_task(chosen, task, Path(folder), content, name)


def _parser() -> argparse.ArgumentParser:
    parser = options.parser("", max_train=512, max_eval=256, epochs=3)
    parser.description = __doc__
    parser.formatter_class = _Help
    parser.set_defaults(learning_rate=2e-3)
    sweep = parser.add_argument_group("the sweep")
    sweep.add_argument("--tasks", nargs="+", default=["cola"], help="a sweep each")
    sweep.add_argument("--min-tokens", type=int, default=0, help="use only rows with at least so many tokens")
    sweep.add_argument("--trials", type=int, default=16, help="of a sweep")
    sweep.add_argument("--draw-seed", type=int, default=0, help="of the configurations")
    sweep.add_argument("--padded-trials", type=int, default=2, help="of hf-padded that run; the others are scaled up")
    sweep.add_argument("--seats", type=int, default=4, help="of a pack, in ours-packs and ours-asha")
    sweep.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "auto"),
        default="float32",
        help="of the base in the engine's arms; auto: the platform's own choice on this machine",
    )
    sweep.add_argument("--arms", nargs="+", default=list(arms.known()), help="which run, in this order")
    sweep.add_argument("--repeats", type=int, default=1, help="rounds, in which the arms take turns")
    return parser


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The description as it is written, and the defaults."""


def _run_task(chosen: argparse.Namespace, task: str, folder: Path, content: dict[str, Any], name: str) -> None:
    """All arms of one task; what is known is written after each of them."""
    report.progress(f"{task}: writing the rows")
    bounds = Bounds(chosen.max_train or None, chosen.max_eval or None, chosen.min_tokens, chosen.max_length)
    written = write(task, chosen.data, folder / "data", model=chosen.model, bounds=bounds)
    tuner, train = options.hyperparameters(chosen)
    sweep = Sweep(
        task=task,
        model=chosen.model,
        data=str(folder / "data"),
        tuner=tuner,
        train=train,
        trials=chosen.trials,
        draw_seed=chosen.draw_seed,
        cores=chosen.cores,
        seats=chosen.seats,
        dtype=chosen.dtype,
    )
    drawn = draws(sweep)
    outcomes: dict[str, list[Outcome]] = {arm: [] for arm in chosen.arms}
    for repeat in range(chosen.repeats):
        for arm in chosen.arms:
            outcome = _run_arm(arm, sweep, drawn, folder / f"{arm}-{repeat}", padded_trials=chosen.padded_trials)
            outcomes[arm].append(outcome)
            content["tasks"][task] = _plain(written, drawn, outcomes)
            report.save(name, content)
    print(f"\n{headline(task, written, sweep, min_tokens=chosen.min_tokens)}\n")
    print(summary(outcomes, task=task, min_tokens=chosen.min_tokens))
    print(f"written: {report.save(name, content)}", flush=True)


def _run_arm(arm: str, sweep: Sweep, drawn: Sequence[Draw], folder: Path, *, padded_trials: int) -> Outcome:
    report.progress(f"{sweep.task}: {arm}")
    folder.mkdir()
    numbers = range(min(sweep.trials, padded_trials) if arm == "hf-padded" else sweep.trials)
    outcome = arms.known()[arm].run(arms.Job(sweep, drawn, folder, numbers))
    part = f" ({len(numbers)} of {sweep.trials} trials ran)" if outcome.scaled else ""
    report.progress(f"{sweep.task}: {arm} took {outcome.wall_s:.1f} s{part}")
    return outcome


def _plain(written: Written, drawn: Sequence[Draw], outcomes: Outcomes) -> dict[str, Any]:
    return {
        "rows": asdict(written),
        "configurations": [dict(draw) for draw in drawn],
        "arms": {
            arm: [{**asdict(outcome), "trials_s": outcome.trials_s, "scaled": outcome.scaled} for outcome in runs]
            for arm, runs in outcomes.items()
        },
    }


def headline(task: str, written: Written, sweep: Sweep, *, min_tokens: int) -> str:
    """What was run, in a line."""
    of = f"{task}, only rows of at least {min_tokens} tokens" if min_tokens else task
    return (
        f"{of}: {written.train} rows of {written.mean_tokens:.1f} tokens on average, {sweep.trials} trials of "
        f"{sweep.train.epochs} epochs, evaluated on {written.evaluation} rows; {sweep.cores} cores, "
        f"engine in {sweep.dtype}, rivals in float32"
    )


def summary(outcomes: Outcomes, *, task: str, min_tokens: int) -> str:
    """The table, the decomposition and a line a target."""
    runs = {arm: each for arm, each in outcomes.items() if each}
    walls = {arm: statistics.median(outcome.wall_s for outcome in each) for arm, each in runs.items()}
    header = [
        "",
        "arm",
        "wall, s",
        "trials, s",
        "times (a)",
        "times (b)",
        "score, mean",
        "best",
        "score less (b)",
        "largest",
        "loss less (b)",
        "pruned",
    ]
    rows = []
    for arm, each in runs.items():
        last, mark = each[-1], "*" if each[-1].scaled else ""
        scores = last.objectives.values()
        window = statistics.median(outcome.trials_s for outcome in each)
        rows.append(
            [
                arms.known()[arm].letter,
                arm,
                f"{walls[arm]:.1f}{mark}",
                f"{window:.1f}{mark}",
                *(f"{walls[rival] / walls[arm]:.2f}" if rival in walls else "" for rival in ("hf-padded", REFERENCE)),
                f"{statistics.mean(scores):.4f}" if scores else "",
                f"{max(scores):.4f}" if scores else "",
                *_less(last, runs.get(REFERENCE)),
                str(sum(trial.pruned for trial in last.trials)),
            ]
        )
    notes = ["* scaled up from the trials that ran"] if any(each[-1].scaled for each in runs.values()) else []
    lines = [*notes, *decomposition(runs), *targets(walls, task=task, min_tokens=min_tokens)]
    return "\n".join([report.table(header, rows), "", *lines])


def _less(outcome: Outcome, reference: Sequence[Outcome] | None) -> list[str]:
    if reference is None:
        return ["", "", ""]
    score = difference(outcome.objectives, reference[-1].objectives)
    loss = difference(outcome.losses, reference[-1].losses)
    return [
        f"{score.mean:+.4f} ± {score.error:.4f}" if score else "",
        f"{score.largest:.4f}" if score else "",
        f"{loss.mean:+.4f} ± {loss.error:.4f}" if loss else "",
    ]


def decomposition(runs: Outcomes) -> list[str]:
    """Where the time between the bare loop and the platform with everything goes."""
    lines = []
    for more, less, what in (
        ("ours-one", "bare", "the platform's tax, e/d"),
        ("ours-one", "ours-packs", "packs, e/f"),
        ("ours-packs", "ours-asha", "early stopping, f/g"),
    ):
        if more in runs and less in runs:
            wall, window = (
                statistics.median(getattr(outcome, name) for outcome in runs[more])
                / statistics.median(getattr(outcome, name) for outcome in runs[less])
                for name in ("wall_s", "trials_s")
            )
            lines.append(f"{what}: {wall:.3f} in all, {window:.3f} from the first trial's start to the last one's end")
    return lines


def targets(walls: Mapping[str, float], *, task: str, min_tokens: int) -> list[str]:
    """A line for each target that was measured."""
    lines = []
    if "ours-one" in walls and "bare" in walls:
        tax = walls["ours-one"] / walls["bare"]
        lines.append(f"e/d = {tax:.3f} (target: at most {TAX})  {_verdict(tax <= TAX)}")
    least = {REFERENCE: 2.2, "hf-padded": 15.0} if task == "cola" and not min_tokens else {}
    if min_tokens:
        least = {REFERENCE: 1.0}
    for rival, factor in least.items():
        if rival in walls and "ours-packs" in walls:
            ratio = walls[rival] / walls["ours-packs"]
            letter = arms.known()[rival].letter
            lines.append(f"{letter}/f = {ratio:.2f} (target: at least {factor:g})  {_verdict(ratio >= factor)}")
    return lines


def _verdict(holds: bool) -> str:
    return "holds" if holds else "FAILS"


if __name__ == "__main__":
    main()
