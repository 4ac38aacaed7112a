"""The API server, asked through the official client, with patience: what can pass is tried again, within bounds.

A run that is under way does not need its client, so nothing that goes wrong here stops one.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from time import sleep
from typing import Any, TypeVar
from urllib.parse import urlencode

import urllib3
import yaml
from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException

from tunery.errors import InputError, ProfileError, UnreachableError
from tunery.k8s.access import kubeconfig, where
from tunery.kube import Kubernetes
from tunery.patience import FIRST_WAITS_S, WAITS_S

Object = dict[str, Any]
Event = tuple[str, Object]
"""ADDED, MODIFIED, DELETED or BOOKMARK, and the object as it then was."""

MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
TIMEOUT_S = (5.0, 60.0)
"""To connect, and to wait for an answer."""
LONGEST_WAIT_S = 60.0
"""Of a server that says itself when to come again."""

_NO_SUCH_FIELD = "failed to create typed patch object"
"""How an applied object with a field that its schema does not have is refused, with HTTP 500."""

_Found = TypeVar("_Found")


class RefusedError(Exception):
    """An answer for whoever has asked to judge: 404, 409, 410 and 422."""

    def __init__(self, status: int, said: Object) -> None:
        self.status = status
        self.said = said
        """The API server's `Status`."""
        super().__init__(str(said.get("message") or f"HTTP {status}"))

    @property
    def reason(self) -> str:
        """One word, such as AlreadyExists."""
        return str(self.said.get("reason") or "")


class ApiServer:
    """One API server, as one user. Every request may be sent twice: callers see to it that this does no harm."""

    def __init__(self, settings: Kubernetes, *, profile: str) -> None:
        """ProfileError where the kubeconfig cannot be read, or there is none."""
        self._where = where(settings)
        self._profile = profile
        self._client = _client(settings, profile)
        self._custom = client.CustomObjectsApi(self._client)
        self._met = False

    @property
    def url(self) -> str:
        return str(self._client.configuration.host)

    def find(self, path: str) -> Object | None:
        """None where there is no such thing."""
        try:
            return self.ask("GET", path)
        except RefusedError as refused:
            if refused.status == http.client.NOT_FOUND:
                return None
            raise self.unexpected(refused, f"look up {path}") from refused

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """The answer's object.

        Raises `RefusedError`; ProfileError where the server does not know who asks, or who asks may not (401, 403);
        InputError where the request is none it can read (400); UnreachableError where no server answers.
        """
        address = f"{path}?{urlencode(query)}" if query else path

        def once() -> Object:
            headers = {"Accept": "application/json", "Content-Type": content_type}
            self._client.update_params_for_auth(headers, [], ["BearerToken"])
            answer = self._client.rest_client.request(
                method, f"{self.url}{address}", headers=headers, body=body, _request_timeout=TIMEOUT_S
            )
            try:
                found = json.loads(answer.data)
            except ValueError:
                found = None
            if not isinstance(found, dict):
                raise UnreachableError(
                    f"what answers at {self.url} ({self._where}) is no API server: "
                    f"{method} {path} gave {answer.data[:100]!r}"
                )
            return found

        return self._patiently(once)

    def follow(
        self, group: str, version: str, namespace: str, plural: str, *, since: str, **options: Any
    ) -> Iterator[Event]:
        """What has happened to objects since a resource version, until the server ends the watch.

        A watch that drops is taken up where it was. `RefusedError` (410) where that version is no longer known.
        """
        waits = iter(WAITS_S)
        while True:
            watching = watch.Watch()
            try:
                for event in watching.stream(
                    self._custom.list_namespaced_custom_object,
                    group,
                    version,
                    namespace,
                    plural,
                    resource_version=since,
                    allow_watch_bookmarks=True,
                    _request_timeout=TIMEOUT_S,
                    **options,
                ):
                    if event is None:  # half a line: the connection was lost in it
                        break
                    since = event["raw_object"]["metadata"]["resourceVersion"]
                    yield event["type"], event["raw_object"]
                else:
                    return
                problem: Exception = ConnectionError("the watch has ended in the middle of a line")
            except ApiException as error:
                problem = self._judged(error)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                problem = error
            self._wait(waits, problem)

    def _patiently(self, once: Callable[[], _Found]) -> _Found:
        waits = iter(WAITS_S if self._met else FIRST_WAITS_S)
        while True:
            try:
                found = once()
            except ApiException as error:
                problem: Exception = self._judged(error)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                problem = error
            else:
                self._met = True
                return found
            self._wait(waits, problem)

    def _wait(self, waits: Iterator[float], problem: Exception) -> None:
        """UnreachableError where it has been waited for long enough."""
        wait_s = next(waits, None)
        if wait_s is None:
            raise UnreachableError(
                f"the API server at {self.url} ({self._where}) does not answer: {_told(problem)}; "
                "a run that is under way goes on without it"
            ) from problem
        after = problem.headers.get("Retry-After", "") if isinstance(problem, ApiException) and problem.headers else ""
        sleep(min(float(after), LONGEST_WAIT_S) if after.isdecimal() else wait_s)

    def _judged(self, error: ApiException) -> ApiException:
        """The error, if it is one that can pass."""
        status = int(error.status or 0)
        if status == 0:  # what the official client makes of a certificate
            raise UnreachableError(
                f"the API server at {self.url} has a certificate that is not trusted here: {_told(error)}; "
                f"certificate-authority in {self._where} names the one that vouches for it"
            ) from error
        self._met = True
        said = _status(error)
        message = str(said.get("message") or error.reason or "nothing more")
        match status:
            case 401:
                raise ProfileError(
                    f"the API server at {self.url} does not know who asks (HTTP 401: {message}): log in again, or name "
                    f"another context or kubeconfig under [profiles.{self._profile}.kubernetes]; it was {self._where}"
                ) from error
            case 403:
                raise ProfileError(
                    f"the API server at {self.url} does not allow it (HTTP 403: {message}): ask who runs the "
                    "cluster to bind you to the Role tunery-submitter of deploy/k8s, or to more if you deploy; "
                    "`platform k8s doctor` lists what is missing"
                ) from error
            case 404 | 409 | 410 | 422:
                raise RefusedError(status, said) from error
            case 429 | 500 | 502 | 503 | 504 if not message.startswith(_NO_SUCH_FIELD):
                return error
            case _:
                raise InputError(
                    f"the API server at {self.url} cannot take the request (HTTP {status}: {message}); its version and "
                    "that of KubeRay's definitions are told by `platform k8s doctor`"
                ) from error

    def unexpected(self, refused: RefusedError, doing: str) -> Exception:
        """The error for an answer that nobody has asked for."""
        return UnreachableError(f"the API server at {self.url} cannot {doing}: HTTP {refused.status}, {refused}")


def _client(settings: Kubernetes, profile: str) -> Any:
    """The official client, connected to nothing yet."""
    chosen = client.Configuration()
    file = kubeconfig(settings)
    try:
        if file is None:
            config.load_incluster_config(client_configuration=chosen)
        else:
            config.load_kube_config(
                config_file=file, context=settings.context, client_configuration=chosen, persist_config=False
            )
    except (ConfigException, OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise ProfileError(
            f"profile {profile!r} cannot be used for Kubernetes: {where(settings)}: {error}; "
            f"kubeconfig and context under [profiles.{profile}.kubernetes] name others"
        ) from error
    # One place that tries again, and that is above.
    chosen.retries = False
    return client.ApiClient(chosen)


def _status(error: ApiException) -> Object:
    body = error.body or b""
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
    try:
        found = json.loads(text or "{}")
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"message": text.strip()[:300]}


def _told(problem: Exception) -> str:
    if isinstance(problem, ApiException):
        said = _status(problem).get("message") or problem.reason
        return f"HTTP {problem.status}, {said}" if problem.status else str(said).replace("\n", ": ")
    return str(problem)
