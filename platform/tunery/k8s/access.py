"""Which API server, and as whom. Looks at files and contacts nothing; the official client is loaded to connect."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tunery.errors import MissingExtraError
from tunery.kube import Kubernetes

if TYPE_CHECKING:
    from tunery.k8s.api import ApiServer


def connect(settings: Kubernetes, *, profile: str) -> ApiServer:
    """The profile's API server; MissingExtraError where the official client is not installed."""
    try:
        from tunery.k8s.api import ApiServer
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"this needs the part 'kubernetes' of tunery, which is not installed here (no {error.name}); "
            "install it with: pip install 'tunery[kubernetes]'"
        ) from error
    return ApiServer(settings, profile=profile)


def where(settings: Kubernetes) -> str:
    """Which access is used, for messages; contacts nothing."""
    if (file := kubeconfig(settings)) is None:
        return "the service account of this pod"
    return f"{f'context {settings.context!r}' if settings.context else 'the current context'} of {file}"


def kubeconfig(settings: Kubernetes) -> str | None:
    """None: that of the pod this runs in, which knows no contexts."""
    if settings.kubeconfig is not None:
        return str(Path(settings.kubeconfig).expanduser())
    if named := os.environ.get("KUBECONFIG"):
        return named
    usual = Path.home() / ".kube" / "config"
    in_a_pod = "KUBERNETES_SERVICE_HOST" in os.environ and settings.context is None
    return None if in_a_pod and not usual.exists() else str(usual)
