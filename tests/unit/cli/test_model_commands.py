"""The commands on models: promote, rollback, history, predict, evaluate, export."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from storage.mlflow_connection import connect
from storage.registry import Registry
from tests.unit.inference.conftest import LABELS, make_adapter, make_base, make_run, save_best
from tunery.cli.app import run
from tunery.home import Home
from tunery.inference.card import AdapterCard
from tunery.tasks.custom import CustomTask

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TUNERY_HOME whose registry has three versions of one model, and one of a model of pairs. Made once."""
    root = tmp_path_factory.mktemp("filled")
    home, base = Home(root / "home"), make_base(root / "base", bert=True)
    client, registry = connect(home.tracking_uri), Registry(home.tracking_uri)
    experiment = client.create_experiment("e", artifact_location=home.artifacts.as_uri())
    for model, value in (("grammar", 0.5), ("grammar", 0.7), ("grammar", 0.6), ("pairs", 0.1)):
        task = "acceptability" if model == "grammar" else "stsb"
        labels = LABELS if model == "grammar" else ()
        score = {"name": "mcc", "value": value}
        folder = make_adapter(root / f"{model}-{value}", base, labels=labels, task=task, objective=score)
        run_id = client.create_run(experiment).info.run_id
        client.log_artifacts(run_id, str(folder), "adapter")
        registry.register(model, run_id=run_id, artifact_path="adapter", tags=AdapterCard.read(folder).tags())
    registry.promote("grammar", "1", by="gate", why="the first")
    registry.refuse("grammar", "3", by="gate", why="no gain")
    registry.promote("pairs", "1", by="gate", why="")
    return home.root


@pytest.fixture
def home(filled: Path, tmp_path: Path) -> Home:
    """A copy whose database is the test's own (`TUNERY_HOME`, see conftest). The artifacts are shared."""
    home = Home(tmp_path / "home")
    home.root.mkdir()
    shutil.copy(filled / "mlflow.db", home.root)
    return home


def document(capsys: Capture) -> Any:
    return json.loads(capsys.readouterr().out)


def typed(text: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(text.encode()))


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.usefixtures("home")
def test_promote_rollback_and_history(capsys: Capture) -> None:
    assert run(["promote", "grammar/2", "--why", "asked for", "-o", "json"]) == 0
    move = document(capsys)
    assert list(move) == ["model", "alias", "verdict", "from_version", "to_version", "objective", "from_value",
                          "to_value", "at", "by", "why"]  # fmt: skip
    assert (move["verdict"], move["from_version"], move["to_version"]) == ("manual", "1", "2")
    assert (move["from_value"], move["to_value"], move["why"]) == (0.5, 0.7, "asked for")

    assert run(["rollback", "grammar", "--why", "worse in use"]) == 0
    assert "grammar@champion is version 1 again; it was version 2" in capsys.readouterr().out
    assert run(["history", "grammar", "-o", "json"]) == 0
    told = document(capsys)
    assert told["aliases"] == {"champion": "1"}
    assert [(v["version"], v["aliases"], v["value"]) for v in told["versions"]] == [
        ("1", ["champion"], 0.5), ("2", [], 0.7), ("3", [], 0.6),
    ]  # fmt: skip
    assert [(p["verdict"], p["from_version"], p["to_version"]) for p in told["promotions"]] == [
        ("promoted", None, "1"), ("refused", "1", "3"), ("manual", "1", "2"), ("rollback", "2", "1"),
    ]  # fmt: skip
    assert run(["history", "grammar"]) == 0
    out = capsys.readouterr().out
    assert "worse in use" in out
    assert "mcc 0.7000" in out


@pytest.mark.usefixtures("home")
def test_promoting_the_champion_says_so(capsys: Capture) -> None:
    assert run(["promote", "grammar/1"]) == 0
    assert "is version 1 already" in capsys.readouterr().out


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["promote", "grammar"], 2, "which version of grammar?"),
        (["promote", "grammar/9"], 3, "has no version 9; it has: 1@champion, 2, 3"),
        (["promote", "gramar/1"], 3, "did you mean 'grammar'"),
        (["rollback", "grammar"], 3, "nothing to roll grammar@champion back to"),
        (["history", "gramar"], 3, "did you mean 'grammar'"),
        (["predict", "gramar", "--text", "a"], 3, "did you mean 'grammar'"),
        (["predict", "grammar"], 2, "give one of --text TEXT, --file IN, --interactive and --demo"),
        (["predict", "grammar", "--text", "a", "--interactive"], 2, "give one of"),
        (["predict", "grammar", "--text", "a", "--out", "b"], 2, "--out with --file"),
        (["predict", "grammar", "--file", "nowhere.jsonl"], 2, "no file nowhere.jsonl"),
        (["predict", "grammar", "--file", "-", "-o", "json"], 2, "needs --out"),
        (["predict", "grammar", "--text", "a", "--text2", "b"], 2, "takes one text"),
        (["predict", "grammar", "--text", "a", "--data", "b"], 2, "--data with --demo"),
        (["predict", "grammar", "--text", "\udcff"], 2, "not valid Unicode"),
        (["predict", "grammar", "--text", " "], 2, "the text is empty"),
        (["predict", "pairs", "--text", "a"], 2, "the second one is missing"),
        (["evaluate", "grammar", "--task", "colla"], 3, "did you mean 'cola'"),
        (["evaluate", "grammar", "--task", "mnli", "--data", "/nowhere"], 2, "/nowhere"),
    ],
)
def test_mistakes_are_told(arguments: list[str], code: int, message: str, capsys: Capture) -> None:
    assert run(arguments) == code
    assert message in capsys.readouterr().err


def test_a_fresh_home_stays_empty(tmp_path: Path, capsys: Capture) -> None:
    for command in (["history", "m"], ["rollback", "m"], ["promote", "m/1"], ["predict", "m", "--text", "a"]):
        assert run(command) == 3
        assert "nothing was tracked yet" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


@pytest.mark.usefixtures("home")
def test_predict_one_text(capsys: Capture) -> None:
    assert run(["predict", "grammar", "--text", "The cat sat.", "-o", "json"]) == 0
    first = document(capsys)
    assert list(first) == ["model", "label", "score", "scores"]
    assert first["model"] == "grammar/1"
    assert tuple(first["scores"]) == LABELS
    assert first["score"] == first["scores"][first["label"]] == max(first["scores"].values())
    assert run(["predict", "grammar@champion", "--text", "The cat sat."]) == 0
    assert f"{first['label']}" in capsys.readouterr().out.splitlines()[1]


@pytest.mark.usefixtures("home")
def test_predict_the_value_of_a_pair(capsys: Capture) -> None:
    assert run(["predict", "pairs", "--text", "a cat", "--text2", "a dog", "-o", "json"]) == 0
    prediction = document(capsys)
    assert (prediction["label"], prediction["scores"]) == (None, {})
    assert isinstance(prediction["score"], float)


@pytest.mark.usefixtures("home")
def test_predict_a_file_in_order_and_keep_bad_lines_apart(tmp_path: Path, capsys: Capture) -> None:
    texts = ["the cat sat", "no", "she gave him a present on the mat", "he"]
    lines = [json.dumps({"text": text}) for text in texts]
    lines[2:2] = ["{broken", "", json.dumps({"sentence": 3}), json.dumps({"text": "a", "text2": "b"}), "[]", '{"x": 1}']
    lines += [json.dumps("a dog"), json.dumps({"sentence": "is smart"})]
    source, out = tmp_path / "in.jsonl", tmp_path / "out" / "out.jsonl"
    source.write_bytes("\n".join(lines).encode() + b'\n"\xff"\n')
    assert run(["predict", "grammar", "--file", str(source), "--out", str(out), "-o", "json", "--batch-size", "2"]) == 2
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert told == {"model": "grammar/1", "file": str(source), "out": str(out), "predicted": 6, "bad": 6,
                    "bad_file": f"{out}.bad.jsonl", "interrupted": False}  # fmt: skip
    entries = written(out)
    assert [entry["index"] for entry in entries] == [0, 1, 8, 9, 10, 11]
    assert [entry["index"] for entry in written(Path(told["bad_file"]))] == [2, 4, 5, 6, 7, 12]
    assert written(Path(told["bad_file"]))[0]["line"] == "{broken"
    assert "line 3: not JSON" in captured.err
    assert "line 6: this model takes one text" in captured.err
    for entry, text in zip(entries, [*texts, "a dog", "is smart"], strict=True):
        assert run(["predict", "grammar", "--text", text, "-o", "json"]) == 0
        alone = document(capsys)
        assert entry["label"] == alone["label"]
        assert entry["score"] == pytest.approx(alone["score"], abs=1e-5)


@pytest.mark.usefixtures("home")
def test_predict_a_good_file_replaces_what_was_there(tmp_path: Path, capsys: Capture) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"text": "a cat"}\n')
    out.write_text("old\n")
    Path(f"{out}.bad.jsonl").write_text("old\n")
    assert run(["predict", "grammar", "--file", str(source), "--out", str(out)]) == 0
    assert "1 predicted; in" in capsys.readouterr().out
    assert [entry["index"] for entry in written(out)] == [0]
    assert sorted(path.name for path in tmp_path.glob("*out*")) == ["out.jsonl"]
    assert run(["predict", "grammar", "--file", str(source), "--out", str(source)]) == 2


@pytest.mark.usefixtures("home")
def test_predict_from_stdin_to_stdout(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"text": "a cat"}\n"no"\n')))
    assert run(["predict", "grammar", "--file", "-"]) == 0
    captured = capsys.readouterr()
    assert [json.loads(line)["index"] for line in captured.out.splitlines()] == [0, 1]
    assert "2 predicted" in captured.err


@pytest.mark.usefixtures("home")
def test_predict_interactively(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", typed("a cat\n\nno"))
    assert run(["predict", "grammar", "--interactive"]) == 0
    captured = capsys.readouterr()
    assert [line.split()[0] in LABELS for line in captured.out.splitlines()] == [True, True]
    assert all(re.search(r"  \(\d+ ms\)$", line) for line in captured.out.splitlines())
    assert "the text is empty" in captured.err
    monkeypatch.setattr(sys, "stdin", typed("a cat\na dog\nlast\n"))
    assert run(["predict", "pairs", "-i", "-o", "json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert list(json.loads(line)) == ["label", "score", "scores", "latency_ms"]
    assert json.loads(line)["label"] is None


def test_every_form_of_a_model_for_every_command(filled: Path, home: Home, tmp_path: Path, capsys: Capture) -> None:
    adapter, base = filled.parent / "grammar-0.5", filled.parent / "base"
    run_folder = make_run(home, base)
    save_best(run_folder, "acceptability", 0, adapter, 24, 0.5)
    trial = f"{run_folder.run_id}/acceptability/0"
    forms = {"grammar": "grammar/1", "grammar@champion": "grammar/1", "grammar/1": "grammar/1",
             f"{run_folder.run_id}/0": trial, trial: trial, str(adapter): str(adapter)}  # fmt: skip
    told: dict[str, list[Any]] = {}
    for number, (form, name) in enumerate(forms.items()):
        commands = (
            ["predict", form, "--text", "The cat sat."],
            ["evaluate", form, "--limit", "8"],
            ["export", form, "--to", str(tmp_path / str(number))],
        )
        for command in commands:
            assert run([*command, "-o", "json"]) == 0
            found = document(capsys)
            assert found["model"] == name
            told.setdefault(command[0], []).append(found)
    assert len({found["score"] for found in told["predict"]}) == 1
    assert len({found["objective"]["value"] for found in told["evaluate"]}) == 1
    files = [{*found["files"]} - {"README.md"} for found in told["export"]]  # PEFT's own, of which a trial has none
    assert files == [files[0]] * len(forms)


def test_a_damaged_checkpoint_is_noted(filled: Path, home: Home, capsys: Capture) -> None:
    run_folder = make_run(home, filled.parent / "base")
    save_best(run_folder, "acceptability", 0, filled.parent / "grammar-0.5", 12, 0.5)
    newest = save_best(run_folder, "acceptability", 0, filled.parent / "grammar-0.7", 24, 0.7)
    (newest / "adapter_config.json").write_text("{}")
    assert run(["predict", f"{run_folder.run_id}/0", "--text", "a cat"]) == 0
    assert "adapter_config.json has 2 bytes, its manifest says" in capsys.readouterr().err


@pytest.mark.usefixtures("home")
def test_the_demo_asks_the_task_s_own_examples(capsys: Capture) -> None:
    assert run(["predict", "grammar", "--demo", "-o", "json"]) == 0
    told = document(capsys)
    assert list(told) == ["model", "task", "examples", "agreed"]
    assert list(told["examples"][0]) == ["text", "meant", "label", "score", "scores"]
    assert [entry["text"] for entry in told["examples"]][:2] == [
        "The book was written by John.", "The book was written John.",
    ]  # fmt: skip
    agreed = sum(entry["meant"] == entry["label"] for entry in told["examples"])
    assert (told["model"], told["task"], told["agreed"]) == ("grammar/1", "acceptability", agreed)
    assert run(["predict", "grammar", "--demo"]) == 0
    out = capsys.readouterr().out
    assert f"{agreed} of 6 examples as meant" in out
    assert "She gave he a present." in out
    assert run(["predict", "pairs", "--demo", "-o", "json"]) == 0
    told = document(capsys)
    assert told["agreed"] is None
    assert all(isinstance(entry["meant"], float) and entry["text2"] for entry in told["examples"])
    assert run(["predict", "pairs", "--demo"]) == 0
    assert "A dog is running through a field." in capsys.readouterr().out


def test_the_demo_of_a_task_of_one_s_own(filled: Path, tmp_path: Path, capsys: Capture) -> None:
    task = CustomTask(kind="classification", text="line", label="kind", labels=LABELS, folder="mine")
    adapter = make_adapter(tmp_path / "adapter", filled.parent / "base", task="lines", custom=task)
    assert run(["predict", str(adapter), "--demo"]) == 2
    assert "lines has no examples of its own: name the folder that holds mine/ with --data" in capsys.readouterr().err
    (tmp_path / "data" / "mine").mkdir(parents=True)
    rows = [{"line": f"the cat sat {'on ' * number}", "kind": LABELS[number % 2]} for number in range(9)]
    (tmp_path / "data" / "mine" / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(["predict", str(adapter), "--demo", "--data", str(tmp_path / "data"), "-o", "json"]) == 0
    told = document(capsys)
    assert [(entry["text"], entry["meant"]) for entry in told["examples"]] == [
        (row["line"], row["kind"]) for row in rows[:6]
    ]
    # A row that training would have been told to skip is left out and told here; its own task may be named.
    with (tmp_path / "data" / "mine" / "validation.jsonl").open("a") as file:
        file.write('{"line": "", "kind": "none"}\n')
    for named in ([], ["--task", "lines"]):
        assert run(["evaluate", str(adapter), *named, "--data", str(tmp_path / "data"), "-o", "json"]) == 0
        out, err = capsys.readouterr()
        assert json.loads(out)["examples"] == 9
        assert "1 bad rows are left out; the first one" in err
        assert "validation.jsonl:10: column 'line' is empty" in err
    unknown = make_adapter(tmp_path / "unknown", filled.parent / "base", task="nonesuch")
    assert run(["predict", str(unknown), "--demo"]) == 3
    assert "nonesuch, which is not known here: ask it with --text" in capsys.readouterr().err


@pytest.mark.usefixtures("home")
def test_evaluate_on_the_task_s_own_data(capsys: Capture) -> None:
    assert run(["evaluate", "grammar", "--limit", "30", "-o", "json"]) == 0
    told = document(capsys)
    assert " ".join(told) == "model task objective metrics examples seconds data_fingerprint recorded same_data"
    assert (told["model"], told["task"], told["examples"]) == ("grammar/1", "acceptability", 30)
    assert told["objective"]["value"] == told["metrics"][told["objective"]["name"]]
    assert (told["recorded"], told["same_data"]) == (0.5, False)


@pytest.mark.usefixtures("home")
def test_evaluate_on_files(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "data" / "glue" / "stsb"
    folder.mkdir(parents=True)
    rows = [
        {"sentence1": "a cat", "sentence2": "a dog", "label": 1.5},
        {"sentence1": "no", "sentence2": "he", "label": 4},
    ]
    (folder / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    root = next(root for root in (tmp_path / "data", tmp_path / "data" / "glue") if (root / _stsb()).is_dir())
    assert run(["evaluate", "pairs", "--data", str(root)]) == 0
    out = capsys.readouterr().out
    assert "pearson" in out
    assert "2 rows" in out


def _stsb() -> str:
    from tunery import tasks

    return tasks.get("stsb").folder


@pytest.mark.usefixtures("home")
def test_export_and_predict_from_the_folder(tmp_path: Path, capsys: Capture) -> None:
    to = tmp_path / "merged"
    assert run(["export", "grammar/2", "--to", str(to), "--merge", "-o", "json"]) == 0
    told = document(capsys)
    assert list(told) == ["model", "folder", "merged", "files", "samples", "max_difference", "max_difference_quantised"]
    assert (told["model"], told["folder"], told["merged"]) == ("grammar/2", str(to), True)
    assert 0 <= told["max_difference"] < 1e-4
    assert run(["predict", str(to), "--text", "The cat sat.", "-o", "json"]) == 0
    merged = document(capsys)
    assert run(["predict", "grammar/2", "--text", "The cat sat.", "-o", "json"]) == 0
    assert merged["score"] == pytest.approx(document(capsys)["score"], abs=1e-5)
    assert run(["export", "grammar/2", "--to", str(to)]) == 4
    assert "not an empty folder" in capsys.readouterr().err
    assert run(["export", "grammar", "--to", str(tmp_path / "adapter")]) == 0
    assert "adapter_model.safetensors" in capsys.readouterr().out


def test_stdout_holds_nothing_but_the_document(home: Home) -> None:
    """In a process of its own, where libraries can write to the real stdout."""
    command = [sys.executable, "-m", "tunery.cli.app", "predict", "grammar", "--text", "a cat", "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["model"] == "grammar/1"
    assert done.stderr == ""
    assert home.cache.is_dir()
