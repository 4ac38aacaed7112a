"""When packs are sent home, and what the end of one means."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from tunery.cluster.hosting import Hosting


def hosting(**bases: str) -> Hosting:
    """With a pack named as each keyword on that base."""
    there = Hosting(MagicMock())
    orders: Any = {f"ref-{pack}": SimpleNamespace(pack=pack, base_key=base) for pack, base in bases.items()}
    there._hosting = orders
    return there


def ends(monkeypatch: pytest.MonkeyPatch, pack: str, why: str) -> None:
    """Of all packs, this one has ended."""
    monkeypatch.setattr("ray.wait", lambda refs, **_: ([ref for ref in refs if ref == f"ref-{pack}"], []))
    monkeypatch.setattr("ray.get", lambda _: why)


def test_packs_are_sent_home_once_when_no_study_of_their_base_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    packs = hosting(p="b", q="another")
    desk: Any = packs.desk
    ends(monkeypatch, "none", "")
    packs.look_after({"b"})
    assert [call.args for call in desk.release.call_args_list] == [("another",)]
    for _ in range(2):
        packs.look_after(set())
    assert [call.args for call in desk.release.call_args_list] == [("another",), ("b",)]


def test_only_packs_that_have_seats_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    packs = hosting(p="b", q="another")
    packs.desk = MagicMock(close=lambda: {"p"})
    waited: list[Any] = []
    monkeypatch.setattr("ray.wait", lambda refs, **_: waited.extend(refs))
    packs.send_home()
    assert waited == ["ref-p"], "the other waits for its place on a node"


def test_a_pack_that_went_home_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    packs = hosting(p="b")
    desk: Any = packs.desk
    ends(monkeypatch, "p", "")
    packs.look_after({"b"})
    assert not desk.method_calls


def test_a_base_is_given_up_with_the_last_of_its_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    packs = hosting(p="b", q="b", r="another")
    desk: Any = packs.desk
    for pack in ("p", "q"):
        assert not desk.give_up_base.called, "another pack of the base goes on"
        ends(monkeypatch, pack, "it died three times")
        packs.look_after({"b", "another"})
    desk.give_up_base.assert_called_once_with("b", "it died three times")
