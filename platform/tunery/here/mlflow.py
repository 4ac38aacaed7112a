"""MLflow's server of this machine: with users, on 127.0.0.1, for requests that name it so."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx

from tunery.here.layout import Layout, write_private
from tunery.here.part import Launch, inherited
from tunery.here.store import Store, for_mlflow

ENVIRONMENT: Mapping[str, str] = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Nothing of ours is a pickle, and what is not ours must not become code.
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    # Its own job workers (for judging traces) would be five more processes.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
USER = "tunery"
USER_FILE, PASSWORD_FILE, _SESSION_KEY = "mlflow-user", "mlflow-password", "mlflow-session-key"
_TIMEOUT_S = 5.0
_CONFIG = """\
[mlflow]
default_permission = NO_PERMISSIONS
database_uri = {url}
admin_username = {user}
admin_password = {password}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


LOGIN: Mapping[str, str] = {"MLFLOW_TRACKING_USERNAME": USER_FILE, "MLFLOW_TRACKING_PASSWORD": PASSWORD_FILE}
"""MLflow's variables for its clients -> the names of the secrets that hold their values."""


class Mlflow:
    """See `tunery.here.part.Part`. `database`, `accounts`: the URLs of its tables, and of those of its users."""

    name, title = "mlflow", "MLflow"
    start_s, starts, end_s = 180.0, 1, 15.0
    end_signal = signal.SIGTERM
    PORTS = ("mlflow",)

    def __init__(
        self,
        layout: Layout,
        port: int,
        *,
        database: str,
        accounts: str,
        passwords: str | None,
        store: Store | None,
    ) -> None:
        """`passwords`: the file of the database's, for libpq. `store`: of artifacts; None: a folder of the layout's."""
        self._layout = layout
        self._port = port
        self._database = database
        self._accounts = accounts
        self._passwords = {"PGPASSFILE": passwords} if passwords else {}
        self._store = store
        self.address = f"http://127.0.0.1:{port}"
        self.log = layout.log(self.name)

    def prepare(self) -> None:
        self._layout.secret(USER_FILE, USER)
        config = _CONFIG.format(url=self._accounts, user=USER, password=self._layout.secret(PASSWORD_FILE))
        write_private(self._config, config)

    def launch(self) -> Launch:
        hosts = f"127.0.0.1:{self._port},localhost:{self._port}"
        command = [sys.executable, "-P", "-m", "mlflow", "server", "--app-name", "basic-auth", "--workers", "1"]
        command += ["--host", "127.0.0.1", "--port", str(self._port), "--allowed-hosts", hosts]
        environment = {
            "TUNERY_HOME": str(self._layout.root.parent),
            "MLFLOW_BACKEND_STORE_URI": self._database,
            **for_mlflow(self._layout, self._store),
            "MLFLOW_AUTH_CONFIG_PATH": str(self._config),
            # The one secret that MLflow takes from the environment alone, which other users cannot read.
            "MLFLOW_FLASK_SERVER_SECRET_KEY": self._layout.secret(_SESSION_KEY),
        }
        return Launch(command, {**inherited(), **ENVIRONMENT, **environment, **self._passwords}, self._layout.root)

    def trouble(self) -> str:
        login = (USER, self._layout.secret(PASSWORD_FILE))
        path = f"{self.address}/api/2.0/mlflow/experiments/get"
        try:
            with httpx.Client(timeout=_TIMEOUT_S, params={"experiment_id": "0"}, trust_env=False) as client:
                if (status := client.get(f"{self.address}/health").status_code) != 200:
                    return f"/health answers HTTP {status}"
                if (status := client.get(path).status_code) != 401:
                    return f"it answers HTTP {status} to who has no login, and not 401"
                if (status := client.get(path, auth=login).status_code) != 200:
                    return f"it answers HTTP {status} to its own user"
        except httpx.HTTPError as error:
            return str(error) or type(error).__name__
        return ""

    @property
    def _config(self) -> Path:
        return self._layout.secret_file("mlflow.ini")
