"""A file or an image list on a web server, read with requests; no web server can be listed.

Credentials come from where requests looks for them (`~/.netrc`), proxies from the environment.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from irgen import __version__
from irgen.catalog.sources import image_list, remote, remote_images
from irgen.catalog.sources.image_list import FindAddresses
from irgen.catalog.sources.list_paths import (
    ELSEWHERE,
    find_scheme,
    leads_out,
    normalise_path,
    spell,
)
from irgen.catalog.sources.listing import Entry, Fetched, Listing
from irgen.catalog.sources.remote import (
    Answer,
    Remote,
    TransientError,
    flatten,
    make_retry_error,
)
from irgen.catalog.sources.remote_images import Location
from irgen.errors import GivenUpError, SourceError, UnreachableError, UnreadableError

BLOCK = 1 << 16  # bytes read at once; a cut connection loses them
TIMEOUTS = (10, 60)  # seconds to connect, and without a byte
ABSENT = (404, 410)
PAGE = (b"<!doctype html", b"<html")
READ_PACKINGS = ("", "identity", "gzip", "x-gzip")  # values of Content-Encoding
RETRIED = (408, 425, 429, *range(500, 600))
NO_SERVER = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
REMEDIES = {
    401: "give a user and password for the server in ~/.netrc",
    403: "it may not be read with these credentials, or a signed URL has expired",
}


@dataclass(frozen=True, kw_only=True)
class Client:
    """Access to web servers, for any number of threads."""

    session: requests.Session = field(repr=False)
    retries: int


def connect(connections: int, retries: int) -> Client:
    """Return a client that keeps `connections` open and repeats a failed request `retries` times.
    It sends nothing yet."""
    retry_rule = urllib3.Retry(
        retries,
        other=0,  # failures of TLS: not all of them may pass
        status_forcelist=RETRIED,
        raise_on_status=False,
        backoff_factor=remote.FIRST_PAUSE,
        backoff_max=remote.LONGEST_PAUSE,
        backoff_jitter=remote.FIRST_PAUSE,
        retry_after_max=remote.LONGEST_PAUSE,
    )
    session = requests.Session()
    adapter = HTTPAdapter(pool_maxsize=connections, max_retries=retry_rule)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    # Packed on the way, a file has neither its size nor ranges.
    plain = {"User-Agent": f"irgen/{__version__}", "Accept-Encoding": "identity"}
    session.headers.update(plain)
    return Client(session=session, retries=retries)


def hide_secrets(url: str) -> str:
    """Return the URL without user, password and query. Raises SourceError if it is no URL.

    >>> hide_secrets("https://me:pw@example.com/a.zip?X-Amz-Signature=1")
    'https://example.com/a.zip'
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise SourceError(f"{url!r} is no URL ({error}); correct download.source") from None
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def list_named(
    client: Client, url: str, content: bytes, find_addresses: FindAddresses, ahead: int
) -> Listing:
    """List the images that the list at `url` with this content names, by path relative to it or by
    address, which `find_addresses` finds.

    Each is looked at, `ahead` at once. Raises SourceError as a local list does.
    """
    parts = urlsplit(url)
    folder = parts._replace(path=parts.path.rpartition("/")[0] + "/", query="", fragment="")

    def find_paths(texts: Sequence[str]) -> tuple[list[Entry], tuple[str, ...]]:
        locations = [_locate(client, folder, text) for text in texts]
        return remote_images.look_up_all(locations, ahead), ()

    return image_list.list_rows(content, hide_secrets(url), find_paths, find_addresses, ahead)


def _locate(client: Client, folder: SplitResult, text: str) -> Location:
    """Return where the image at a path relative to a web server's folder is."""
    if leads_out(text) or find_scheme(text):
        return Location(text, _refuse_outside, partial(read_image, client))
    urls = [folder._replace(path=folder.path + quote(path)).geturl() for path in spell(text)]
    return Location(
        normalise_path(text), partial(_look_at_first, client, urls), partial(read_image, client)
    )


def _refuse_outside() -> Remote | None:
    raise UnreadableError(ELSEWHERE)


def _look_at_first(client: Client, urls: Sequence[str]) -> Remote | None:
    """Return what is at the first of several URLs where anything is."""
    return next(filter(None, (look_at(client, url) for url in urls)), None)


def read_image(client: Client, listed: Remote, look: remote.Look) -> Fetched | None:
    """Return the bytes of an image as `remote_images.read_image` does.

    Raises UnreadableError for a web page or nothing in its place, as many servers give instead of
    an error.
    """
    image = remote_images.read_image(listed, look, client.retries)
    if image is None:
        return None
    if not image.content:
        raise UnreadableError(f"{listed.url} gives an empty file instead of an image")
    if image.content[:100].lstrip().lower().startswith(PAGE):
        raise UnreadableError(f"{listed.url} gives a web page instead of an image")
    return image


def look_at(client: Client, url: str) -> Remote | None:
    """Return what is at `url` now; None: nothing. Raises SourceError if that is not known.

    It requests the first byte: not every server answers HEAD, and no signed URL does.
    """
    answer = _request(client, url, {"Range": "bytes=0-0"})
    if answer.status_code == 416 and _total(answer) != 0:  # a server that refuses any range
        answer.close()
        answer = _request(client, url, {})
    with answer:
        if answer.status_code in ABSENT:
            return None
        ranged = answer.status_code == 206
        size = _total(answer)
        if answer.status_code == 416 and size != 0:
            raise UnreadableError(f"{hide_secrets(url)} cannot be read (416); check the URL")
        etag = _etag(answer)
    return Remote(
        url=hide_secrets(url),
        size=size,
        etag=etag,
        ranged=ranged and size is not None,
        open=partial(_open, client, url, etag, size),
    )


def _open(
    client: Client, url: str, etag: str, size: int | None, start: int, stop: int | None
) -> Answer:
    end = size if stop is None else stop
    part = start > 0 or end != size
    answer = _request(client, url, {"Range": f"bytes={start}-{(end or 0) - 1}"} if part else {})
    try:
        if answer.status_code in ABSENT:
            raise remote.GoneError
        same_size = size is None or _total(answer) in (size, None)
        if _etag(answer) != etag or not same_size or answer.status_code != (206 if part else 200):
            raise remote.ReplacedError
        expected = None if end is None else end - start
        announced = answer.headers.get("Content-Length")
        if expected is not None and announced not in (None, str(expected)):
            raise TransientError(f"{announced} of {expected} bytes are announced")
        if part and not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise TransientError("another range than the requested one is announced")
    except BaseException:
        answer.close()
        raise
    return Answer(_blocks_of(answer))


def _blocks_of(answer: requests.Response) -> Iterator[bytes]:
    try:
        yield from answer.raw.stream(BLOCK, decode_content=False)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise TransientError(flatten(error)) from None
    finally:
        answer.close()


def _request(client: Client, url: str, headers: dict[str, str]) -> requests.Response:
    """Return the answer, whose body is not read yet. Raises UnreachableError if there is no server,
    UnreadableError for any other failure."""
    name = hide_secrets(url)

    def attempt() -> requests.Response:
        try:
            return client.session.get(url, headers=headers, stream=True, timeout=TIMEOUTS)
        except requests.exceptions.SSLError as error:
            remote.refuse_untrusted(name, error, "REQUESTS_CA_BUNDLE")
            raise TransientError(flatten(error)) from None

    try:
        answer = remote.retry_call(attempt, name, client.retries)
    except requests.ConnectionError as error:
        cause = getattr(error.args[0], "reason", error) if error.args else error
        lost = isinstance(error, requests.exceptions.ProxyError) or isinstance(cause, NO_SERVER)
        kind = UnreachableError if lost else GivenUpError
        raise make_retry_error(name, client.retries + 1, flatten(cause), kind) from None
    except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
        raise UnreadableError(f"{name} cannot be requested ({flatten(error)}); check it") from None
    status = answer.status_code
    packing = answer.headers.get("Content-Encoding", "").strip().lower()
    if status in (200, 206) and packing not in READ_PACKINGS:
        answer.close()
        raise UnreadableError(
            f"{name} is sent packed as {packing!r}, which is not read here; let the server send "
            "files as they are, or packed by gzip"
        )
    if status in (200, 206, 416, *ABSENT):
        return answer
    answer.close()
    if status in RETRIED:
        raise make_retry_error(name, client.retries + 1, f"{status} {answer.reason}")
    remedy = REMEDIES.get(status, "check the URL")
    raise UnreadableError(f"{name} cannot be read ({status} {answer.reason}); {remedy}")


def _total(answer: requests.Response) -> int | None:
    """Return the size of the whole file, if the server gives it."""
    if answer.status_code != 200:
        total = re.search(r"/(\d+)\s*$", answer.headers.get("Content-Range", ""))
        return int(total[1]) if total else None
    packed = answer.headers.get("Transfer-Encoding")
    length = answer.headers.get("Content-Length")
    return int(length) if length is not None and length.isdigit() and packed is None else None


def _etag(answer: requests.Response) -> str:
    return answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
