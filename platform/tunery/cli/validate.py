"""`platform validate`."""

from __future__ import annotations

from tunery.cli.options import OutputOption, SetOption, SpecArgument, spec_command
from tunery.cli.output import Format, Panel, count_of, emit

PANEL = Panel.SPECS
ORDER = 20


def command(spec: SpecArgument, set_: SetOption = None, output: OutputOption = Format.TABLE) -> None:
    """Check a spec and contact nothing.

    Every mistake is printed as FILE:LINE:COLUMN: what is wrong, what was got, what is known; the exit code is then 2.
    """
    from tunery.plan import compile_plan
    from tunery.spec import load_spec

    plan = compile_plan(load_spec(spec, overrides=set_ or ()))
    studies, trials = len(plan.studies), plan.trials
    emit(
        output,
        {"valid": True, "file": str(spec), "run_id": plan.run_id, "studies": studies, "trials": trials},
        f"{spec} is valid: {plan.run_id}, {count_of(studies, 'study', 'studies')}, {count_of(trials, 'trial')}",
        next_steps=[spec_command("plan", spec, set_), spec_command("submit", spec, set_)],
    )
