"""`platform fetch`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.text import Text

from tunery.cli import extras
from tunery.cli.options import OfflineOption, OutputOption, ProfileOption, SetOption, SpecArgument, spec_command
from tunery.cli.output import Format, Panel, emit, note, only_stderr, stderr, table

if TYPE_CHECKING:
    from storage.fetching import Outcome, Wanted

PANEL = Panel.SPECS
ORDER = 40
PLAIN_STEP = 0.1
"""Of a download: the share after which a line says how far it is, where there is no terminal."""

Report = Callable[[int, int], None]


def command(
    spec: SpecArgument,
    set_: SetOption = None,
    profile: ProfileOption = None,
    offline: OfflineOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Bring the models and data of a spec to this machine, ahead of time.

    From the Hugging Face hub, a mirror of it (HF_ENDPOINT), or ModelScope (model.source). What was interrupted goes
    on where it stopped. Every file is checked by its hash, also those that were there: an altered one is fetched
    again. Then `platform submit SPEC --offline` needs no network. With --offline it is only looked at what is there.

    Exit codes: 2 what may not be read (HF_TOKEN) or does not fit the disk, 3 not on the hub, or with --offline not
    here, 6 no network.
    """
    from tunery import fetching
    from tunery.home import Home
    from tunery.plan import compile_plan
    from tunery.profile import load_profile
    from tunery.spec import load_spec

    plan = compile_plan(load_spec(spec, overrides=set_ or ()))
    again = spec_command("fetch", spec, set_, profile)
    if offline:
        fetching.require(plan, again)
    elif fetching.wanted(plan):
        extras.require("cluster")
    with only_stderr(), _secrets(load_profile(profile, Home.from_environment()).environment()):
        outcomes = [_one(each, offline=offline) for each in fetching.wanted(plan)]
    local = fetching.not_wanted(plan)
    for line in local:
        note(f"nothing to fetch for {line}")
    downloaded = sum(outcome.downloaded for outcome in outcomes)
    document = {"fetched": [_told(each) for each in outcomes], "local": list(local), "downloaded": downloaded}
    emit(output, document, *_shown(outcomes), next_steps=[spec_command("submit", spec, set_, profile, offline=True)])


def _one(wanted: Wanted, *, offline: bool) -> Outcome:
    from storage.fetching import Outcome, fetch, found

    if offline:
        return Outcome(found(wanted, thorough=True), 0)
    with _reporting(wanted.name) as report:
        outcome = fetch(wanted, report, thorough=True)
    for path in outcome.mended:
        note(f"{wanted.name}: {path} was not as the hub has it, and was fetched again")
    if not outcome.downloaded:
        note(f"{wanted.name}: all is there and as it should be; nothing was downloaded")
    return outcome


@contextmanager
def _reporting(name: str) -> Iterator[Report]:
    """Shows how far a download is: a bar on a terminal, a line now and then elsewhere."""
    console = stderr()
    if not console.is_terminal:
        yield _lines(name)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        bar = bars.add_task(name, total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)


def _lines(name: str) -> Report:
    from tunery.cli.plan import size

    told = -1.0

    def report(done: int, total: int) -> None:
        nonlocal told
        share = done / total if total else 1.0
        if share >= told + PLAIN_STEP or (done == total and share > told):
            told = share
            note(f"{name}: {size(done)} of {size(total)}")

    return report


@contextmanager
def _secrets(environment: dict[str, str]) -> Iterator[None]:
    """The profile's secrets, such as HF_TOKEN, where the hub's client looks for them."""
    import os

    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        for name in environment:
            os.environ.pop(name, None)
            os.environ.update({name: before[name]} if name in before else {})


def _told(outcome: Outcome) -> dict[str, Any]:
    fetched = outcome.fetched
    return {
        "kind": fetched.wanted.kind,
        "id": fetched.wanted.id,
        "config": fetched.wanted.config,
        "source": fetched.wanted.source,
        "revision": fetched.wanted.revision,
        "commit": fetched.commit,
        "folder": str(fetched.folder),
        "files": {path: kept.size for path, kept in fetched.files.items()},
        "bytes": fetched.size,
        "downloaded": outcome.downloaded,
        "mended": list(outcome.mended),
    }


def _shown(outcomes: list[Outcome]) -> list[RenderableType]:
    from tunery.cli.plan import size

    if not outcomes:
        return []
    shown = table("", "name", "commit", "size", "downloaded", numbers=("size", "downloaded"))
    for outcome in outcomes:
        fetched = outcome.fetched
        row = (
            fetched.wanted.kind,
            fetched.wanted.name,
            fetched.commit[:12],
            size(fetched.size),
            size(outcome.downloaded),
        )
        shown.add_row(*row)
    return [shown, Text()]
