"""Ask a running service (``irgen serve``) from another program: no models, no torch.

>>> from irgen.client import Client
>>> Client("http://127.0.0.1:8080").url
'http://127.0.0.1:8080'
"""

import base64
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Self

import httpx

from irgen.errors import ServiceError, redact

TRIES = 4  # of a request
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds
Image = str | PathLike | bytes | tuple[str, bytes]


@dataclass(frozen=True)
class Failures:
    """Statuses, and errors of the connection, after which a request may be sent again."""

    statuses: frozenset[int]
    errors: tuple[type[httpx.TransportError], ...]


# Of a request that does the same if it is made twice:
PASSING = Failures(frozenset({429, 502, 503, 504}), (httpx.TransportError,))
# Of one that does not: only while it is certain that the service has not begun it.
REFUSED = Failures(
    frozenset({429, 503}), (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
)
UNCERTAIN = "it is not known whether the change was made: look which ids the index has"


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One image that was found. ``score``: hits are sorted by it. ``cosine`` of the two embeddings;
    ``same_label``: calibrated probability that it has the query's label; ``log_probability``
    and ``probability`` of its code, None if it was found ``by_embedding``. ``thumbnail``: address
    of a small picture."""

    id: str
    score: float
    cosine: float | None
    log_probability: float | None
    same_label: float | None
    probability: float | None
    by_embedding: bool
    code: list[int]
    metadata: dict[str, Any]
    thumbnail: str


@dataclass(frozen=True, kw_only=True)
class TextReading:
    """Reading of a query in words. ``unknown_words``: no image's texts have them, so they were
    left out. ``read_as``: nor these, but other forms of them, which were read. ``full_text``:
    full-text search answered, and a hit's score says how well its texts match (BM25); else it is a
    cosine."""

    unknown_words: list[str]
    read_as: dict[str, str]
    full_text: bool


class Hits(list[Hit]):
    """Hits of one query, best first. ``untaught``: probability that the query has none of the
    labels that were taught; None where labels do not rank. ``text``: how a query in words was
    read; None for another one."""

    def __init__(
        self, hits: Iterable[Hit], untaught: float | None, text: TextReading | None
    ) -> None:
        super().__init__(hits)
        self.untaught, self.text = untaught, text


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change of the index that is on the disk: the ``ids`` that were added or removed, how many
    of them ``replaced`` an image, and the number of ``images`` in the index now."""

    ids: list[str]
    replaced: int
    images: int


class Client:
    """A connection to a service, to be used by one thread. It is a context manager.

    A token is the password in ``url``: ``http://NAME:TOKEN@host:8080``.

    A request is tried again, ``tries`` times in all, if the service is busy, restarts or cannot be
    reached for a moment; but ``add`` and ``remove`` only if they have certainly not begun. Every
    method raises ServiceError with the service's reason.
    """

    def __init__(self, url: str, *, seconds: float = 60.0, tries: int = TRIES) -> None:
        self.url, self._tries = redact(url.rstrip("/")), tries
        direct = {f"all://{host}": None for host in ("127.0.0.1", "localhost")}  # never by a proxy
        try:
            self._http = httpx.Client(base_url=url.rstrip("/"), timeout=seconds, mounts=direct)
        except (httpx.InvalidURL, ValueError) as error:
            raise ServiceError(
                f"{self.url} is no address such as http://host:8080: {error}"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def search(self, images: Sequence[Image], k: int = 10, **options: Any) -> list[Hits]:
        """Return the hits of each image, best first. ``images``: paths, bytes of image files, or
        pairs of a name and bytes. ``options``: as in the API's description, such as
        ``filter="price < 30"``."""
        files, params = _read_files(images), _make_options(k, options)
        return _read_hits(self._ask("POST", "/v1/search/upload", files=files, params=params))

    def search_ids(self, ids: Sequence[str], k: int = 10, **options: Any) -> list[Hits]:
        """Return the hits of each of some images of the index, without itself."""
        body = {"queries": [{"id": name} for name in ids]} | _make_options(k, options)
        return _read_hits(self._ask("POST", "/v1/search", json=body))

    def search_urls(self, urls: Sequence[str], k: int = 10, **options: Any) -> list[Hits]:
        """Return the hits of each picture, which the service fetches from its address if it runs
        with ``--fetch``."""
        body = {"queries": [{"url": url} for url in urls]} | _make_options(k, options)
        return _read_hits(self._ask("POST", "/v1/search", json=body))

    def search_texts(self, texts: Sequence[str], k: int = 10, **options: Any) -> list[Hits]:
        """Return the hits of each of ``texts``, such as "green apple"; their ``text`` says how it
        was read."""
        body = {"queries": [{"text": text} for text in texts]} | _make_options(k, options)
        return _read_hits(self._ask("POST", "/v1/search", json=body))

    def search_composed(
        self, images: Sequence[Image], texts: Sequence[str], k: int = 10, **options: Any
    ) -> list[Hits]:
        """Return the hits of each of ``images`` together with the text of its number, such as a
        photo of a shirt and "in red". ``images``: as for ``search``."""
        if len(images) != len(texts):
            raise ServiceError(f"{len(texts):,} texts for {len(images):,} images")
        files = [content for _, (_, content) in _read_files(images)]
        queries = [
            {"image": base64.b64encode(content).decode(), "text": text}
            for content, text in zip(files, texts, strict=True)
        ]
        body = {"queries": queries} | _make_options(k, options)
        return _read_hits(self._ask("POST", "/v1/search", json=body))

    def items(
        self,
        *,
        filter: str | None = None,
        words: str | None = None,
        offset: int = 0,
        limit: int = 50,
    ) -> list[dict[str, Any]]:
        """Return id, metadata and thumbnail of a page of the index's images; with ``words``, the
        best match first."""
        params = {"filter": filter, "words": words, "offset": offset, "limit": limit}
        shown = {name: value for name, value in params.items() if value is not None}
        return self._ask("GET", "/v1/items", params=shown)["items"]

    def add(
        self,
        images: Sequence[Image],
        ids: Sequence[str] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
    ) -> Change:
        """Add images to the index: all of them, or none and an error. They are on the disk when
        this returns.

        ``images``: as for ``search``, at most 32. ``ids``: by default the paths as they are given,
        of an absolute one the last part. ``metadata``: for each image, values by the names of the
        index's columns (``info()["columns"]``), dates as ISO text.
        """
        files, items = _read_files(images), _make_items(images, ids, metadata)
        return self._change("POST", REFUSED, files=files, data=items)

    def upsert(
        self,
        images: Sequence[Image],
        ids: Sequence[str] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
    ) -> Change:
        """As ``add``, but replace images that have the same id, with their metadata. It can be
        repeated after any error."""
        files, items = _read_files(images), _make_items(images, ids, metadata)
        return self._change("POST", PASSING, files=files, data=items, params={"upsert": True})

    def remove(self, ids: Sequence[str]) -> Change:
        """Remove images from the index: all of them, or none and an error."""
        return self._change("DELETE", REFUSED, params={"id": list(ids)})

    def picture(self, name: str) -> bytes:
        """Return the file of an image of the index."""
        return self._send("GET", "/v1/picture", params={"id": name}).content

    def thumbnail(self, name: str) -> bytes:
        """Return a small picture of an image of the index."""
        return self._send("GET", "/v1/thumbnail", params={"id": name}).content

    def info(self) -> dict[str, Any]:
        """Describe the served index."""
        return self._ask("GET", "/v1/info")

    def _change(self, method: str, passing: Failures, **request: Any) -> Change:
        answer = self._ask(method, "/v1/items", passing, **request)
        return Change(**{name: answer[name] for name in Change.__dataclass_fields__})

    def _ask(self, method: str, path: str, passing: Failures = PASSING, **request: Any) -> Any:
        try:
            return self._send(method, path, passing, **request).json()
        except ValueError:
            raise ServiceError(f"{self.url} answers, but it is no irgen serve") from None

    def _send(
        self, method: str, path: str, passing: Failures = PASSING, **request: Any
    ) -> httpx.Response:
        """Send a request, and again after failures that pass."""
        reason = ""
        for number in range(self._tries):
            try:
                answer = self._http.request(method, path, **request)
            except httpx.UnsupportedProtocol as error:
                raise ServiceError(f"{self.url}: {error} write http://…") from None
            except httpx.TransportError as error:
                if not isinstance(error, passing.errors):
                    raise ServiceError(
                        f"{self.url}: the connection broke ({error}), so {UNCERTAIN}"
                    ) from None
                reason, pause = f"cannot be reached ({error})", FIRST_PAUSE * 2**number
            else:
                if answer.is_success:
                    return answer
                reason = _read_reason(answer)
                if answer.status_code in PASSING.statuses - passing.statuses:
                    raise ServiceError(f"{self.url}: {reason}, so {UNCERTAIN}")
                if answer.status_code not in passing.statuses:
                    raise ServiceError(f"{self.url}: {reason}")
                wanted = answer.headers.get("Retry-After", "")
                pause = float(wanted) if wanted.isdecimal() else FIRST_PAUSE * 2**number
                pause = min(pause, LONGEST_PAUSE)
            if number + 1 < self._tries:
                time.sleep(pause)
        raise ServiceError(f"{self.url}: {reason}; tried {self._tries} times")


def _read_files(images: Sequence[Image]) -> list[tuple[str, tuple[str, bytes]]]:
    """Return images as the fields of a form."""
    return [("images", _read_file(number, image)) for number, image in enumerate(images)]


def _read_file(number: int, image: Image) -> tuple[str, bytes]:
    if isinstance(image, tuple):
        return image
    if isinstance(image, bytes):
        return f"image-{number}", image
    path = Path(image)
    return path.name if path.is_absolute() else path.as_posix(), path.read_bytes()


def _make_items(
    images: Sequence[Image],
    ids: Sequence[str] | None,
    metadata: Sequence[Mapping[str, Any]] | None,
) -> dict[str, str]:
    """Return the field of a form that has ids and metadata."""
    if ids is None and any(isinstance(image, bytes) for image in images):
        raise ServiceError("bytes of images have no name: give ids")
    items: list[dict[str, Any]] = [{} for _ in images]
    for name, values in (("id", ids), ("metadata", metadata)):
        if values is None:
            continue
        if len(values) != len(images):
            raise ServiceError(f"{name}: {len(values):,} values for {len(images):,} images")
        for item, value in zip(items, values, strict=True):
            item[name] = value
    return {"items": json.dumps(items)}


def _make_options(k: int, options: Mapping[str, Any]) -> dict[str, Any]:
    return {"k": k} | {name: value for name, value in options.items() if value is not None}


def _read_hits(answer: Mapping[str, Any]) -> list[Hits]:
    names = Hit.__dataclass_fields__.keys()
    results = []
    for result in answer["results"]:
        hits = (Hit(**{name: hit[name] for name in names}) for hit in result["hits"])
        text = result.get("text")  # not of a service of an earlier version
        reading = text and TextReading(
            **{name: text[name] for name in TextReading.__dataclass_fields__}
        )
        results.append(Hits(hits, result.get("untaught"), reading))
    return results


def _read_reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code}"
