"""What is settled before anything is started: database, size, ports, shares. And what is remembered of it."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from random import Random

import pytest

from tunery.errors import ConflictError, InputError, UnreachableError
from tunery.here import kept as kept_module
from tunery.here import ports, postgres, ray
from tunery.here.cluster import down, look, up
from tunery.here.kept import Kept, alone, load, save
from tunery.here.layout import Layout
from tunery.here.parts import parts, port_names, write_profiles
from tunery.here.processes import remember
from tunery.here.shape import check_ports, new, sized, with_ports
from tunery.here.share import available_memory, shares
from tunery.home import Home
from tunery.profile import load_profile

GIB = 1 << 30
SHARES = shares(2, cpus=2, memory=10 * GIB, shared=10 * GIB)


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("TUNERY_CONFIG", raising=False)
    made = Layout.of(Home(tmp_path / "a home"))
    made.make()
    return made


def settled(database: kept_module.Database = "postgres", **changes: object) -> Kept:
    kept = Kept(database=database, postgres_data="/data", cpus=2, workers=1).model_copy(update=changes)
    return with_ports(kept, Random(7), print, running=False)


def test_without_postgres_it_is_sqlite(layout: Layout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(postgres, "DEBIAN", tmp_path / "none")
    kept = with_ports(new(layout, 1, 2), Random(7), print, running=False)
    assert (kept.database, kept.postgres_data) == ("sqlite", "")
    made = parts(layout, kept, SHARES)
    assert [part.name for part in made] == ["mlflow", "ray-head", "ray-node-1"]
    mlflow = made[0].launch()
    assert mlflow.environment["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{layout.root}/mlflow.db"
    assert "PGPASSFILE" not in mlflow.environment
    write_profiles(layout, kept)
    assert "study_storage_url" not in layout.config.read_text()


def test_the_newest_postgres_is_taken_and_files_keep_theirs(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(postgres, "DEBIAN", tmp_path)
    for version in ("9", "15", "16"):
        (tmp_path / version / "bin").mkdir(parents=True)
        for program in ("pg_ctl", "postgres"):
            (tmp_path / version / "bin" / program).touch()
    assert postgres.programs() == tmp_path / "16/bin"
    data = tmp_path / "data"
    data.mkdir()
    (data / "PG_VERSION").write_text("15\n")
    part = postgres.Postgres(layout, 1, data, made=True)
    assert part.launch().command[0] == str(tmp_path / "15/bin/postgres")


def test_files_that_are_gone_are_not_made_anew(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match=r"Postgres's files are gone from .*: restore them"):
        postgres.Postgres(layout, 1, tmp_path / "gone", made=True).prepare()


def test_no_secret_is_in_a_command_a_url_or_a_profile(layout: Layout) -> None:
    kept = settled()
    made = parts(layout, kept, SHARES)
    for part in made[1:]:
        part.prepare()
    write_profiles(layout, kept)
    shown = [*(" ".join(part.launch().command) for part in made), layout.config.read_text(), layout.profile.read_text()]
    shown += [kept.model_dump_json()]
    secrets = [layout.secret_file(name).read_text() for name in ("ray-token", "mlflow-password", "mlflow-session-key")]
    assert not [each for each in secrets for text in shown if each in text]
    assert {stat.S_IMODE(file.stat().st_mode) for file in layout.secrets.iterdir()} == {0o600}
    assert stat.S_IMODE(layout.root.stat().st_mode) == 0o700
    assert layout.secret("ray-token") == (layout.secrets / "ray-token").read_text(), "the same ever after"


def test_the_profile_leads_there(layout: Layout) -> None:
    kept = settled()
    home = Home(layout.root.parent)
    with pytest.raises(Exception, match="no profile 'here'; known: local; `platform up` makes it"):
        load_profile("here", home)
    for part in parts(layout, kept, SHARES)[1:]:
        part.prepare()
    write_profiles(layout, kept)
    profile = load_profile("here", home)
    assert (profile.target, profile.name) == ("ray", "here")
    assert profile.jobs == f"http://127.0.0.1:{kept.ports['ray-head']['dashboard']}"
    assert profile.environment()["RAY_AUTH_TOKEN"] == layout.secret("ray-token")
    config = Path(os.environ["XDG_CONFIG_HOME"]) / "tunery" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('default = "here"\n')
    assert load_profile(None, home) == profile
    config.write_text('[profiles.here]\ntarget = "local"\n')
    with pytest.raises(Exception, match=r"config.toml:1: `platform up` has made another profile 'here'"):
        load_profile("here", home)


def test_the_clusters_own_profile_finds_its_password_in_a_file(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = settled()
    for part in parts(layout, kept, SHARES)[1:]:
        part.prepare()
    write_profiles(layout, kept)
    monkeypatch.setenv("TUNERY_CONFIG", str(layout.config))
    profile = load_profile(None, layout.home)
    assert profile.study_storage_url == f"postgresql://optuna@127.0.0.1:{kept.ports['postgres']['postgres']}/optuna"
    head = next(part for part in parts(layout, kept, SHARES) if part.name == ray.HEAD).launch().environment
    assert head["PGPASSFILE"] == str(postgres.password_file(layout))
    assert (head["TUNERY_HOME"], head["TUNERY_CONFIG"]) == (str(layout.home.root), str(layout.config))


def test_what_would_lead_a_server_elsewhere_is_not_inherited(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "MLFLOW_TRACKING_URI", "PGHOST", "TUNERY_SERVE_TOKEN"):
        monkeypatch.setenv(name, "elsewhere")
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.9")
    for part in parts(layout, settled(), SHARES):
        environment = part.launch().environment
        assert "elsewhere" not in environment.values()
        assert "HOME" in environment or part.name == "postgres", "of Postgres's user nothing is the caller's"
    assert environment["RAY_memory_usage_threshold"] == "0.9"


# -- ports -----------------------------------------------------------------------------------------------------------


def test_ports_are_all_different_and_stay(layout: Layout) -> None:
    kept = settled()
    every = [port for each in kept.ports.values() for port in each.values()]
    assert len(every) == len(set(every)) == sum(len(names) for names in port_names(kept).values())
    assert all(ports.LOWEST <= port <= ports.HIGHEST for port in every)
    save(layout, kept)
    again = load(layout)
    assert again is not None
    assert with_ports(again, Random(8), print, running=False).ports == kept.ports


def test_a_port_that_was_taken_is_replaced_while_nothing_runs_and_told() -> None:
    kept, told = settled(), list[str]()
    port = kept.ports["mlflow"]["mlflow"]
    with socket.create_server(("127.0.0.1", port)):
        other = with_ports(kept, Random(8), told.append, running=False)
        assert with_ports(kept, Random(8), told.append, running=True) == kept, "what runs knows the ports there are"
    assert other.ports["mlflow"]["mlflow"] != port
    assert {name: each for name, each in other.ports.items() if name != "mlflow"} == {
        name: each for name, each in kept.ports.items() if name != "mlflow"
    }
    assert told == [f"port {port}, which was mlflow's, is taken by another process: mlflow gets another"]


def test_a_port_that_was_taken_from_a_part_that_died_is_an_error(layout: Layout) -> None:
    kept = settled()
    mlflow = parts(layout, kept, SHARES)[1]
    check_ports(mlflow, kept)
    port = kept.ports["mlflow"]["mlflow"]
    with socket.create_server(("0.0.0.0", port)), pytest.raises(ConflictError, match=f"listens on port {port}"):
        check_ports(mlflow, kept)


def test_a_machine_without_a_free_port_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda _: False)
    with pytest.raises(UnreachableError, match="no port between 20000 and 31999 of this machine is free for gcs"):
        ports.choose(["gcs"], [], Random(1))


# -- size ------------------------------------------------------------------------------------------------------------


def test_cpus_and_memory_are_dealt_out() -> None:
    head, *others = shares(3, cpus=8, memory=30 * GIB, shared=90 * GIB)
    assert [each.cpus for each in (head, *others)] == [3, 3, 2]
    assert sum(each.memory for each in (head, *others)) == pytest.approx(21 * GIB)
    assert sum(each.object_store for each in (head, *others)) == pytest.approx(9 * GIB)
    assert shares(1, cpus=1, memory=30 * GIB, shared=GIB)[0].object_store < GIB, "what is shared is the bound"
    with pytest.raises(InputError, match="2 CPUs cannot be dealt to 3 nodes, the head among them: at most --workers 1"):
        shares(3, cpus=2, memory=GIB, shared=GIB)


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 4096 kB\n")
    assert available_memory(tmp_path, tmp_path) == 4096 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("2000\n")
    assert available_memory(tmp_path, tmp_path) == 4096 * 1024
    (tmp_path / "memory.max").write_text("3000\n")
    assert available_memory(tmp_path, tmp_path) == 1000
    assert available_memory(tmp_path / "none", tmp_path) is None


def test_another_size_is_refused_while_it_is_up() -> None:
    kept = settled()
    assert sized(kept, None, None) == kept
    other = sized(kept, 0, None)
    assert other is not None
    assert other.workers == 0
    up = kept.with_process("mlflow", remember(os.getpid()))
    assert sized(up, 1, 2) == up
    with pytest.raises(ConflictError, match="is up with 1 further nodes and 2 CPUs, and not 0 and 2: `platform down`"):
        sized(up, 0, None)


# -- what is remembered ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["{", "", '{"cpus": 2}', '{"database": "oracle", "cpus": 2}', "\udcff"])
def test_a_damaged_memory_stops_everything_and_says_what_to_do(layout: Layout, text: str) -> None:
    layout.kept.write_bytes(text.encode(errors="surrogateescape"))
    home = Home(layout.root.parent)
    for command in (lambda: up(home, print, workers=1, cpus=2, random=Random(1)), lambda: down(home, print)):
        with pytest.raises(ConflictError, match="cannot be read") as caught:
            command()
        assert str(layout.kept) in str(caught.value)
        assert "move the file away" in str(caught.value)
    assert layout.kept.read_bytes() == text.encode(errors="surrogateescape"), "it is evidence"
    assert not (layout.root / "logs").exists() or not list((layout.root / "logs").iterdir())


def test_what_another_version_has_added_is_passed_over(layout: Layout) -> None:
    layout.kept.write_text('{"database": "sqlite", "cpus": 2, "colour": "green"}')
    found = load(layout)
    assert found is not None
    assert found.cpus == 2


def test_two_commands_at_once_are_one_and_an_error(layout: Layout) -> None:
    with (
        alone(layout),
        pytest.raises(ConflictError, match=rf"is at work on .* \(process {os.getpid()}\)"),
        alone(layout),
    ):
        pytest.fail("both are at work")


def test_where_there_was_never_a_cluster_there_is_none_to_end(tmp_path: Path) -> None:
    home = Home(tmp_path / "none")
    assert down(home, print) == ()
    assert look(home) == ()
    assert not home.root.exists()


def test_rays_folder_has_a_short_name_that_leads_below_the_home(layout: Layout) -> None:
    short, link = ray.short_folder(layout, "")
    try:
        assert len(str(link)) < 30
        assert link.resolve() == layout.root / "ray"
        assert ray.short_folder(layout, short) == (short, link), "the same while it leads there"
        link.unlink()
        link.symlink_to("/")
        other, _ = ray.short_folder(layout, short)
        assert other != short
        ray.remove_short_folder(other)
        assert not Path(other).exists()
        assert (layout.root / "ray").is_dir()
    finally:
        ray.remove_short_folder(short)
