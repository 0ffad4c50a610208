"""Buckets: listing, reading, writing and deleting objects, each checked on its way.

Every URL is ``s3://bucket/key``. What may go well the next time is tried again; what will not is a
SourceError in one line.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from irgen.catalog.sources import fetch, remote
from irgen.catalog.sources.remote import Answer, Remote, ReplacedError, steady
from irgen.catalog.sources.retry import TransientError
from irgen.catalog.sources.s3_client import SENDERS, AbsentError, UnmetError, call, once, take
from irgen.catalog.sources.s3_client import Client as Client  # for those who use buckets
from irgen.catalog.sources.s3_client import client as client
from irgen.errors import SourceError

BLOCK = 1 << 16  # bytes read at once; what a cut connection loses
PART = 16 << 20  # bytes of a part of a large upload
MD5 = re.compile(r"[0-9a-f]{32}")
CHECKSUMS = {"ChecksumSHA256": "sha256", "ChecksumSHA1": "sha1", "ChecksumCRC32": "crc32"}


class Object(NamedTuple):
    """One object of a listing; its ETag without the quotes."""

    key: str
    size: int
    etag: str


def split(url: str) -> tuple[str, str]:
    """The bucket and the key of a URL. Raises SourceError if it names no bucket.

    >>> split("s3://shop/images/cat 1.jpg")
    ('shop', 'images/cat 1.jpg')
    """
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not bucket:
        raise SourceError(f"{url!r} names no bucket; write s3://bucket/prefix")
    return bucket, key


def list_objects(client: Client, url: str) -> Iterator[Object]:
    """Every object whose key starts with the URL's, sorted by key; a call for each thousand.

    Raises SourceError if the bucket is not there or may not be listed.
    """
    bucket, prefix = split(url)
    place = {"Bucket": bucket, "Prefix": prefix} | client.payer
    more: dict[str, str] = {}
    while True:
        page = call(client, "list_objects_v2", url, **place, **more)
        for item in page.get("Contents", []):
            yield Object(item["Key"], item["Size"], item["ETag"].strip('"'))
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}


def list_keys(client: Client, url: str) -> list[str]:
    """The keys (without the bucket) that start with the URL's, sorted. Raises SourceError."""
    return [found.key for found in list_objects(client, url)]


def look_at(client: Client, url: str) -> Remote | None:
    """What is at ``url`` now; None: nothing. Raises SourceError if that cannot be told."""
    bucket, key = split(url)
    place = {"Bucket": bucket, "Key": key, "ChecksumMode": "ENABLED"} | client.reading
    try:
        found = call(client, "head_object", url, **place)
    except AbsentError:
        return None
    listed = Object(key, found["ContentLength"], found["ETag"].strip('"'))
    return as_remote(client, url, listed, version=_version(found), sums=_sums(found))


def as_remote(
    client: Client,
    url: str,
    listed: Object,
    *,
    version: str | None = None,
    sums: dict[str, str] | None = None,
) -> Remote:
    """An object in the state that was listed: read later, it is in that state or replaced."""
    return Remote(
        url=url,
        size=listed.size,
        etag=listed.etag,
        ranged=True,
        open=partial(_open, client, url, listed),
        version=version,
        sums=sums or {},
    )


def _open(client: Client, url: str, listed: Object, start: int, stop: int | None) -> Answer | None:
    bucket, key = split(url)
    place = {"Bucket": bucket, "Key": key, "IfMatch": f'"{listed.etag}"'} | client.reading
    end = listed.size if stop is None else stop
    whole = (start, end) == (0, listed.size)
    part = {"ChecksumMode": "ENABLED"} if whole else {"Range": f"bytes={start}-{end - 1}"}
    try:
        answer = once(client, "get_object", url, **place, **part)
    except AbsentError:
        return None
    except UnmetError:
        raise ReplacedError from None
    body = answer["Body"]
    if answer["ETag"].strip('"') != listed.etag:  # a service that knows no conditions
        body.close()
        raise ReplacedError
    if answer["ContentLength"] != end - start:
        body.close()
        raise TransientError(f"{answer['ContentLength']:,} of {end - start:,} bytes are announced")
    return Answer(_blocks(body), _version(answer), _sums(answer) if whole else {})


def _blocks(body: Any) -> Iterator[bytes]:
    try:
        yield from iter(partial(take, body, BLOCK), b"")
    finally:
        body.close()


def _version(answer: dict[str, Any]) -> str | None:
    version = answer.get("VersionId")
    return None if version == "null" else version


def _sums(answer: dict[str, Any]) -> dict[str, str]:
    """The checksums of the whole object that the service tells; the ETag is one if it is an MD5."""
    sums = {
        name: base64.b64decode(answer[header]).hex()
        for header, name in CHECKSUMS.items()
        if header in answer and "-" not in answer[header]  # with one: of the parts' checksums
    }
    etag = answer["ETag"].strip('"')
    encrypted = answer.get("ServerSideEncryption", "").startswith("aws:kms")
    plain = not encrypted and "SSECustomerAlgorithm" not in answer
    return sums or ({"md5": etag} if plain and MD5.fullmatch(etag) else {})


def get_file(client: Client, url: str, path: Path) -> bool:
    """Writes the object to ``path``, whole and checked or not at all; False: there is none.

    Large objects come in parallel ranges, and a download that was cut off goes on where it was.
    Raises SourceError.
    """

    def bring(found: Remote) -> bool | None:
        return fetch.fetch(found, path, connections=SENDERS, retries=client.retries) or None

    return bool(steady(partial(look_at, client, url), bring))


def put_file(client: Client, path: Path, url: str) -> str:
    """Writes a file to ``url``, whole or not at all; gives the object's ETag. Raises SourceError if
    it cannot be written, OSError if the file cannot be read."""
    size = path.stat().st_size
    if size <= PART:
        return _put(client, url, path.read_bytes())
    bucket, key = split(url)
    place = {"Bucket": bucket, "Key": key} | client.payer
    place["UploadId"] = call(client, "create_multipart_upload", url, **place)["UploadId"]

    def send(number: int) -> dict[str, Any]:
        with path.open("rb") as file:
            file.seek((number - 1) * PART)
            content = file.read(PART)
        part = {"PartNumber": number, "Body": content, "ContentMD5": _md5(content)}
        sent = call(client, "upload_part", url, **place, **part)
        return {"PartNumber": number, "ETag": sent["ETag"]}

    try:
        with ThreadPoolExecutor(SENDERS, thread_name_prefix="upload") as pool:
            parts = list(pool.map(send, range(1, -(-size // PART) + 1)))
        whole = {"MultipartUpload": {"Parts": parts}}
        return call(client, "complete_multipart_upload", url, **place, **whole)["ETag"].strip('"')
    except BaseException:
        # Else the parts stay, unseen and paid for; what stopped the upload may stop this too.
        with suppress(SourceError, TransientError):
            once(client, "abort_multipart_upload", url, **place)
        raise


def get_json(client: Client, url: str) -> tuple[Any, str] | None:
    """The JSON value at ``url`` and its ETag, for a later ``put_json``; None: there is nothing.
    Raises SourceError."""

    def bring(found: Remote) -> tuple[bytes, str] | None:
        body = remote.read(found, client.retries)
        return None if body is None else (body.content, found.etag)

    read = steady(partial(look_at, client, url), bring)
    if read is None:
        return None
    try:
        return json.loads(read[0]), read[1]
    except ValueError as error:
        raise SourceError(f"{url} is not valid JSON ({error}); delete it and run again") from None


def put_json(
    client: Client, url: str, value: Any, *, new: bool = False, replacing: str = ""
) -> str | None:
    """Writes a JSON value and gives its ETag; None: the condition does not hold.

    ``new``: only if nothing is there; ``replacing``: only if what is there has this ETag. A try
    whose answer was lost counts as done: None is given only if something else than ``value`` is
    there. Raises SourceError.
    """
    content = (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
    condition = {"IfNoneMatch": "*"} if new else {"IfMatch": f'"{replacing}"'} if replacing else {}
    try:
        return _put(client, url, content, **condition)
    except (UnmetError, AbsentError):
        if not condition:
            raise
        found = get_json(client, url)
        return found[1] if found is not None and found[0] == json.loads(content) else None


def _put(client: Client, url: str, content: bytes, **condition: str) -> str:
    bucket, key = split(url)
    place = {"Bucket": bucket, "Key": key} | client.payer
    sent = {"Body": content, "ContentMD5": _md5(content)}
    return call(client, "put_object", url, **place, **sent, **condition)["ETag"].strip('"')


def _md5(content: bytes) -> str:
    digest = hashlib.md5(content, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def delete(client: Client, urls: Iterable[str]) -> None:
    """Deletes objects, in the order given; one that is not there is fine. Raises SourceError."""
    for url in urls:
        bucket, key = split(url)
        call(client, "delete_object", url, Bucket=bucket, Key=key, **client.payer)
