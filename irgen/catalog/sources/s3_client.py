"""One call on S3 by boto3: made with its chain of credentials, and its errors told apart – absent,
another state than asked for, worth another try, or for the user to mend."""

import base64
import binascii
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import boto3
from botocore import exceptions as botocore
from botocore.config import Config
from botocore.parsers import ResponseParserError

from irgen.catalog.sources.remote import DamagedError, ReplacedError
from irgen.catalog.sources.retry import TransientError, cut_off, patiently
from irgen.errors import SourceError, redact

CUSTOMER_KEY = "IRGEN_SSE_CUSTOMER_KEY"  # 32 bytes in base64
SENDERS = 4  # parts of a large upload on their way at once

GONE = ("NoSuchKey", "NoSuchVersion", "404", "NotFound")
UNMET = ("PreconditionFailed", "412")  # it is not, or no longer, as the condition says
AGAIN = (
    *("SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "OperationAborted"),
    *("Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests"),
    *("ConditionalRequestConflict", "BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch"),
)
MAY_NOT = "grant these credentials the right (to read: s3:ListBucket, s3:GetObject), or use others"
NEEDS_KEY = "an object encrypted with a customer's key needs download.customer_key"
REMEDIES = {
    "InvalidAccessKeyId": "check AWS_ACCESS_KEY_ID or AWS_PROFILE, and the endpoint",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY or AWS_PROFILE, and the endpoint",
    "ExpiredToken": "the credentials have expired: log in again",
    "InvalidToken": "the session token is not valid: log in again, or unset AWS_SESSION_TOKEN",
    "NoSuchBucket": "check the bucket's name and the endpoint",
    "InvalidObjectState": "it is archived: restore it first",
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it",
    "InvalidRequest": NEEDS_KEY,
    "400": NEEDS_KEY,
    "403": MAY_NOT,
    "404": "check its name and the endpoint",
}
CUT = (
    botocore.HTTPClientError,
    botocore.ConnectionError,
    botocore.IncompleteReadError,
    ResponseParserError,
)


class AbsentError(SourceError):
    """There is no such object."""


class UnmetError(SourceError):
    """The condition of the call does not hold."""


@dataclass(frozen=True, kw_only=True)
class Client:
    """A way into buckets, for any number of threads. ``payer`` goes with every call, ``reading``
    with those on an object's content."""

    boto: Any = field(repr=False)
    retries: int
    payer: dict[str, str]
    reading: dict[str, Any] = field(repr=False)


def client(
    endpoint: str = "",
    *,
    requester_pays: bool = False,
    customer_key: bool = False,
    connections: int = 8,
    retries: int = 12,
) -> Client:
    """A client of AWS, or of the S3 service at ``endpoint`` (http://…).

    ``customer_key``: objects are encrypted with the key in the environment's
    IRGEN_SSE_CUSTOMER_KEY. ``retries``: tries after the first failure in a row; twelve are over in
    about a minute. Nothing is asked of the network yet. Raises SourceError if what boto3 finds
    configured, or the key, is not valid.
    """
    # Not every service but Amazon's knows the newer checksums of uploads; MD5 they all know.
    more: Any = {"request_checksum_calculation": "when_required"} if endpoint else {}
    config = Config(
        retries={"total_max_attempts": 1, "mode": "standard"},  # the patience is ours
        response_checksum_validation="when_required",
        max_pool_connections=max(connections, SENDERS),
        connect_timeout=10,
        read_timeout=60,
        **more,
    )
    key = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": _key()} if customer_key else {}
    payer = {"RequestPayer": "requester"} if requester_pays else {}
    try:
        boto = boto3.session.Session().client("s3", endpoint_url=endpoint or None, config=config)
    except (botocore.BotoCoreError, ValueError) as error:
        raise SourceError(
            f"S3 cannot be set up ({_flat(error)}); check AWS_PROFILE, AWS's configuration files "
            "and the endpoint"
        ) from None
    return Client(boto=boto, retries=retries, payer=payer, reading=payer | key)


def _key() -> bytes:
    try:
        key = base64.b64decode(os.environ.get(CUSTOMER_KEY, ""), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != 32:
        raise SourceError(
            f"download: customer_key: the environment's {CUSTOMER_KEY} does not hold 32 bytes in "
            "base64; set it, or customer_key to false"
        )
    return key


def call(client: Client, operation: str, url: str, **arguments: Any) -> Any:
    """boto3's answer to one operation on ``url``, tried again where that helps. Raises AbsentError,
    UnmetError, or another SourceError for what will not pass."""
    one: Callable[[], Any] = partial(once, client, operation, url, **arguments)
    return patiently(one, url, client.retries)


def once(client: Client, operation: str, url: str, **arguments: Any) -> Any:
    """``call`` without patience: raises TransientError for what may pass, ReplacedError for a range
    that the object no longer has."""
    try:
        return getattr(client.boto, operation)(**arguments)
    except botocore.ClientError as error:
        raise _told(error, url) from None
    except botocore.SSLError as error:
        if cut_off(error):
            raise TransientError(_flat(error)) from None
        raise SourceError(f"{url}: {_flat(error)}; check the endpoint and AWS_CA_BUNDLE") from None
    except CUT as error:
        raise TransientError(_flat(error)) from None
    except botocore.BotoCoreError as error:
        raise SourceError(
            f"{url} cannot be asked for: {_flat(error)}; give credentials (AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role) and check the URL"
        ) from None


def take(body: Any, size: int) -> bytes:
    """Up to ``size`` bytes of an answer's body, none at its end. Raises TransientError if the
    connection is cut, DamagedError if the checksum that came with it is another."""
    try:
        return body.read(size)
    except botocore.FlexibleChecksumError as error:
        raise DamagedError(_flat(error)) from None
    except CUT as error:
        raise TransientError(_flat(error)) from None


def _told(error: botocore.ClientError, url: str) -> Exception:
    about = error.response.get("Error", {})
    code, said = str(about.get("Code", "")), redact(str(about.get("Message", "")))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status == 416:  # shorter than it was
        return ReplacedError()
    if status >= 500 or status in (408, 429) or code in AGAIN:
        return TransientError(f"{status} {code}")
    remedy = REMEDIES.get(code) or REMEDIES.get(str(status)) or "check it and the endpoint"
    kind = AbsentError if code in GONE else UnmetError if code in UNMET else SourceError
    return kind(f"{url}: {code} ({said}); {remedy}")


def _flat(error: Exception) -> str:
    return redact(" ".join(str(error).split()))[:300]
