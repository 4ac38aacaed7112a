"""How a bucket is reached: what the settings make of a request, and what is said of a certificate."""

from __future__ import annotations

import re
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from storage.errors import StoreRefusedError
from storage.stores import Address, check, open_store
from storage.stores.s3 import S3Store
from tests.certificates import certificate
from tests.object_store import BUCKET, ObjectStore
from tests.stand_ins.listening import listening

pytestmark = pytest.mark.usefixtures("s3_key")


@pytest.mark.parametrize(
    ("settings", "host", "path", "region"),
    [
        ({}, "localhost", "/bucket", "us-east-1"),
        ({"path_style": True, "region": "eu-1"}, "localhost", "/bucket", "eu-1"),
        ({"path_style": False, "region": "eu-1"}, "bucket.localhost", "/", "eu-1"),
    ],
)
def test_where_the_bucket_stands_and_which_region_is_signed(
    settings: dict[str, str | bool], host: str, path: str, region: str
) -> None:
    seen: list[tuple[str, str, str]] = []

    class Empty(BaseHTTPRequestHandler):
        """A bucket in which nothing is."""

        def do_GET(self) -> None:
            signed = re.search(r"Credential=[^/]+/\d+/([^/]+)/s3/aws4_request", self.headers["Authorization"])
            assert signed is not None
            seen.append((self.headers["Host"].partition(":")[0], self.path.partition("?")[0], signed[1]))
            content = b"<ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>"
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None: ...

    with listening(Empty) as url:
        endpoint = url.replace("127.0.0.1", "localhost")
        assert open_store(Address("s3://bucket/runs", {"endpoint": endpoint, **settings})).folders() == {}
    assert {(found_host, found.rstrip("/") or "/", signed) for found_host, found, signed in seen} == {
        (host, path, region)
    }


@pytest.mark.parametrize("path_style", [True, False])
@pytest.mark.parametrize("ca", ["none", "another's", "none that is there"])
def test_a_certificate_that_is_not_trusted_names_the_setting(
    ca: str, path_style: bool, object_store: ObjectStore, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(S3Store, "waits_s", (3600.0,))  # the test would not end
    endpoint = object_store.by_name("https")
    files = {"none": {}, "another's": {"ca": str(certificate(tmp_path).ca)}, "none that is there": {"ca": "/no/such"}}
    address = object_store.address(endpoint=endpoint, path_style=path_style, **files[ca])
    with pytest.raises(StoreRefusedError, match=f"bucket '{BUCKET}' at {endpoint} refuses: .*with `ca` in the prof"):
        check(address)


def test_over_tls_with_the_bucket_in_the_hosts_name(object_store: ObjectStore) -> None:
    endpoint = object_store.by_name("https")
    check(object_store.address(endpoint=endpoint, path_style=False, ca=str(object_store.ca), region="eu-1"))
