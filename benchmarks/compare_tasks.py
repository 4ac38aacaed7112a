"""Quality and speed task by task: the same trials by HF Trainer + PEFT and by the engine, side by side in one run.

    python -m benchmarks.compare_tasks --data DIR --epochs 3 --max-train 2000 \\
        --seeds-of cola=42,43,44 stsb=42,43,44

Every trial is evaluated after each epoch, and its best evaluation counts, for both. The mean over the seeds is
compared; the spread of the rival's seeds is printed beside the difference. `--method full` trains every weight in
place of adapters. The rival may be an arm of ours:

    python -m benchmarks.compare_tasks --rival ours-per-core --arm ours-per-core-bf16 --tasks cola stsb --seeds 42 43 44
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from benchmarks import report
from benchmarks.trials import arms, measure, options
from benchmarks.trials.measure import ArmResult
from tunery import tasks

TASKS = ("cola", "sst2", "stsb", "wnli", "qnli", "mnli", "qqp")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options.parser(str(__doc__).partition("\n")[0], every_weight=True)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[42], help="a trial each")
    parser.add_argument("--seeds-of", nargs="*", default=[], metavar="TASK=SEED,SEED", help="other seeds for a task")
    names = tuple(arms.known(1))
    parser.add_argument("--rival", default="hf-grouped", choices=names, help="the arm to compare with")
    parser.add_argument("--arm", default="ours-per-core", choices=names)
    chosen = parser.parse_args(arguments)
    other = _other_seeds(chosen.seeds_of)
    known = arms.known(chosen.cores)
    where = report.machine()
    results: dict[str, list[ArmResult]] = {}
    for task in chosen.tasks:
        work = options.workload(chosen, task)
        seeds = other.get(task, chosen.seeds)
        results[task] = [
            arms.run(known[name], work, seeds, limit=None, evaluate="epochs") for name in (chosen.rival, chosen.arm)
        ]
        measure.same_size(results[task])
        print(table({task: results[task]}), flush=True)
    print(table(results))
    content = {
        "machine": where,
        "options": report.options(vars(chosen)),
        "results": {task: measure.plain(pair) for task, pair in results.items()},
    }
    print(f"written: {report.save(chosen.name or 'compare_tasks', content)}")


def table(results: Mapping[str, Sequence[ArmResult]]) -> str:
    """A row a task: the rival first, ours second."""
    header = ["task", "metric", "seeds", "rival", "ours", "difference", "rival's spread", "rival s", "ours s", "speed"]
    rows = []
    for task, (rival, ours) in results.items():
        theirs, mine = statistics.mean(rival.objectives), statistics.mean(ours.objectives)
        spread = f"{statistics.stdev(rival.objectives):.4f}" if len(rival.objectives) > 1 else "one seed"
        rows.append(
            [
                task,
                tasks.get(task).objective_name,
                str(len(ours.seeds)),
                f"{theirs:.4f}",
                f"{mine:.4f}",
                f"{mine - theirs:+.4f}",
                spread,
                f"{rival.train_s:.1f}",
                f"{ours.train_s:.1f}",
                f"{ours.examples_per_s / rival.examples_per_s:.2f}x",
            ]
        )
    return report.table(header, rows)


def _other_seeds(texts: Sequence[str]) -> dict[str, list[int]]:
    seeds = {}
    for text in texts:
        task, equals, numbers = text.partition("=")
        if not equals:
            raise SystemExit(f"--seeds-of {text}: write it as TASK=SEED,SEED")
        seeds[task] = [int(number) for number in numbers.split(",")]
    return seeds


if __name__ == "__main__":
    main()
