"""Files on web servers: looked at, and read from where they were cut if the server gives ranges.

Credentials are found where ``requests`` looks for them (``~/.netrc``), proxies in the environment.
"""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import quote, urlsplit, urlunsplit

import requests
import urllib3
from requests import exceptions as wrong
from requests.adapters import HTTPAdapter

from irgen import __version__
from irgen.catalog.sources import lists
from irgen.catalog.sources.listing import Entry, Listing
from irgen.catalog.sources.remote import Answer, Remote, ReplacedError, read_image, state
from irgen.catalog.sources.retry import TransientError, cut_off, patiently
from irgen.errors import SourceError, redact

BLOCK = 1 << 16  # bytes read at once; what a cut connection loses
TIMEOUTS = (10, 60)  # seconds to connect, and without a byte
GONE = (404, 410)
REMEDIES = {
    401: "give a user and password for the server in ~/.netrc",
    403: "it may not be read with these credentials, or a signed URL has expired",
}


@dataclass(frozen=True, kw_only=True)
class Web:
    """A way to web servers, for any number of threads."""

    session: requests.Session = field(repr=False)
    retries: int


def connect(connections: int, retries: int) -> Web:
    """A way to web servers that keeps so many connections; nothing is asked of the network yet."""
    session = requests.Session()
    adapter = HTTPAdapter(pool_maxsize=connections)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    # Packed on the way, a file has neither its size nor ranges.
    plain = {"User-Agent": f"irgen/{__version__}", "Accept-Encoding": "identity"}
    session.headers.update(plain)
    return Web(session=session, retries=retries)


def shown(url: str) -> str:
    """The URL without what may be secret: user, password, query. Raises SourceError if it is none.

    >>> shown("https://me:pw@example.com/a.zip?X-Amz-Signature=1")
    'https://example.com/a.zip'
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise SourceError(f"{url!r} is no URL ({error}); correct download.source") from None
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def look_at(web: Web, url: str) -> Remote | None:
    """What is at ``url`` now; None: nothing. Raises SourceError if that cannot be told."""
    return patiently(partial(_look, web, url), shown(url), web.retries)


def _look(web: Web, url: str) -> Remote | None:
    """By asking for the first byte: not every server answers HEAD, no signed URL does."""
    with _ask(web, url, {"Range": "bytes=0-0"}) as answer:
        if answer.status_code in GONE:
            return None
        ranged = answer.status_code == 206
        size = _total(answer)
        if answer.status_code == 416 and size != 0:
            raise SourceError(f"{shown(url)} cannot be read (416); check the URL")
        etag = _etag(answer)
    return Remote(
        url=shown(url),
        size=size,
        etag=etag,
        ranged=ranged and size is not None,
        open=partial(_open, web, url, etag, size),
    )


def _open(
    web: Web, url: str, etag: str, size: int | None, start: int, stop: int | None
) -> Answer | None:
    end = size if stop is None else stop
    part = start > 0 or end != size
    answer = _ask(web, url, {"Range": f"bytes={start}-{(end or 0) - 1}"} if part else {})
    try:
        if answer.status_code in GONE:
            answer.close()
            return None
        other = _etag(answer) != etag or (size is not None and _total(answer) not in (size, None))
        if other or answer.status_code != (206 if part else 200):
            raise ReplacedError
        wanted = None if end is None else end - start
        announced = answer.headers.get("Content-Length")
        if wanted is not None and announced is not None and int(announced) != wanted:
            raise TransientError(f"{int(announced):,} of {wanted:,} bytes are announced")
        if part and not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise TransientError("another range than asked for is announced")
    except BaseException:
        answer.close()
        raise
    return Answer(_blocks(answer))


def _blocks(answer: requests.Response) -> Iterator[bytes]:
    try:
        yield from answer.raw.stream(BLOCK, decode_content=False)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise TransientError(_flat(error)) from None
    finally:
        answer.close()


def _ask(web: Web, url: str, headers: dict[str, str]) -> requests.Response:
    """The answer, whose body is not read yet. Raises TransientError, or SourceError."""
    try:
        answer = web.session.get(url, headers=headers, stream=True, timeout=TIMEOUTS)
    except wrong.SSLError as error:
        if cut_off(error):
            raise TransientError(_flat(error)) from None
        raise SourceError(
            f"{shown(url)}: {_flat(error)}; check it and REQUESTS_CA_BUNDLE"
        ) from None
    except (wrong.ConnectionError, wrong.Timeout, wrong.ChunkedEncodingError) as error:
        raise TransientError(_flat(error)) from None
    except (wrong.RequestException, ValueError) as error:
        raise SourceError(f"{shown(url)} cannot be asked for ({_flat(error)}); check it") from None
    status = answer.status_code
    if status in (200, 206, 416, *GONE):
        return answer
    answer.close()
    if status >= 500 or status in (408, 425, 429):
        wait = answer.headers.get("Retry-After", "")
        raise TransientError(f"{status} {answer.reason}", float(wait) if wait.isdecimal() else 0.0)
    remedy = REMEDIES.get(status, "check the URL")
    raise SourceError(f"{shown(url)} cannot be read ({status} {answer.reason}); {remedy}")


def _total(answer: requests.Response) -> int | None:
    """The size of the whole file, if the server tells."""
    if answer.status_code != 200:
        said = re.search(r"/(\d+)\s*$", answer.headers.get("Content-Range", ""))
        return int(said[1]) if said else None
    packed = answer.headers.get("Transfer-Encoding")
    length = answer.headers.get("Content-Length")
    return int(length) if length is not None and packed is None else None


def _etag(answer: requests.Response) -> str:
    return answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""


def _flat(error: Exception) -> str:
    return redact(" ".join(str(error).split()))[:300]


def list_web_table(web: Web, url: str, content: bytes, ahead: int) -> Listing:
    """The images that the list at ``url`` with this content names, by path relative to it. Each is
    looked at, ``ahead`` at once. Raises SourceError as a local list does."""
    parts = urlsplit(url)
    place = parts._replace(path=parts.path.rpartition("/")[0] + "/", query="", fragment="")
    columns = lists.read_columns(content, shown(url))
    keys = sorted(columns["key"])
    urls = [place._replace(path=place.path + quote(key)).geturl() for key in keys]
    with ThreadPoolExecutor(ahead, thread_name_prefix="look") as pool:
        found = dict(zip(keys, pool.map(partial(look_at, web), urls), strict=True))
    there = {key: one is not None for key, one in found.items()}
    lists.refuse_missing(there, shown(url), shown(place.geturl()))

    def entry(key: str, url: str) -> Entry:
        first = found[key]
        if first is None:
            return Entry(key, "", None)
        look = partial(look_at, web, url)
        return Entry(key, state(first), partial(read_image, first, look, web.retries))

    return Listing(entries=map(entry, keys, urls), count=len(keys), columns=columns, ahead=ahead)
