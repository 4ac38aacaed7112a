"""Whether the tracking server answers: asked before anything is started, so that a wrong address costs seconds."""

from __future__ import annotations

import httpx

from tunery.client._trust import Trust
from tunery.errors import UnreachableError

TIMEOUT_S = 5.0


def is_server(tracking_uri: str) -> bool:
    """Whether it is a server that must be up, rather than a database that needs none."""
    return tracking_uri.startswith(("http://", "https://"))


def check_server(tracking_uri: str, trust: Trust) -> None:
    """UnreachableError, with the address, where no HTTP server that is believed answers within a few seconds."""
    try:
        url = f"{tracking_uri.rstrip('/')}/health"
        status = httpx.get(url, timeout=TIMEOUT_S, follow_redirects=True, verify=trust.tls).status_code
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        told = f"MLflow at {tracking_uri}"
        raise trust.refusal(told, error) or UnreachableError(f"{told} does not answer: {error}") from error
    # Whoever must log in first (401, 403) has found the server all the same.
    if status >= 500 or status == 404:
        raise UnreachableError(f"what answers at {tracking_uri} is no MLflow that works: /health gave HTTP {status}")
