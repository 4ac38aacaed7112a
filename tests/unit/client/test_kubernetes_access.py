"""Which API server is meant, and as whom: a pod's own account, over TLS."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from kubernetes.config import incluster_config

from tests.certificates import certificate
from tests.stand_ins import kubernetes_http
from tests.stand_ins.kubernetes import ApiServer
from tests.unit.client.fakes import SPEC
from tests.unit.client.on_kubernetes import PLAN, RUN, Place
from tunery.cli.app import run

Capture = pytest.CaptureFixture[str]


@dataclass
class Pod:
    """What a container of the cluster finds."""

    server: ApiServer
    token: Path
    ca: Path
    spec: Path


@pytest.fixture
def pod(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pod]:
    made = certificate(tmp_path)
    account = tmp_path / "serviceaccount"
    account.mkdir()
    found = Pod(ApiServer(), account / "token", account / "ca.crt", tmp_path / "small.yaml")
    found.token.write_text(found.server.token)
    found.ca.write_bytes(made.ca.read_bytes())
    found.spec.write_text(SPEC)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(found.token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(found.ca))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "config.toml").write_text(
        f'default = "team"\n[profiles.team]\ntarget = "kubernetes"\ntracking_uri = "{place.tracking.url}"\n'
    )
    with kubernetes_http.serving(found.server, made.server) as server:
        server.add("Namespace", "tunery")
        host, _, port = server.url.removeprefix("https://").rpartition(":")
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
        yield found


def test_a_pods_own_account_is_used_where_there_is_no_kubeconfig(pod: Pod, place: Place, capsys: Capture) -> None:
    assert run(["submit", str(pod.spec), "--dry-run"]) == 0
    assert "(the service account of this pod)" in capsys.readouterr().err
    assert run(["submit", str(pod.spec), "--detach"]) == 0
    assert len(pod.server.jobs()) == 1
    assert place.server.asked == [], "the one of the kubeconfig that is not named"


def test_a_context_is_looked_for_in_a_kubeconfig_in_a_pod_too(pod: Pod, tmp_path: Path, capsys: Capture) -> None:
    with (tmp_path / "config.toml").open("a") as file:
        file.write('[profiles.team.kubernetes]\ncontext = "production"\n')
    assert run(["submit", str(pod.spec), "--detach"]) == 2
    told = capsys.readouterr().err
    assert "context 'production' of" in told
    assert "[profiles.team.kubernetes]" in told
    assert pod.server.jobs() == {}


def test_a_token_that_was_replaced_is_read_anew(pod: Pod, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    client = place.configured()
    client.send(PLAN)
    pod.server.token = "the-next-token"
    pod.token.write_text(pod.server.token)

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Later:
            return super().now(tz) + datetime.timedelta(minutes=2)

    monkeypatch.setattr(incluster_config, "datetime", SimpleNamespace(datetime=Later, timedelta=datetime.timedelta))
    assert client.state(RUN).status == "starting"


def test_a_kubeconfig_goes_before_a_pods_account(pod: Pod, place: Place, tmp_path: Path) -> None:
    (tmp_path / ".kube").mkdir()
    kubernetes_http.kubeconfig(place.server, tmp_path / ".kube" / "config")
    assert run(["submit", str(pod.spec), "--detach"]) == 0
    assert len(place.server.jobs()) == 1
    assert pod.server.asked == []


@pytest.mark.parametrize(
    ("lacks", "code", "said"),
    [
        ("token", 2, "the service account of this pod: Service token file does not exist"),
        ("ca", 2, "the service account of this pod: Service certification file does not exist"),
        ("the right token", 2, "does not know who asks (HTTP 401: Unauthorized)"),
        ("the right ca", 6, "has a certificate that is not trusted here"),
        ("pod", 2, "the current context of"),
    ],
)
def test_what_is_lacking_is_told(
    lacks: str, code: int, said: str, pod: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    match lacks:
        case "token":
            pod.token.unlink()
        case "ca":
            pod.ca.unlink()
        case "the right token":
            pod.token.write_text("another")
        case "the right ca":
            (tmp_path / "other").mkdir()
            pod.ca.write_bytes(certificate(tmp_path / "other").ca.read_bytes())
        case "pod":
            monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    assert run(["submit", str(pod.spec), "--detach"]) == code
    error = " ".join(capsys.readouterr().err.split())
    assert said in error
    if code == 2:
        assert "under [profiles.team.kubernetes]" in error
    assert pod.server.jobs() == {}
