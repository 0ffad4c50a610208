"""Errors of boto3, turned into sentences with a remedy; those that may pass are told apart."""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore import exceptions as botocore
from botocore.parsers import ResponseParserError

from irgen.catalog.sources import remote
from irgen.catalog.sources.remote import flatten
from irgen.errors import SourceError, UnreachableError, UnreadableError, redact

ABSENT = ("NoSuchKey", "NoSuchVersion", "404", "NotFound")
UNMET = ("PreconditionFailed", "412")
TRANSIENT = (
    *("SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "OperationAborted"),
    *("Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests"),
    *("ConditionalRequestConflict", "BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch"),
)
NO_SERVER = (
    botocore.EndpointConnectionError,
    botocore.ConnectTimeoutError,
    botocore.ProxyConnectionError,
)
OF_ALL_OBJECTS = (  # whatever the object is, the answer would be the same
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"),
    *("TokenRefreshRequired", "RequestExpired", "RequestTimeTooSkewed", "AllAccessDisabled"),
    *("AccountProblem", "NotSignedUp", "InvalidSecurity", "AuthorizationHeaderMalformed"),
)
NO_BUCKET = ("NoSuchBucket", "PermanentRedirect", "IllegalLocationConstraintException", "301")
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


class NotFoundError(SourceError):
    """There is no such object."""


class ConditionError(SourceError):
    """A condition of a call does not hold."""


@contextmanager
def report_errors(url: str) -> Iterator[None]:
    """Turn what boto3 raises into one of our errors; TransientError for what may pass."""
    try:
        yield
    except botocore.ClientError as error:
        raise _explain(error, url) from None
    except (botocore.HTTPClientError, botocore.ConnectionError) as error:
        remote.refuse_untrusted(url, error, "AWS_CA_BUNDLE")
        kind = remote.DisconnectedError if isinstance(error, NO_SERVER) else remote.TransientError
        raise kind(flatten(error)) from None
    except (botocore.BotoCoreError, ResponseParserError) as error:
        raise SourceError(
            f"{url} cannot be requested: {flatten(error)}; give credentials (AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role) and check the URL"
        ) from None


def _explain(error: botocore.ClientError, url: str) -> Exception:
    answer, metadata = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
    code, text = str(answer.get("Code", "")), redact(str(answer.get("Message", "")))
    status = metadata.get("HTTPStatusCode", 0)
    if status == 416:  # shorter than it was
        return remote.ReplacedError()
    if status >= 500 or status in (408, 429) or code in TRANSIENT:
        return remote.TransientError(f"{status} {code}")
    remedy = REMEDIES.get(code) or REMEDIES.get(str(status)) or "check it and the endpoint"
    return _kind_of(code)(f"{url}: {code} ({text}); {remedy}")


def _kind_of(code: str) -> type[SourceError]:
    if code in ABSENT:
        return NotFoundError
    if code in UNMET:
        return ConditionError
    if code in NO_BUCKET:
        return UnreachableError
    return SourceError if code in OF_ALL_OBJECTS else UnreadableError
