"""Speed of the engine beside its rival, on the same rows, tokens, hyperparameters and cores, in one run.

    python -m benchmarks.rivals --data DIR --task cola --repeats 3

The arms take turns, so that a slow minute of the machine hits all of them. Printed: median examples/s over the
repetitions, and the ratios. The claims: at least 2x `hf-grouped` and 8x `hf-padded`, on CoLA with MiniLM, batch 32.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks import report
from benchmarks.trials import arms, measure, options
from benchmarks.trials.measure import ArmResult

CLAIMS = {"hf-grouped": 2.0, "hf-padded": 8.0}
"""Rival -> how many times its rate the best of our arms must reach."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options.parser(str(__doc__).partition("\n")[0])
    parser.add_argument("--task", default="cola")
    parser.add_argument("--arms", nargs="+", default=[], help="default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4], help="a trial each")
    parser.add_argument("--steps", type=int, default=0, help="steps after which a trial stops; 0: all")
    parser.add_argument(
        "--padded-steps",
        type=int,
        default=20,
        help="the same for hf-padded, which trains one seed and is not evaluated: its mathematics is hf-dynamic's",
    )
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args(arguments)
    known = arms.known(chosen.cores)
    names = chosen.arms or list(known)
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise SystemExit(f"unknown arms {unknown}; known: {', '.join(known)}")
    work = options.workload(chosen, chosen.task)
    where = report.machine()
    tokens = work.train_set.lengths.mean()
    print(f"{chosen.task}: {len(work.train_set)} rows, {tokens:.1f} tokens a row; {report.where(where)}")
    results: dict[str, list[ArmResult]] = {name: [] for name in names}
    for repeat in range(chosen.repeats):
        for name in names:
            if name == "hf-padded":
                seeds = chosen.seeds[:1]
                result = arms.run(known[name], work, seeds, limit=chosen.padded_steps or None, evaluate="never")
            else:
                result = arms.run(known[name], work, chosen.seeds, limit=chosen.steps or None, evaluate="end")
            results[name].append(result)
            print(f"repeat {repeat + 1}, {name}: {result.examples_per_s:.1f} examples/s, {result.train_s:.1f} s")
    measure.same_size([result for runs in results.values() for result in runs])
    print(summary(results, known))
    path = report.save(
        chosen.name or f"rivals-{chosen.task}",
        {
            "machine": where,
            "options": report.options(vars(chosen)),
            "median_examples_per_s": {name: measure.median_rate(runs) for name, runs in results.items()},
            "results": {name: measure.plain(runs) for name, runs in results.items()},
        },
    )
    print(f"written: {path}")


def summary(results: dict[str, list[ArmResult]], known: dict[str, arms.Arm]) -> str:
    """The table, and a line a claim."""
    rates = {name: measure.median_rate(runs) for name, runs in results.items()}
    header = [
        "arm",
        "processes x threads",
        "examples/s",
        *(f"x {rival}" for rival in CLAIMS),
        "steps",
        "MiB",
        "objective",
    ]
    rows = []
    for name, runs in results.items():
        ratios = [f"{rates[name] / rates[rival]:.2f}" if rival in rates else "" for rival in CLAIMS]
        objectives = runs[-1].objectives
        rows.append(
            [
                name,
                f"{known[name].processes} x {known[name].threads}",
                f"{rates[name]:.1f}",
                *ratios,
                str(runs[-1].steps),
                f"{runs[-1].peak_mib:.0f}",
                f"{statistics.mean(objectives):.4f}" if objectives else "",
            ]
        )
    return "\n".join([report.table(header, rows), *_claims(rates)])


def _claims(rates: dict[str, float]) -> list[str]:
    ours = {name: rate for name, rate in rates.items() if name.startswith("ours")}
    if not ours:
        return []
    best = max(ours, key=lambda name: ours[name])
    lines = []
    for rival, factor in CLAIMS.items():
        if rival in rates:
            ratio = ours[best] / rates[rival]
            lines.append(
                f"{best} / {rival} = {ratio:.2f}  (claim: {factor:g})  {'holds' if ratio >= factor else 'FAILS'}"
            )
    return lines


if __name__ == "__main__":
    main()
