"""A server asked over HTTP, with patience: a connection that is lost is tried again for about a minute."""

from __future__ import annotations

import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import httpx

from tunery.client._trust import Trust
from tunery.errors import ProfileError, UnreachableError
from tunery.patience import FIRST_WAITS_S, WAITS_S

TIMEOUT = httpx.Timeout(60.0, connect=5.0)

_AWAY = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT,
                   HTTPStatus.TOO_MANY_REQUESTS})  # fmt: skip
_REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


class Server:
    """One server. Every request that is sent through it may be sent twice: callers see to it that this does no harm."""

    def __init__(
        self,
        name: str,
        url: str,
        *,
        rights: str,
        trust: Trust,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
    ) -> None:
        """`name` and `rights` are for messages: what it is, and which secret of which profile lets one in."""
        self.url = url.rstrip("/")
        self._told = f"{name} at {self.url}"
        self._rights = rights
        self._trust = trust
        self._client = httpx.Client(
            base_url=self.url, headers=dict(headers or {}), auth=auth, verify=trust.tls, timeout=TIMEOUT
        )
        self._met = False

    def ask(
        self, method: str, path: str, *, params: Mapping[str, str] | None = None, json: object = None
    ) -> httpx.Response:
        """The answer, whatever its status is but for those below.

        ProfileError where the server lets nobody in with these secrets (401, 403). UnreachableError where no server
        answers within the patience above, or its certificate is not trusted.
        """
        waits = iter(WAITS_S if self._met else FIRST_WAITS_S)
        while True:
            try:
                answer = self._client.request(method, path, params=dict(params or {}), json=json)
            except (httpx.TransportError, httpx.InvalidURL) as error:
                problem: Exception | str = error
                if refusal := self._trust.refusal(self._told, error):
                    raise refusal from error
            else:
                self._met = True
                if answer.status_code in _REFUSED:
                    said = answer.text.strip()[:200]
                    raise ProfileError(
                        f"{self._told} refuses the request (HTTP {answer.status_code}: {said}): {self._rights}"
                    )
                failed = method == "GET" and answer.status_code == HTTPStatus.INTERNAL_SERVER_ERROR
                if answer.status_code not in _AWAY and not failed:
                    return answer
                problem = f"HTTP {answer.status_code}"
            wait_s = next(waits, None)
            if wait_s is None:
                raise UnreachableError(
                    f"{self._told} does not answer: {problem}; a run that is under way goes on without it"
                ) from (problem if isinstance(problem, Exception) else None)
            time.sleep(wait_s)

    def ask_json(
        self, method: str, path: str, doing: str, *, params: Mapping[str, str] | None = None, json: object = None
    ) -> dict[str, Any] | None:
        """The answer's JSON object; None where there is no such thing (404). `doing` is for the message of an error.

        Raises what `ask` does, and UnreachableError for any other answer.
        """
        answer = self.ask(method, path, params=params, json=json)
        if answer.status_code == HTTPStatus.NOT_FOUND:
            return None
        if answer.status_code != HTTPStatus.OK:
            raise self.fail(answer, doing)
        try:
            found = answer.json()
        except ValueError:
            raise self.fail(answer, doing) from None
        if not isinstance(found, dict):
            raise self.fail(answer, doing)
        return found

    def fail(self, answer: httpx.Response, doing: str) -> UnreachableError:
        """The error for an answer that nobody has asked for."""
        said = answer.text.strip().splitlines()[-1][:500] if answer.text.strip() else "nothing more"
        return UnreachableError(f"{self._told} cannot {doing}: HTTP {answer.status_code}, {said}")
