"""Postgres of this machine: a database for MLflow and one for Optuna, each with a user of its own.

It listens on 127.0.0.1 only, and asks everybody for a password (SCRAM). Its superuser has none and cannot log in: users
and databases are made in single-user mode, before it listens.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path

import psycopg

from tunery.errors import UnreachableError
from tunery.here.layout import Layout, write_private
from tunery.here.part import Launch

DATABASES = ("mlflow", "optuna")
"""Each owned by the user of its name."""
SYSTEM_USER = "postgres"
"""Who runs it where root gives the command: Postgres refuses root."""
DEBIAN = Path("/usr/lib/postgresql")
"""There Debian and Ubuntu keep the programs, in a folder a version, and not on the PATH."""
_SUPERUSER = "postgres"
_INIT_S = 120.0
_CONNECT_S = 5


def programs() -> Path | None:
    """The folder of Postgres's programs, the newest where there are several; None where it is not installed."""
    if (found := shutil.which("pg_ctl")) is not None:
        return Path(found).resolve().parent
    folders = [each / "bin" for each in DEBIAN.iterdir()] if DEBIAN.is_dir() else []
    folders = [each for each in folders if (each / "pg_ctl").exists() and each.parent.name.isdecimal()]
    return max(folders, key=lambda each: int(each.parent.name), default=None)


def data_folder(layout: Layout, cluster: str) -> Path:
    """Where the files of a new database go. Root's are in the home of the user that they belong to: no other user may
    enter root's own folders.
    """
    if os.getuid() != 0:
        return layout.root / "postgres"
    try:
        return Path(pwd.getpwnam(SYSTEM_USER).pw_dir) / f"tunery-{cluster[:8]}"
    except KeyError:
        raise UnreachableError(
            f"Postgres refuses to be run by root, and there is no user {SYSTEM_USER!r} to run it: "
            "give the command as another user"
        ) from None


def url(database: str, port: int) -> str:
    """Of a database, without its password: that is found in `password_file`, which PGPASSFILE names."""
    return f"postgresql://{database}@127.0.0.1:{port}/{database}"


def password_file(layout: Layout) -> Path:
    return layout.secret_file("pgpass")


class Postgres:
    """See `tunery.here.part.Part`."""

    name, title = "postgres", "Postgres"
    start_s, starts, end_s = 60.0, 1, 30.0
    # "Fast": sessions are ended, and all is written; SIGTERM would wait for clients.
    end_signal = signal.SIGINT
    PORTS = ("postgres",)

    def __init__(self, layout: Layout, port: int, data: Path, *, made: bool) -> None:
        """`data`: the folder of its files; `made`: whether they have been there before."""
        self._layout = layout
        self._port = port
        self._data = data
        self._made = made
        self._user = SYSTEM_USER if os.getuid() == 0 else None
        self.address = f"127.0.0.1:{port}"
        self.log = layout.log(self.name)

    def prepare(self) -> None:
        lines = [f"127.0.0.1:*:{each}:{each}:{self._layout.secret(f'postgres-{each}')}" for each in DATABASES]
        write_private(password_file(self._layout), "\n".join(lines) + "\n")
        if not (self._data / "PG_VERSION").exists():
            if self._made:
                raise UnreachableError(
                    f"Postgres's files are gone from {self._data}: restore them from a backup, or move "
                    f"{self._layout.root} away for a new cluster"
                )
            self._lay_out()

    def launch(self) -> Launch:
        options = {"listen_addresses": "127.0.0.1", "port": self._port, "unix_socket_directories": ""}
        command = [self._program("postgres"), "-D", str(self._data)]
        command += [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return Launch(command, self._environment(), self._data, self._user)

    def trouble(self) -> str:
        try:
            for each in DATABASES:
                with psycopg.connect(
                    url(each, self._port), passfile=str(password_file(self._layout)), connect_timeout=_CONNECT_S
                ) as connection:
                    connection.execute("select 1")
        except psycopg.Error as error:
            return str(error).strip().partition("\n")[0]
        return ""

    def _lay_out(self) -> None:
        # Under another name until it is whole: what a killed command leaves is no database.
        part = self._data.with_name(f"{self._data.name}.part")
        if part.exists():
            shutil.rmtree(part)
        part.mkdir(mode=0o700)
        if self._user is not None:
            shutil.chown(part, self._user, self._user)
        init = [self._program("initdb"), "-D", str(part), "-U", _SUPERUSER, "-E", "UTF8", "--locale=C"]
        self._run([*init, "--auth-host=scram-sha-256", "--auth-local=reject"], part)
        statements = "".join(
            f"create role {each} login password '{self._layout.secret(f'postgres-{each}')}';\n"
            f"create database {each} owner {each};\n"
            for each in DATABASES
        )
        # A statement that fails must not be logged: it holds a password.
        quiet = ["-c", "log_min_error_statement=panic"]
        self._run([self._program("postgres"), "--single", *quiet, "-D", str(part), "postgres"], part, statements)
        part.rename(self._data)

    def _run(self, command: list[str], folder: Path, statements: str = "") -> None:
        try:
            done = subprocess.run(
                command,
                input=statements,
                capture_output=True,
                text=True,
                cwd=folder,
                env=self._environment(),
                user=self._user,
                group=self._user,
                extra_groups=() if self._user else None,
                timeout=_INIT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnreachableError(f"Postgres's files cannot be laid out in {folder}: {error}") from error
        if done.returncode or "ERROR" in done.stderr:
            said = "\n".join(done.stderr.strip().splitlines()[-10:])
            raise UnreachableError(f"Postgres's files cannot be laid out in {folder}: {said}")

    def _program(self, name: str) -> str:
        laid_out = self._data / "PG_VERSION"
        if laid_out.exists():
            # A newer version does not read the files of the one that has made them.
            same = DEBIAN / laid_out.read_text().strip() / "bin" / name
            if same.exists():
                return str(same)
        folder = programs()
        if folder is None:
            raise UnreachableError(
                f"Postgres is not installed any more, and the cluster's tables are in {self._data}: install it again"
            )
        return str(folder / name)

    def _environment(self) -> dict[str, str]:
        # Another user may run it: what the command's own user has in the environment stays there.
        return {"PATH": os.environ.get("PATH", os.defpath), "TUNERY_HOME": str(self._layout.root.parent)}
