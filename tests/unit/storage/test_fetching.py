"""Fetching from real servers that stand in for the hubs."""

from __future__ import annotations

import os
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.errors import ChecksumError, FetchError, HubUnreachableError, NotFetchedError, NotOnHubError
from storage.fetching import Source, Wanted, fetch, found, have
from tests.stand_ins.hubs import Hubs, Repository, serving

ID = "org/tiny"
WEIGHTS = 300_000
NEEDED = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


def repository(seed: int = 0) -> Repository:
    return Repository(
        {
            "config.json": b'{"model_type": "bert"}',
            "model.safetensors": bytes((index * 7 + seed) % 251 for index in range(WEIGHTS)),
            "tokenizer.json": b"{}",
            "tokenizer_config.json": b"{}",  # the content of another file, and so one blob with it
            "pytorch_model.bin": b"b" * 20_000,
            "onnx/model.onnx": b"o" * 20_000,
            "README.md": b"# tiny",
        }
    )


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "MODELSCOPE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))


@pytest.fixture
def hubs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hubs]:
    with serving(Hubs({ID: repository()})) as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", made.url)
        yield made


@pytest.fixture(params=["hub", "modelscope"])
def wanted(request: pytest.FixtureRequest) -> Wanted:
    source: Source = request.param
    return Wanted("model", ID, source=source)


def test_what_a_model_needs_comes_once(hubs: Hubs, wanted: Wanted) -> None:
    shown: list[tuple[int, int]] = []
    first = fetch(wanted, lambda done, total: shown.append((done, total)))
    assert sorted(first.fetched.files) == NEEDED
    assert {path: (first.fetched.folder / path).read_bytes() for path in NEEDED} == {
        path: hubs.models[ID].files[path] for path in NEEDED
    }
    assert first.fetched.commit == hubs.models[ID].commit
    total = sum(len(hubs.models[ID].files[path]) for path in NEEDED)
    assert shown[-1] == (total, total)
    assert not {"pytorch_model.bin", "onnx/model.onnx", "README.md"} & {each.path for each in hubs.sent}

    hubs.forget()
    again = fetch(wanted, thorough=True)
    assert (again.downloaded, again.mended, again.fetched.files) == (0, (), first.fetched.files)
    assert hubs.sent == []


def test_a_broken_connection_goes_on_where_it_stopped(hubs: Hubs, wanted: Wanted) -> None:
    hubs.break_after["model.safetensors"] = [100_000, 0, 50_000]
    assert fetch(wanted).downloaded >= WEIGHTS
    parts = [(each.range, each.count) for each in hubs.sent if each.path == "model.safetensors"]
    assert parts == [
        ("", 100_000), ("bytes=100000-", 0), ("bytes=100000-", 50_000), ("bytes=150000-", WEIGHTS - 150_000)
    ]  # fmt: skip


def test_a_download_that_was_ended_goes_on_in_another_process(hubs: Hubs, wanted: Wanted) -> None:
    class EndedError(Exception):
        pass

    def end(done: int, _: int) -> None:
        if done > WEIGHTS // 2:
            raise EndedError

    hubs.break_after["model.safetensors"] = [200_000]
    with pytest.raises(EndedError):
        fetch(wanted, end)
    with pytest.raises(NotFetchedError):
        found(wanted)
    hubs.forget()
    assert fetch(wanted).downloaded < WEIGHTS, "what had come is not downloaded again"
    (part,) = [each for each in hubs.sent if each.path == "model.safetensors"]
    assert part.range.startswith("bytes=")
    assert found(wanted, thorough=True).size == sum(len(hubs.models[ID].files[path]) for path in NEEDED)


def test_a_server_that_gives_up_is_named_and_what_came_is_kept(
    hubs: Hubs, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.fetching.transfer.LONGEST_WAIT_S", 0.01)
    hubs.break_after["model.safetensors"] = [100_000, *[0] * 20]
    with pytest.raises(HubUnreachableError, match=r"gives nothing more after 100,000 of 300,000 bytes.*goes on from"):
        fetch(wanted)
    hubs.break_after.clear()
    hubs.forget()
    fetch(wanted)
    assert [each.range for each in hubs.sent if each.path == "model.safetensors"] == ["bytes=100000-"]


@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_a_damaged_file_is_found_and_fetched_again(hubs: Hubs, wanted: Wanted, damage: str) -> None:
    weights = fetch(wanted).fetched.folder / "model.safetensors"
    content = weights.read_bytes()
    times = weights.stat()
    weights.write_bytes(content[:-1] if damage == "truncated" else b"?" + content[1:])
    with pytest.raises(NotFetchedError, match=r"model\.safetensors (has 299,999 bytes instead of 300,000|was altered)"):
        found(wanted)
    os.utime(weights.resolve(), ns=(times.st_atime_ns, times.st_mtime_ns))  # as if nothing had written to it
    hubs.forget()
    again = fetch(wanted, thorough=True)
    assert again.mended == ("model.safetensors",)
    assert [each.path for each in hubs.sent] == ["model.safetensors"]
    assert weights.read_bytes() == content


def test_what_the_hub_itself_has_wrong_is_not_taken(hubs: Hubs, wanted: Wanted) -> None:
    hubs.altered.add("model.safetensors")
    with pytest.raises(ChecksumError, match=r"model\.safetensors is not what the hub says it is"):
        fetch(wanted)
    with pytest.raises(NotFetchedError):
        found(wanted)
    assert [each.range for each in hubs.sent if each.path == "model.safetensors"] == ["", ""], "tried once more"


def test_offline_what_was_fetched_is_found_and_nothing_is_asked(
    hubs: Hubs, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = fetch(wanted).fetched
    hubs.forget()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert have(wanted) == fetched
    assert have(Wanted("model", ID, fetched.commit, wanted.source)).folder == fetched.folder
    with pytest.raises(NotFetchedError, match=r"org/tiny @ v2.* was not fetched to"):
        have(Wanted("model", ID, "v2", wanted.source))
    (fetched.folder / "config.json").unlink()
    with pytest.raises(NotFetchedError, match=r"org/tiny.* is not as it was fetched: .*config\.json is not there"):
        have(wanted)
    assert hubs.requests == []


def test_a_commit_that_was_fetched_is_not_asked_for_again(hubs: Hubs, wanted: Wanted) -> None:
    commit = fetch(wanted).fetched.commit
    hubs.forget()
    have(Wanted("model", ID, commit, wanted.source))
    assert hubs.requests == []


def test_a_branch_that_has_moved_is_fetched_anew(hubs: Hubs, wanted: Wanted) -> None:
    old = fetch(wanted).fetched
    hubs.models[ID] = repository(seed=1)
    new = have(wanted)
    assert new.commit != old.commit
    assert found(wanted).commit == new.commit
    assert found(Wanted("model", ID, old.commit, wanted.source), thorough=True).folder == old.folder


@pytest.mark.usefixtures("hubs")
def test_without_a_network_what_was_fetched_is_used(wanted: Wanted, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = fetch(wanted).fetched
    for name in ("HF_ENDPOINT", "MODELSCOPE_ENDPOINT"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    assert have(wanted) == fetched
    with pytest.raises(HubUnreachableError, match=r"http://127\.0\.0\.1:9 does not answer .*ENDPOINT"):
        have(Wanted("model", "org/other", source=wanted.source))


@pytest.mark.usefixtures("hubs")
def test_two_hubs_do_not_share_a_model() -> None:
    assert fetch(Wanted("model", ID)).fetched.folder != fetch(Wanted("model", ID, source="modelscope")).fetched.folder


@pytest.mark.usefixtures("hubs")
def test_what_is_not_there_is_named(wanted: Wanted) -> None:
    with pytest.raises(NotOnHubError, match=r"org/none.* is not on http://127.*check its name"):
        fetch(Wanted("model", "org/none", source=wanted.source))
    with pytest.raises(NotOnHubError, match=r"org/tiny.*v9"):
        fetch(Wanted("model", ID, "v9", wanted.source))


def test_a_gated_model_needs_a_token_which_is_never_shown(
    hubs: Hubs, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    hubs.models[ID].gated = True
    variable = "HF_TOKEN" if wanted.source == "hub" else "MODELSCOPE_API_TOKEN"
    with pytest.raises(FetchError, match=rf"org/tiny.*accept its conditions at .*org/tiny.*{variable}"):
        fetch(wanted)
    monkeypatch.setenv(variable, "a-wrong-token")
    with pytest.raises(FetchError) as refused:
        fetch(wanted)
    assert "a-wrong-token" not in str(refused.value)
    monkeypatch.setenv(variable, hubs.token)
    assert fetch(wanted).downloaded
    assert hubs.authorised[-1] == hubs.token


def test_a_private_model_may_not_be_there(hubs: Hubs, monkeypatch: pytest.MonkeyPatch) -> None:
    hubs.models[ID].private = True
    with pytest.raises(NotOnHubError, match=r"is not on .*, or private: .*HF_TOKEN"):
        fetch(Wanted("model", ID))
    monkeypatch.setenv("HF_TOKEN", hubs.token)
    assert fetch(Wanted("model", ID)).downloaded


def test_a_full_disk_is_said_before_the_download(hubs: Hubs, wanted: Wanted, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10**6, 10**6, 1000))
    with pytest.raises(FetchError, match=r"needs 300,0\d\d bytes more, and the disk of .* has 1,000 left: free some"):
        fetch(wanted)
    assert hubs.sent == []


@pytest.mark.usefixtures("hubs")
def test_a_disk_that_fills_up_is_said(wanted: Wanted) -> None:
    with pytest.raises(FetchError, match=r"the disk of .* is full .*goes on from here"):
        fetch(wanted, _full)


def _full(*_: int) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["README.md"], r"is no model of transformers: it has no config\.json; it has: README\.md"),
        (["config.json", "model.gguf"], r"has no weights that can be loaded .*; it has: config\.json, model\.gguf"),
    ],
)
def test_a_repository_without_a_model(hubs: Hubs, names: list[str], what: str) -> None:
    hubs.models[ID] = Repository(dict.fromkeys(names, b"{}"))
    with pytest.raises(FetchError, match=what):
        fetch(Wanted("model", ID))


def test_shards_come_with_their_index_and_older_weights_where_there_are_no_others(hubs: Hubs) -> None:
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = "model.safetensors.index.json"
    older = ["pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin"]
    hubs.models[ID] = Repository({name: name.encode() for name in ("config.json", *shards, index, *older)})
    assert sorted(fetch(Wanted("model", ID)).fetched.files) == sorted(["config.json", *shards, index])
    hubs.models[ID] = Repository({name: name.encode() for name in ("config.json", *older)})
    assert sorted(fetch(Wanted("model", ID)).fetched.files) == sorted(["config.json", *older])
