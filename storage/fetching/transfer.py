"""One file over HTTP into one on disk: goes on where it was, and is whole and right or not there."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from storage.errors import ChecksumError, FetchError, HubUnreachableError
from storage.fetching.kept import digest_of

ATTEMPTS = 5
"""Requests in a row that may bring nothing, before a file is given up."""
LONGEST_WAIT_S = 8.0
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
_PASSING = frozenset({408, 429, 500, 502, 503, 504})

OnBytes = Callable[[int], None]
"""Called with each number of bytes that are there, or came; negative where bytes are thrown away again."""


@dataclass
class _Count:
    """Of the bytes that came."""

    on_bytes: OnBytes
    came: int = 0

    def __call__(self, count: int) -> None:
        self.came += count
        self.on_bytes(count)


def client(headers: Mapping[str, str]) -> httpx.Client:
    """Where a redirect leads to another host, httpx sends it no token."""
    # Identity: with a compressed body, a byte range would be one of other bytes.
    return httpx.Client(headers={**headers, "Accept-Encoding": "identity"}, timeout=_TIMEOUT, follow_redirects=True)


def download(
    session: httpx.Client,
    url: str,
    to: Path,
    *,
    size: int,
    digest: str,
    on_bytes: OnBytes,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Bring `to`, whose bytes so far lie beside it, also from an earlier try, as `<name>.part`; how many bytes came.

    Raises httpx.HTTPStatusError for an answer that is no file, HubUnreachableError where none comes, ChecksumError
    for content that is not `digest`'s, FetchError where the disk does not take it.
    """
    part, count = to.with_name(f"{to.name}.part"), _Count(on_bytes)
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            _complete(session, url, part, size, count, sleep)
            got = digest_of(part, digest.partition(":")[0])
            if got == digest:
                part.replace(to)
                return count.came
            # Its beginning may be of an earlier try, and wrong: once more from the start.
            on_bytes(-part.stat().st_size)
            part.unlink()
        raise ChecksumError(f"{url} is not what the hub says it is: its hash is {got}, not {digest}")
    except OSError as error:
        raise FetchError(_why_not_written(error, to, size)) from error


def _complete(
    session: httpx.Client, url: str, part: Path, size: int, count: _Count, sleep: Callable[[float], None]
) -> None:
    have = part.stat().st_size if part.exists() else 0
    if have > size:
        part.unlink()
        have = 0
    count.on_bytes(have)
    failures, wait = 0, 0.5
    while have < size or not part.exists():
        before, problem = have, ""
        try:
            have = _more(session, url, part, have, size, count)
        except httpx.TransportError as error:
            problem = f"{type(error).__name__}: {error}"
        except httpx.HTTPStatusError as error:
            if error.response.status_code not in _PASSING:
                raise
            problem = f"HTTP {error.response.status_code}"
        have = part.stat().st_size if part.exists() else 0
        if have > before:
            failures, wait = 0, 0.5
            continue
        failures += 1
        if failures >= ATTEMPTS:
            raise HubUnreachableError(
                f"{url} gives nothing more after {have:,} of {size:,} bytes ({problem or 'an empty answer'}); what "
                f"came is kept: the same command goes on from there"
            )
        sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT_S)


def _more(session: httpx.Client, url: str, part: Path, have: int, size: int, count: _Count) -> int:
    """What one request brings; how much there is then."""
    headers = {"Range": f"bytes={have}-"} if have else {}
    with session.stream("GET", url, headers=headers) as answer:
        answer.raise_for_status()
        if have and answer.status_code != httpx.codes.PARTIAL_CONTENT:
            count.on_bytes(-have)
            have = 0
        with part.open("ab" if have else "wb") as file:
            # As they come: what waits for a whole block is lost when the connection breaks.
            for block in answer.iter_raw():
                # Never more than is wanted: a page of an error served as a file must not fill the disk.
                block = block[: size - have]
                file.write(block)
                have += len(block)
                count(len(block))
                if have >= size:
                    break
    return have


def _why_not_written(error: OSError, to: Path, size: int) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk of {to.parent} is full ({size:,} bytes for {to.name}): free some space, or set HF_HOME "
            f"(MODELSCOPE_CACHE) to a folder on another disk; then the same command goes on from here"
        )
    return f"cannot write {to}: {error.strerror or error}"
