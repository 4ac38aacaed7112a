"""ModelScope, by the two routes of its HTTP interface that a download needs.

Not by its own clients: they know no commits, keep every revision of a branch in one folder, and read pickled cookies.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx

from storage.errors import FetchError, HubUnreachableError, NotOnHubError
from storage.fetching import transfer
from storage.fetching.repository import Remote
from storage.fetching.wanted import Wanted

_BRANCH = "master"


class ModelScope:
    """See `repository.Hub`."""

    def __init__(self) -> None:
        given = os.environ.get("MODELSCOPE_ENDPOINT") or "https://modelscope.cn"
        self._endpoint = (given if "://" in given else f"https://{given}").rstrip("/")

    def commit(self, wanted: Wanted) -> str:
        """The last commit that a file is from: the interface has no better word for where a branch is.

        What it is asked for at that commit are these files.
        """
        files = self._listing(wanted, wanted.revision or _BRANCH)
        dated = [(int(file.get("CommittedDate") or 0), str(file.get("Revision") or "")) for file in files]
        commit = max(dated, default=(0, ""))[1]
        if not commit:
            raise FetchError(f"{self._endpoint} does not say which commit {wanted.name} is")
        return commit

    def files(self, wanted: Wanted, commit: str) -> Mapping[str, Remote]:
        return {
            str(file["Path"]): Remote(int(file["Size"]), f"sha256:{str(file['Sha256']).lower()}")
            for file in self._listing(wanted, commit)
            if file.get("Type") != "tree" and file.get("Sha256")
        }

    def url(self, wanted: Wanted, commit: str, path: str) -> str:
        return f"{self._repository(wanted)}/repo?{urlencode({'Revision': commit, 'FilePath': path})}"

    def headers(self) -> Mapping[str, str]:
        token = os.environ.get("MODELSCOPE_API_TOKEN")
        # Newer routes take the one, older ones the other.
        return {"Authorization": f"Bearer {token}", "Cookie": f"m_session_id={token}"} if token else {}

    def explain(self, wanted: Wanted, status: int, code: str) -> FetchError:
        if status in (401, 403):
            return FetchError(
                f"{wanted.name} may not be read: accept its conditions at {self._endpoint}/models/{wanted.id}, or set "
                f"the environment variable MODELSCOPE_API_TOKEN to a token that may read it"
            )
        if status == 404:
            return NotOnHubError(
                f"{wanted.name} is not on {self._endpoint}{f' ({code})' if code else ''}: check its name and revision; "
                f"of a private one, set the environment variable MODELSCOPE_API_TOKEN"
            )
        return HubUnreachableError(
            f"{self._endpoint} answers for {wanted.name} with HTTP {status}{f' ({code})' if code else ''}: "
            f"try again later"
        )

    def place(self, wanted: Wanted, commit: str, path: str, remote: Remote) -> Path:  # noqa: ARG002  (the hub's word)
        return wanted.store / "snapshots" / commit / path

    def link(self, wanted: Wanted, commit: str, path: str) -> None:
        """It is there already."""

    def _listing(self, wanted: Wanted, revision: str) -> list[dict[str, Any]]:
        query = urlencode({"Revision": revision, "Recursive": "True"})
        try:
            with transfer.client(self.headers()) as session:
                answer = session.get(f"{self._repository(wanted)}/repo/files?{query}")
            body = answer.json() if "json" in answer.headers.get("Content-Type", "") else {}
        except httpx.TransportError as error:
            raise HubUnreachableError(
                f"{self._endpoint} does not answer ({type(error).__name__}: {error}), so {wanted.name} cannot be "
                f"fetched: check the network, or set MODELSCOPE_ENDPOINT"
            ) from error
        except ValueError as error:
            raise FetchError(f"{self._endpoint} is no ModelScope: its answer is not JSON ({error})") from error
        told = str(body.get("Message") or "") if isinstance(body, dict) else ""
        if answer.is_error:
            raise self.explain(wanted, answer.status_code, told)
        try:
            files: list[dict[str, Any]] = body["Data"]["Files"]
        except (KeyError, TypeError) as error:
            raise FetchError(
                f"{self._endpoint} lists no files of {wanted.name}: {told or 'the answer has none'}"
            ) from error
        return files

    def _repository(self, wanted: Wanted) -> str:
        return f"{self._endpoint}/api/v1/models/{quote(wanted.id)}"
