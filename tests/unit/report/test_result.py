"""How a run ended, for people and for programs."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console, RenderableType

from tests.unit.report.states import MIXED, NOW, state, study, trial
from tunery.report import result
from tunery.runs import RunState


def text(renderable: RenderableType, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


WON = study(
    trials=(trial(0, "finished", 0.5), trial(1, "pruned", 0.3)),
    best=0,
    status="finished",
    model="glue-cola",
    model_version="3",
    champion=True,
    verdict="mcc 0.5000 gains 0.0100 over version 2",
)
LOST = study("rte", WON.trials, best=0, status="finished", model="glue-rte", model_version="1", champion=False,
             verdict="it gains nothing")  # fmt: skip
BROKEN = study("mrpc", (trial(0, "failed"),), status="failed", error="every trial failed: loss is nan")


def test_the_summary_of_a_finished_run() -> None:
    run = state(WON, status="finished", ended_at=NOW)
    assert text(result.summary(run)) == (
        "✓ glue-0123abcd  finished in 1:00\n"
        "\n"
        "✓ cola  mcc 0.5000 by trial 0  (2 trials, 1 pruned)\n"
        "  rank 4, learning_rate 2.9e-04\n"  # what is no metric of the task (the loss) is in `compare`
        "  glue-cola version 3 is the champion: mcc 0.5000 gains 0.0100 over version 2"
    )
    assert "finished in" not in text(result.summary(run, head=False))


def test_the_summary_of_a_failed_run_says_what_and_why() -> None:
    said = text(result.summary(state(LOST, BROKEN, status="failed", error="failed: mrpc", ended_at=NOW)))
    assert "glue-rte version 1 is not the champion: it gains nothing" in said
    assert "✗ mrpc  failed\n  every trial failed: loss is nan" in said
    assert "  failed: mrpc\n" in said


def test_the_document_is_json_whatever_the_state() -> None:
    document = json.loads(json.dumps(result.document(state(WON, BROKEN, study("sst2")))))
    won, broken, fresh = document["studies"]
    assert won["best"]["config"] == {"tuner.rank": 4, "train.learning_rate": 2.94e-4}
    assert (won["model"], won["model_version"], won["champion"], won["trials"]) == ("glue-cola", "3", True, 2)
    assert broken["best"] is None
    assert (fresh["champion"], fresh["model"], fresh["trials"]) == (None, None, 0)


@pytest.mark.parametrize(
    ("status", "code"), [("finished", 0), ("running", 0), ("failed", 5), ("interrupted", 5), ("stopped", 130)]
)
def test_exit_codes(status: str, code: int) -> None:
    assert result.exit_code(state(status=status).status) == code


def test_the_next_steps_of_a_finished_run_ask_a_champion() -> None:
    steps = result.next_steps(state(LOST, WON, status="finished"), alias="best")
    assert steps[0] == "platform compare glue-0123abcd"
    assert steps[1].startswith("platform predict glue-cola@best --text '")
    assert steps[2:] == ["platform ui", "platform report glue-0123abcd"]


def test_the_next_steps_go_where_the_run_is() -> None:
    steps = result.next_steps(state(LOST, WON, status="finished"), profile="here")
    assert [step.endswith(" --profile here") for step in steps] == [True] * 4


def test_without_a_champion_they_name_the_version_and_give_pairs_both_texts() -> None:
    step = result.next_steps(state(LOST, status="finished"))[1]
    assert step.startswith("platform predict glue-rte/1 --text ")
    assert " --text2 " in step


@pytest.mark.parametrize("run", [state(study(trials=MIXED), status=status) for status in ("stopped", "interrupted")])
def test_a_run_that_can_go_on_says_how(run: RunState) -> None:
    assert result.next_steps(run)[0] == "platform resume glue-0123abcd"
