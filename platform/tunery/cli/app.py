"""The command `platform`: finds its commands, runs one, and turns what goes wrong into a message and an exit code.

To add a command, add one file `cli/<name>.py` (underscores become dashes; a file `_<name>.py` is a helper); nothing
else has to be touched:

    PANEL = Panel.RUNS                      # the group it is listed under in the help
    ORDER = 30                              # its place in the group

    def command(run: RunArgument, output: OutputOption = Format.TABLE) -> None:
        '''First line: what `platform --help` shows. The rest: what `platform <name> --help` shows.'''
        from tunery.client import local     # whatever is heavy is imported here, not at the top of the file
        ...
        emit(output, document, table, next_steps=["platform ls"])

- At the top of a command's file stand only typer, `tunery.errors`, `tunery.cli.*` and other light modules: the help
  imports every command. A command that needs an extra begins with `extras.require("cluster")`.
- A file whose name begins with `_` is no command, but what several commands share.
- `cli/options.py` holds the options that commands share; `cli/output.py` is the only place that prints.
- Raise the errors of `tunery.errors` and let them pass: `run` prints them and gives their exit code. An exit code
  without a message: `raise typer.Exit(code)`. Ctrl-C is `KeyboardInterrupt`: let it pass too, unless you handle it.
- Tests call `run(["validate", "x.yaml"])`, which returns the exit code, and read what was printed with `capsys`.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Annotated

import typer

import tunery
from tunery import cli
from tunery.cli import output

NOT_COMMANDS = frozenset({"app", "extras", "options", "output"})

PANELS = tuple(output.Panel)


def command_names() -> tuple[str, ...]:
    """The files of this folder that are commands, without importing them."""
    files = (module.name for module in pkgutil.iter_modules(cli.__path__))
    return tuple(name.replace("_", "-") for name in files if name not in NOT_COMMANDS and name[0] != "_")


def build(only: str | None = None) -> typer.Typer:
    """The typer application, with all commands or with one: the others' imports are then not paid."""
    app = typer.Typer(
        name="platform",
        help="Tune language models from a spec: plan it, run it on Ray, promote the best adapter, ask it.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    modules = [(name, _module(name)) for name in ([only] if only else command_names())]
    modules.sort(key=lambda entry: (PANELS.index(entry[1].PANEL), getattr(entry[1], "ORDER", 100), entry[0]))
    for name, module in modules:
        app.command(name, rich_help_panel=module.PANEL.value)(module.command)
    return app


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"tunery.cli.{name.replace('-', '_')}")


def _show_version(show: bool) -> None:
    if show:
        print(f"tunery {tunery.__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


def run(argv: Sequence[str]) -> int:
    """Run one command line; the exit code (see `tunery.errors`). Prints every error, raises none."""
    as_json = output.asks_for_json(argv)
    try:
        code = _run(argv, as_json=as_json)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader (`| head`) has seen enough. What is still buffered must not fail at the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return output.FAULT


def _run(argv: Sequence[str], *, as_json: bool) -> int:
    try:
        only = argv[0] if argv and argv[0] in command_names() else None
        result = build(only)(list(argv), prog_name="platform", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        return output.interrupted()
    except Exception as error:
        return output.failed(error, as_json=as_json)


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
