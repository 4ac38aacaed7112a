"""The Hugging Face hub, or the mirror that HF_ENDPOINT names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx2  # the hub client's own, for the errors that it lets through
import huggingface_hub as hub
from huggingface_hub import errors

from storage.errors import FetchError, HubUnreachableError, NotOnHubError
from storage.fetching.repository import Remote
from storage.fetching.wanted import Wanted, hub_cache


class HuggingFace:
    """See `repository.Hub`."""

    def __init__(self) -> None:
        self._endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
        self._api = hub.HfApi(endpoint=self._endpoint)

    def commit(self, wanted: Wanted) -> str:
        with self._explained(wanted):
            info = self._api.repo_info(wanted.id, repo_type=_type(wanted), revision=wanted.revision)
        if not info.sha:
            raise FetchError(f"{self._endpoint} does not say which commit {wanted.name} is: it is no hub")
        return str(info.sha)

    def files(self, wanted: Wanted, commit: str) -> Mapping[str, Remote]:
        with self._explained(wanted):
            tree = list(self._api.list_repo_tree(wanted.id, recursive=True, revision=commit, repo_type=_type(wanted)))
        files = [entry for entry in tree if isinstance(entry, hub.RepoFile)]
        return {
            file.path: Remote(file.lfs.size, f"sha256:{file.lfs.sha256}")
            if file.lfs is not None
            else Remote(file.size, f"git:{file.blob_id}")
            for file in files
        }

    def url(self, wanted: Wanted, commit: str, path: str) -> str:
        return hub.hf_hub_url(wanted.id, path, repo_type=_type(wanted), revision=commit, endpoint=self._endpoint)

    def headers(self) -> Mapping[str, str]:
        token = hub.get_token()
        return {"Authorization": f"Bearer {token}"} if token else {}

    def explain(self, wanted: Wanted, status: int, code: str) -> FetchError:
        if code == "GatedRepo" or (status == 403 and code != "EntryNotFound"):
            return FetchError(
                f"{wanted.name} is gated: accept its conditions at {self._page(wanted)}, then set the environment "
                f"variable HF_TOKEN to a token that may read it{_token_is_set()}"
            )
        if status == 401 or code == "RepoNotFound":
            return NotOnHubError(
                f"{wanted.name} is not on {self._endpoint}, or private: check its name, or set the environment "
                f"variable HF_TOKEN to a token that may read it{_token_is_set()}"
            )
        if status == 404:
            return NotOnHubError(f"{wanted.name}: {self._endpoint} has no such revision or file")
        return HubUnreachableError(f"{self._endpoint} answers for {wanted.name} with HTTP {status}: try again later")

    def place(self, wanted: Wanted, commit: str, path: str, remote: Remote) -> Path:  # noqa: ARG002  (the hub's word)
        return wanted.store / "blobs" / remote.hash.partition(":")[2]

    def link(self, wanted: Wanted, commit: str, path: str) -> None:
        with self._explained(wanted):
            hub.hf_hub_download(
                wanted.id,
                path,
                repo_type=_type(wanted),
                revision=commit,
                endpoint=self._endpoint,
                cache_dir=hub_cache(),
            )

    def _page(self, wanted: Wanted) -> str:
        return f"{self._endpoint}/{'datasets/' if wanted.kind == 'data' else ''}{wanted.id}"

    @contextmanager
    def _explained(self, wanted: Wanted) -> Iterator[None]:
        try:
            yield
        except errors.RevisionNotFoundError as error:
            raise NotOnHubError(
                f"{wanted.id} on {self._endpoint} has no revision {wanted.revision!r}: expected a commit, a tag or a "
                f"branch of it, see {self._page(wanted)}/tree/main"
            ) from error
        except errors.GatedRepoError as error:
            raise self.explain(wanted, 403, "GatedRepo") from error
        except errors.RepositoryNotFoundError as error:
            raise self.explain(wanted, 404, "RepoNotFound") from error
        except errors.HfHubHTTPError as error:
            raise self.explain(
                wanted, error.response.status_code, error.response.headers.get("X-Error-Code", "")
            ) from error
        except errors.HFValidationError as error:
            raise NotOnHubError(f"{wanted.id!r} cannot be the name of a repository: {error}") from error
        except (httpx2.HTTPError, ConnectionError, errors.LocalEntryNotFoundError) as error:
            raise HubUnreachableError(
                f"{self._endpoint} does not answer ({type(error).__name__}: {_first_line(error)}), so {wanted.name} "
                f"cannot be fetched: check the network, or set HF_ENDPOINT to a mirror"
            ) from error


def _type(wanted: Wanted) -> str:
    return "model" if wanted.kind == "model" else "dataset"


def _token_is_set() -> str:
    return " (the one that is set does not do)" if hub.get_token() else ""


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")
