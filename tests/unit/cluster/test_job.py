"""A job of a cluster with a fake driver: how it ends, what it prints, and what its cluster's next attempt does."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.unit.client.fake_driver import AT_WORK
from tests.unit.client.fakes import FAKE_DRIVER, make_plan
from tunery import __version__
from tunery.cluster import job
from tunery.home import Home
from tunery.parcel import Parcel
from tunery.runs import RunFolder

PLAN = make_plan()
SENT = Parcel(PLAN.run_id, PLAN.model_dump_json().encode(), __version__)
Capture = pytest.CaptureFixture[str]


@dataclass
class Mirror:
    """The tracking server, as far as the job goes."""

    looks: Callable[[], object]
    """What happens each time that something is told."""
    asked_to_stop: bool = False
    told: list[str] = field(default_factory=list)
    """The status at each end."""
    problem: str = ""

    def of(self, folder: RunFolder, uri: str, *, job: str) -> Mirror:
        assert (uri, job) == ("http://127.0.0.1:9", "the-job")
        self.folder = folder
        return self

    def turn(self) -> None:
        self.looks()

    def finish(self, limit_s: float) -> str:
        assert limit_s == job.LAST_NEWS_S
        self.told.append(self.folder.current(name=self.folder.name).status)
        return self.problem


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    found = RunFolder(Home(tmp_path / "home").runs / PLAN.run_id)
    found.root.mkdir(parents=True)
    return found


@pytest.fixture
def mirror(tmp_path: Path, folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """By itself the run fails as soon as it is told of."""
    made = Mirror(looks=(folder.root / "fail").touch)
    config = tmp_path / "config.toml"
    config.write_text('[profiles.local]\ntracking_uri = "http://127.0.0.1:9"\n')
    monkeypatch.setenv("TUNERY_CONFIG", str(config))
    monkeypatch.setenv("TUNERY_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(job, "DRIVER", FAKE_DRIVER)
    monkeypatch.setattr(job, "LOOK_S", 0.01)
    monkeypatch.setattr(job, "Mirror", made.of)
    signs = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(sign) for sign in signs]
    yield made
    for sign, handler in zip(signs, before, strict=True):
        signal.signal(sign, handler)


def attempt(parcel: Parcel = SENT) -> int:
    """What KubeRay, or Ray, starts: each time the same."""
    metadata = {"job_submission_id": "the-job", **parcel.metadata()}
    return job.main({job.CONFIG: json.dumps({"metadata": metadata}), job.ADDRESS: "10.0.0.1:6379"})


def starts(folder: RunFolder) -> list[str]:
    """What each driver was told, beside its folder."""
    return [line.partition(" ")[2] for line in (folder.root / "starts").read_text().splitlines()]


def test_a_failed_run_is_found_failed_by_the_next_attempt_which_starts_nothing(
    mirror: Mirror, folder: RunFolder, capsys: Capture
) -> None:
    assert attempt() == 5
    assert starts(folder) == ["--ray 10.0.0.1:6379 --profile local"]
    assert capsys.readouterr().out.count(AT_WORK) == 1
    assert attempt() == 5
    assert len(starts(folder)) == 1
    assert mirror.told == ["failed", "failed"], "each tells how it stands"
    assert AT_WORK not in capsys.readouterr().out, "what another attempt has printed"


def test_it_goes_on_in_a_job_that_somebody_has_sent_for_that(mirror: Mirror, folder: RunFolder) -> None:
    assert attempt() == 5
    (folder.root / "fail").unlink()
    mirror.looks = (folder.root / "finish").touch
    assert attempt(replace(SENT, resume=True)) == 0
    assert len(starts(folder)) == 2
    assert attempt(replace(SENT, resume=True)) == 0
    assert len(starts(folder)) == 2, "what has finished is not trained again"


def test_a_run_whose_driver_has_died_goes_on_in_the_next_attempt(
    mirror: Mirror, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_DRIVER", "dies")
    assert attempt() == 5
    assert mirror.told == ["interrupted"]
    monkeypatch.setenv("FAKE_DRIVER", "finishes")
    assert attempt() == 0
    assert len(starts(folder)) == 2


@pytest.mark.parametrize("by", ["tag", "signal"])
def test_a_run_that_is_asked_to_stop_stops_and_stays_so(by: str, mirror: Mirror, folder: RunFolder) -> None:
    def ask() -> None:
        if by == "tag":
            mirror.asked_to_stop = True
        else:
            os.kill(os.getpid(), signal.SIGTERM)

    mirror.looks = ask
    assert attempt() == 130
    mirror.asked_to_stop = False
    assert attempt() == 130
    assert mirror.told == ["stopped", "stopped"]
    assert len(starts(folder)) == 1


@pytest.mark.parametrize(
    ("parcel", "config", "code", "said"),
    [
        (replace(SENT, version="0.0.1"), None, 4, f"sent by tunery 0.0.1, and the cluster has tunery {__version__}"),
        (replace(SENT, plan=b"{}"), None, 2, f"the plan of run {PLAN.run_id} cannot be read"),
        (SENT, "", 2, "'local', has no tracking server"),
        (
            SENT,
            'target = "ray"\njobs = "http://h"\ntracking_uri = "http://h"\n',
            2,
            "has target 'ray': expected 'local'",
        ),
    ],
)
@pytest.mark.usefixtures("mirror")
def test_what_cannot_start_says_why_in_its_last_line(
    parcel: Parcel, config: str | None, code: int, said: str, tmp_path: Path, folder: RunFolder, capsys: Capture
) -> None:
    if config is not None:
        (tmp_path / "config.toml").write_text(f"[profiles.local]\n{config}")
    assert attempt(parcel) == code
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("error: ")
    assert said in last
    assert not (folder.root / "starts").exists()


def test_by_hand_it_says_what_sends_one(capsys: Capture) -> None:
    assert job.main({}) == 2
    assert "`platform submit` sends one" in capsys.readouterr().out.splitlines()[-1]
