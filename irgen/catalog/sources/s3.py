"""Objects in buckets: listed, read, written and deleted with boto3.

Every URL is `s3://bucket/key`. What may pass is tried again; what will not is a SourceError.
"""

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from boto3.s3.transfer import TransferConfig
from botocore import exceptions as botocore

from irgen.catalog.sources import remote, remote_images, transfer
from irgen.catalog.sources.listing import Fetched
from irgen.catalog.sources.remote import Answer, Remote, flatten
from irgen.catalog.sources.s3_client import TRANSFERS, Client
from irgen.catalog.sources.s3_errors import ConditionError, NotFoundError, report_errors
from irgen.errors import SourceError

PART = 16 << 20  # bytes of a part of a large upload
BLOCK = 1 << 16  # bytes read at once; a cut connection loses them
MD5 = re.compile(r"[0-9a-f]{32}")
CHECKSUMS = {"ChecksumSHA256": "sha256", "ChecksumSHA1": "sha1", "ChecksumCRC32": "crc32"}


class Object(NamedTuple):
    """One object of a listing; its ETag without the quotes."""

    key: str
    size: int
    etag: str


def split_url(url: str) -> tuple[str, str]:
    """Return the bucket and the key of a URL. Raises SourceError if it names no bucket.

    >>> split_url("s3://shop/images/cat 1.jpg")
    ('shop', 'images/cat 1.jpg')
    """
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not bucket:
        raise SourceError(f"{url!r} names no bucket; write s3://bucket/prefix")
    return bucket, key


def list_objects(client: Client, url: str) -> Iterator[Object]:
    """Yield every object whose key starts with the URL's, sorted by key; a call a thousand.

    Raises SourceError if the bucket is not there or may not be listed.
    """
    bucket, prefix = split_url(url)
    where = {"Bucket": bucket, "Prefix": prefix} | client.payer
    token: dict[str, str] = {}
    while True:
        page = _retry(client, url, partial(client.boto.list_objects_v2, **where, **token))
        for item in page.get("Contents", []):
            yield Object(item["Key"], item["Size"], item["ETag"].strip('"'))
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}


def list_keys(client: Client, url: str) -> list[str]:
    """Return the keys that start with the URL's, sorted. Raises SourceError."""
    return [item.key for item in list_objects(client, url)]


def look_at(client: Client, url: str) -> Remote | None:
    """Return what is at `url` now; None: nothing. Raises SourceError if that is not known."""
    try:
        answer = _call(client, "head_object", url, ChecksumMode="ENABLED", **client.reading)
    except NotFoundError:
        return None
    listed = Object(split_url(url)[1], answer["ContentLength"], answer["ETag"].strip('"'))
    file = as_remote(client, url, listed)
    return replace(file, version=_version_of(answer), sums=_sums_of(answer))


def as_remote(client: Client, url: str, listed: Object) -> Remote:
    """Return an object in the state that was listed; read later, it may be replaced."""
    return Remote(
        url=url,
        size=listed.size,
        etag=listed.etag,
        ranged=True,
        open=partial(_open, client, url, listed),
    )


def _open(client: Client, url: str, listed: Object, start: int, stop: int | None) -> Answer:
    end = listed.size if stop is None else stop
    whole = (start, end) == (0, listed.size)
    part = {"ChecksumMode": "ENABLED"} if whole else {"Range": f"bytes={start}-{end - 1}"}
    condition = {"IfMatch": f'"{listed.etag}"'}
    try:
        answer = _call(client, "get_object", url, **condition, **part, **client.reading)
    except NotFoundError:
        raise remote.GoneError from None
    except ConditionError:
        raise remote.ReplacedError from None
    body = answer["Body"]
    if answer["ETag"].strip('"') != listed.etag:  # a service that knows no conditions
        body.close()
        raise remote.ReplacedError
    if answer["ContentLength"] != end - start:
        body.close()
        raise remote.TransientError(
            f"{answer['ContentLength']:,} of {end - start:,} bytes are announced"
        )
    return Answer(_blocks_of(body), _version_of(answer), _sums_of(answer) if whole else {})


def _blocks_of(body: Any) -> Iterator[bytes]:
    try:
        yield from iter(partial(body.read, BLOCK), b"")
    except botocore.FlexibleChecksumError as error:
        raise remote.DamagedError(flatten(error)) from None
    except (botocore.HTTPClientError, botocore.IncompleteReadError) as error:
        raise remote.TransientError(flatten(error)) from None
    finally:
        body.close()


def _version_of(answer: dict[str, Any]) -> str | None:
    version = answer.get("VersionId")
    return None if version == "null" else version


def _sums_of(answer: dict[str, Any]) -> dict[str, str]:
    """Return the checksums of the whole object that the service gives; an MD5 as ETag is one."""
    sums = {
        name: base64.b64decode(answer[header]).hex()
        for header, name in CHECKSUMS.items()
        if header in answer and "-" not in answer[header]  # with one: of the parts' checksums
    }
    etag = answer["ETag"].strip('"')
    encrypted = answer.get("ServerSideEncryption", "").startswith("aws:kms")
    plain = not encrypted and "SSECustomerAlgorithm" not in answer
    return sums or ({"md5": etag} if plain and MD5.fullmatch(etag) else {})


def read_image(client: Client, listed: Remote, look: remote.Look) -> Fetched | None:
    """Return the bytes of an image as `remote_images.read_image` does."""
    return remote_images.read_image(listed, look, client.retries)


def get_file(client: Client, url: str, path: Path) -> bool:
    """Write the object to `path`, whole and checked or not at all; return False if there is none.

    Large objects come in parallel ranges, and a download that was cut off is resumed. Raises
    SourceError.
    """

    def use(file: Remote) -> bool:
        transfer.fetch(file, path, connections=TRANSFERS, retries=client.retries)
        return True

    return remote.use_present(partial(look_at, client, url), use) or False


def put_file(client: Client, path: Path, url: str) -> None:
    """Write a file to `url`, whole or not at all, in parts if it is large.

    Raises SourceError if it cannot be written, OSError if the file cannot be read.
    """
    bucket, key = split_url(url)
    parts = TransferConfig(
        multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=TRANSFERS
    )

    def upload() -> None:
        with path.open("rb") as file, report_errors(url):
            client.uploader.upload_fileobj(file, bucket, key, ExtraArgs=client.payer, Config=parts)

    remote.retry_call(upload, url, retries=0)


def get_json(client: Client, url: str) -> tuple[Any, str] | None:
    """Return the JSON value at `url` and its ETag, for a later `put_json`; None: nothing is there.

    Raises SourceError.
    """

    def use(file: Remote) -> tuple[bytes, str]:
        return transfer.read(file, client.retries).content, file.etag

    answer = remote.use_present(partial(look_at, client, url), use)
    if answer is None:
        return None
    try:
        return json.loads(answer[0]), answer[1]
    except ValueError as error:
        raise SourceError(f"{url} is not valid JSON ({error}); delete it and run again") from None


def put_json(
    client: Client, url: str, value: Any, *, new: bool = False, replacing: str = ""
) -> str | None:
    """Write a JSON value and return its ETag; None: the condition does not hold.

    `new`: only if nothing is there; `replacing`: only if what is there has this ETag. If the answer
    to an earlier try was lost and `value` is there, it counts as written. Raises SourceError.
    """
    content = (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
    condition = {"IfNoneMatch": "*"} if new else {"IfMatch": f'"{replacing}"'} if replacing else {}
    try:
        answer = _call(client, "put_object", url, Body=content, **condition, **client.payer)
    except (ConditionError, NotFoundError):
        if not condition:
            raise
        current = get_json(client, url)
        return current[1] if current is not None and current[0] == json.loads(content) else None
    return answer["ETag"].strip('"')


def delete(client: Client, urls: Iterable[str]) -> None:
    """Delete objects in the order given; one that is not there is fine. Raises SourceError."""
    for url in urls:
        _call(client, "delete_object", url, **client.payer)


def _call(client: Client, operation: str, url: str, **arguments: Any) -> Any:
    """Return boto3's answer to one operation on the object at `url`.

    Raises NotFoundError, ConditionError, ReplacedError for a range that the object no longer has,
    or another SourceError.
    """
    bucket, key = split_url(url)
    call = partial(getattr(client.boto, operation), Bucket=bucket, Key=key, **arguments)
    return _retry(client, url, call)


def _retry(client: Client, url: str, call: Callable[[], Any]) -> Any:
    def attempt() -> Any:
        with report_errors(url):
            return call()

    return remote.retry_call(attempt, url, client.retries)
