"""The parts of a cluster, made from what is kept of it, and the profiles that lead to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tunery.here import mlflow, postgres, ray
from tunery.here.kept import Kept
from tunery.here.layout import Layout, toml_table, write_private
from tunery.here.part import Part
from tunery.here.share import Share
from tunery.here.store import key_files
from tunery.profile import HERE, TOKEN

CLUSTER = "cluster"
"""The profile of what runs there."""


def port_names(kept: Kept) -> dict[str, tuple[str, ...]]:
    """Part -> what it needs ports for, in the order in which parts are started."""
    database = {postgres.Postgres.name: postgres.Postgres.PORTS} if kept.database == "postgres" else {}
    nodes = {ray.node_name(number): ray.Node.PORTS for number in range(1, kept.workers + 1)}
    return {**database, mlflow.Mlflow.name: mlflow.Mlflow.PORTS, ray.HEAD: ray.Head.PORTS, **nodes}


def parts(layout: Layout, kept: Kept, shares: tuple[Share, ...]) -> tuple[Part, ...]:
    """All of them, in the order in which they are started. `shares`: the head's and the nodes'."""
    made: list[Part] = []
    ports = kept.ports
    accounts = database = f"sqlite:///{layout.root / 'mlflow.db'}"
    passwords = None
    if kept.database == "postgres":
        port = ports[postgres.Postgres.name]["postgres"]
        made.append(postgres.Postgres(layout, port, Path(kept.postgres_data), made=kept.postgres_made))
        accounts = database = postgres.url("mlflow", port)
        passwords = str(postgres.password_file(layout))
    made.append(
        mlflow.Mlflow(
            layout,
            ports[mlflow.Mlflow.name]["mlflow"],
            database=database,
            accounts=accounts,
            passwords=passwords,
            store=kept.store,
        )
    )
    environment = {"TUNERY_HOME": str(layout.home.root), "TUNERY_CONFIG": str(layout.config)}
    environment |= {"PGPASSFILE": passwords} if passwords else {}
    head, *others = shares
    folder = Path(kept.short) / ray.LINK
    made.append(ray.Head(layout, ports[ray.HEAD], head, environment, folder=folder))
    gcs = ports[ray.HEAD]["gcs"]
    for number, share in enumerate(others, start=1):
        made.append(ray.Node(layout, number, ports[ray.node_name(number)], share, environment, head=gcs))
    return tuple(made)


def write_profiles(layout: Layout, kept: Kept) -> None:
    """The profile `here`, and the cluster's own. Both name files for what is secret, and hold nothing of it."""
    tracking = f"http://127.0.0.1:{kept.ports[mlflow.Mlflow.name]['mlflow']}"
    jobs = f"http://127.0.0.1:{kept.ports[ray.HEAD]['dashboard']}"
    login = {variable: layout.secret_file(name) for variable, name in mlflow.LOGIN.items()}
    here: Mapping[str, str] = {"target": "ray", "jobs": jobs, "tracking_uri": tracking}
    write_private(layout.profile, toml_table(HERE, here, {TOKEN: layout.secret_file(ray.TOKEN_FILE), **login}, {}))
    own = {"tracking_uri": tracking}
    if kept.database == "postgres":
        # Its password is found by libpq, in the file that PGPASSFILE names: on every node, and in no URL.
        own["study_storage_url"] = postgres.url("optuna", kept.ports[postgres.Postgres.name]["postgres"])
    store = kept.store
    if store is not None:
        own["store"] = store.checkpoints
    table = toml_table(CLUSTER, own, login | key_files(layout, store), store.settings if store is not None else {})
    write_private(layout.config, f'default = "{CLUSTER}"\n\n{table}')
