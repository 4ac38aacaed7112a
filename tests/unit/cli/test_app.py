"""How the command line ends: every error a message and an exit code, and never a bare traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from storage.errors import DataError, NotRegisteredError, RegistryUnreachableError
from tuners.errors import TunerError
from tunery import errors
from tunery.cli import app, extras, output
from tunery.cli.options import OutputOption
from tunery.cli.output import Format, Panel, emit, only_stderr, table, to_json


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A command `validate` that raises what its `error` is."""
    holder = SimpleNamespace(error=None, PANEL=Panel.SPECS)

    def command(_: OutputOption = Format.TABLE) -> None:
        raise holder.error

    holder.command = command
    monkeypatch.setattr(app, "_module", lambda _: holder)
    return holder


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InputError("message"), 2),
        (errors.ProfileError("message"), 2),
        (errors.NotFoundError("message"), 3),
        (errors.ConflictError("message"), 4),
        (errors.RunError("message"), 5),
        (errors.UnreachableError("message"), 6),
        (errors.MissingExtraError("message"), 7),
        (errors.TuneryError("message"), 1),
        (DataError("message"), 2),
        (NotRegisteredError("message"), 3),
        (RegistryUnreachableError("message"), 6),
        (TunerError("message"), 2),
    ],
)
def test_an_error_is_a_message_and_an_exit_code(
    failing: SimpleNamespace, error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    failing.error = error
    assert app.run(["validate"]) == code
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "error: message\n")
    assert app.run(["validate", "-o", "json"]) == code
    assert json.loads(capsys.readouterr().out) == {
        "error": {"type": type(error).__name__, "message": "message", "mistakes": []}
    }


def test_a_fault_of_ours_is_kept_in_a_file(
    failing: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failing.error = ZeroDivisionError("by [bold]zero")
    assert app.run(["validate"]) == 1
    printed = capsys.readouterr().err
    (log,) = (tmp_path / "home" / "logs").glob("crash-*.log")
    assert "ZeroDivisionError: by [bold]zero" in printed, "brackets are no markup"
    assert str(log) in printed
    assert "Traceback" not in printed
    assert "Traceback (most recent call last)" in log.read_text()


def test_a_fault_that_cannot_be_kept_is_printed(
    failing: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNERY_HOME", "/proc/nowhere")
    failing.error = ZeroDivisionError("by zero")
    assert app.run(["validate"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (typer.Abort(), 130), (typer.Exit(5), 5)])
def test_other_ends(failing: SimpleNamespace, error: BaseException, code: int) -> None:
    failing.error = error
    assert app.run(["validate"]) == code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["validat"], "No such command 'validat'. Did you mean 'validate'"),
        (["validate"], "Missing argument 'SPEC'"),
        (["validate", "x.yaml", "--sett", "a"], "No such option: --sett"),
        (["validate", "x.yaml", "-o", "xml"], "xml"),
    ],
)
def test_a_wrong_command_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(arguments) == 2
    assert message in capsys.readouterr().err
    assert app.run([*arguments[:1], "--output=json", *arguments[1:]]) == 2
    assert message in json.loads(capsys.readouterr().out)["error"]["message"]


def test_no_command_is_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    app.run([])
    printed = capsys.readouterr()
    assert "Usage: platform" in printed.out + printed.err
    assert "error:" not in printed.err


def test_the_help_lists_every_command_in_its_panel(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["--help"]) == 0
    printed = capsys.readouterr().out
    assert {"init", "validate", "plan", "schema"} <= set(app.command_names())
    for name in app.command_names():
        assert f" {name} " in printed
    assert Panel.SPECS.value in printed


@pytest.mark.parametrize("name", app.command_names())
def test_every_command_keeps_to_the_convention(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = app._module(name)
    assert isinstance(module.PANEL, Panel)
    assert module.command.__doc__
    assert app.run([name, "--help"]) == 0
    assert "--output" in capsys.readouterr().out, "every command takes -o json"


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("validate x -o json", True), ("validate x -ojson", True), ("validate x --output json", True),
        ("validate x --output=json", True), ("validate x -o table", False), ("validate json", False),
        ("validate -- -o json", False), ("validate x -o", False), ("", False),
    ],
)  # fmt: skip
def test_json_is_known_before_the_command_line_is_parsed(words: str, wanted: bool) -> None:
    assert output.asks_for_json(words.split()) is wanted


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = f"{sys.executable} -m tunery.cli.app schema | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_names_with_brackets_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    made = table("[bold]", "n", numbers=("n",))
    made.add_row("[red]x[/red]", "1")
    emit(Format.TABLE, {}, made, "a [dim]b[/dim] :smile:", next_steps=["one", "two"])
    printed = capsys.readouterr().out
    for fragment in ("[bold]", "[red]x[/red]", "a [dim]b[/dim] :smile:", "next: one\n      two\n"):
        assert fragment in printed


def test_json_holds_what_json_can() -> None:
    assert json.loads(to_json({"a": float("nan"), "b": (1, True, None), "c": Path("x"), "d": {"e": "ü"}})) == {
        "a": None, "b": [1, True, None], "c": "x", "d": {"e": "ü"},
    }  # fmt: skip


def test_what_libraries_print_can_be_kept_off_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    with only_stderr():
        print("python", flush=True)
        subprocess.run(["echo", "child"], check=True)
    print("result")
    printed = capfd.readouterr()
    assert printed.out == "result\n"
    assert {"python", "child"} <= set(printed.err.split())


def test_an_extra_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(extras.PACKAGES, "cluster", ("json", "no_such_package"))
    with pytest.raises(errors.MissingExtraError, match=r"no no_such_package.*pip install 'tunery\[cluster\]'"):
        extras.require("cluster")
    monkeypatch.setitem(extras.PACKAGES, "cluster", ("json",))
    extras.require("cluster")
