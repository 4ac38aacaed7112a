"""What an object store has refused, as pyarrow tells it: in the text of an OSError."""

from __future__ import annotations

import re
from enum import Enum

_AWS = re.compile(r"AWS Error (?P<name>[A-Z_]+)(?: \(HTTP status (?P<status>\d+)\))?")
_CURL = re.compile(r"curlCode: (?P<code>\d+)")
_CERTIFICATE = frozenset({51, 58, 59, 60, 66, 77, 80, 82, 83, 90, 91})
"""curl's numbers for a certificate that is not accepted, or a file of certificates that cannot be read."""


class Refusal(Enum):
    """Why another attempt would be in vain, and what to do."""

    KEY = (
        "see that AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the file AWS_SHARED_CREDENTIALS_FILE, hold a key of "
        "this store that may list, read, write and delete there"
    )
    EXPIRED = "the key was given for a time, which is over: set a new one, AWS_SESSION_TOKEN included"
    CLOCK = "this machine's clock differs too much from the store's: set it right"
    BUCKET = "there is no such bucket: create it, or correct `store` in the profile"
    REGION = "the bucket is in another region: set `region` in the profile's table s3"
    CERTIFICATE = "its certificate is not accepted: name the authority's file with `ca` in the profile's table s3"
    OTHER = "see the profile's store and its table s3, and what the store's own log says"

    def __str__(self) -> str:
        return str(self.value)


_NAMED = {
    "ACCESS_DENIED": Refusal.KEY,
    "INVALID_ACCESS_KEY_ID": Refusal.KEY,
    "INVALID_CLIENT_TOKEN_ID": Refusal.KEY,
    "INVALID_SIGNATURE": Refusal.KEY,
    "SIGNATURE_DOES_NOT_MATCH": Refusal.KEY,
    "MISSING_AUTHENTICATION_TOKEN": Refusal.KEY,
    "UNRECOGNIZED_CLIENT": Refusal.KEY,
    "INCOMPLETE_SIGNATURE": Refusal.KEY,
    "REQUEST_EXPIRED": Refusal.EXPIRED,
    "REQUEST_TIME_TOO_SKEWED": Refusal.CLOCK,
    "NO_SUCH_BUCKET": Refusal.BUCKET,
    "INVALID_PARAMETER_VALUE": Refusal.OTHER,
    "INVALID_PARAMETER_COMBINATION": Refusal.OTHER,
    "INVALID_ACTION": Refusal.OTHER,
    "MALFORMED_QUERY_STRING": Refusal.OTHER,
    "OPT_IN_REQUIRED": Refusal.OTHER,
    "VALIDATION": Refusal.OTHER,
}
_OF_STATUS = {"301": Refusal.REGION, "307": Refusal.REGION, "401": Refusal.KEY, "403": Refusal.KEY}
_MAY_PASS = frozenset({"408", "425", "429"})
"""Of the answers that say the request is at fault: too slow, too early, too many."""


def refusal(error: OSError) -> Refusal | None:
    """Why there is no use in trying again; None where there may be, as for whatever is not known here."""
    text = str(error)
    certificate = _CURL.search(text)
    if certificate is not None and int(certificate["code"]) in _CERTIFICATE:
        return Refusal.CERTIFICATE
    if "ExpiredToken" in text or "TokenRefreshRequired" in text:  # has no name of its own among those of the library
        return Refusal.EXPIRED
    found = _AWS.search(text)
    if found is None:
        return None
    if found["name"] in _NAMED:
        return _NAMED[found["name"]]
    status = found["status"] or ""
    if status in _OF_STATUS:
        return _OF_STATUS[status]
    return Refusal.OTHER if status.startswith("4") and status not in _MAY_PASS else None
