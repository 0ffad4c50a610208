"""Ask a running service (``irgen serve``) from another program: no models, no torch.

>>> from irgen.client import Client
>>> Client("http://127.0.0.1:8080").url
'http://127.0.0.1:8080'
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Self

import httpx

from irgen.errors import ServiceError, redact

TRIES = 4  # of a read
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds
BUSY = {429, 502, 503, 504}  # statuses that pass


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


class Client:
    """A connection to a service, to be used by one thread. It is a context manager.

    A token is the password in ``url``: ``http://NAME:TOKEN@host:8080``.

    A request is tried again, ``tries`` times in all, if the service is busy, restarts or cannot be
    reached for a moment. Every method raises ServiceError with the service's reason.
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

    def search(
        self, images: Sequence[str | PathLike | bytes], k: int = 10, **options: Any
    ) -> list[list[Hit]]:
        """Return the hits of each image, best first. ``images``: paths, or bytes of image files.
        ``options``: as in the API's description, such as ``filter="price < 30"``."""
        contents = [
            image if isinstance(image, bytes) else Path(image).read_bytes() for image in images
        ]
        files = [("images", (f"image-{n}", content)) for n, content in enumerate(contents)]
        answer = self._ask("POST", "/v1/search/upload", files=files, params=_given(k, options))
        return _read_hits(answer)

    def search_ids(self, ids: Sequence[str], k: int = 10, **options: Any) -> list[list[Hit]]:
        """Return the hits of each of some images of the index, without itself."""
        body = {"queries": [{"id": name} for name in ids]} | _given(k, options)
        return _read_hits(self._ask("POST", "/v1/search", json=body))

    def search_urls(self, urls: Sequence[str], k: int = 10, **options: Any) -> list[list[Hit]]:
        """Return the hits of each picture, which the service fetches from its address if it runs
        with ``--fetch``."""
        body = {"queries": [{"url": url} for url in urls]} | _given(k, options)
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

    def picture(self, name: str) -> bytes:
        """Return the file of an image of the index."""
        return self._send("GET", "/v1/picture", params={"id": name}).content

    def thumbnail(self, name: str) -> bytes:
        """Return a small picture of an image of the index."""
        return self._send("GET", "/v1/thumbnail", params={"id": name}).content

    def info(self) -> dict[str, Any]:
        """Describe the served index."""
        return self._ask("GET", "/v1/info")

    def _ask(self, method: str, path: str, **request: Any) -> Any:
        try:
            return self._send(method, path, **request).json()
        except ValueError:
            raise ServiceError(f"{self.url} answers, but it is no irgen serve") from None

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Send a request that changes nothing, again while the service is busy."""
        reason = ""
        for number in range(self._tries):
            try:
                answer = self._http.request(method, path, **request)
            except httpx.UnsupportedProtocol as error:
                raise ServiceError(f"{self.url}: {error} write http://…") from None
            except httpx.TransportError as error:
                reason, pause = f"cannot be reached ({error})", FIRST_PAUSE * 2**number
            else:
                if answer.is_success:
                    return answer
                reason = _read_reason(answer)
                if answer.status_code not in BUSY:
                    raise ServiceError(f"{self.url}: {reason}")
                wanted = answer.headers.get("Retry-After", "")
                pause = float(wanted) if wanted.isdecimal() else FIRST_PAUSE * 2**number
                pause = min(pause, LONGEST_PAUSE)
            if number + 1 < self._tries:
                time.sleep(pause)
        raise ServiceError(f"{self.url}: {reason}; tried {self._tries} times")


def _given(k: int, options: Mapping[str, Any]) -> dict[str, Any]:
    return {"k": k} | {name: value for name, value in options.items() if value is not None}


def _read_hits(answer: Mapping[str, Any]) -> list[list[Hit]]:
    names = Hit.__dataclass_fields__.keys()
    return [
        [Hit(**{name: hit[name] for name in names}) for hit in result["hits"]]
        for result in answer["results"]
    ]


def _read_reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code}"
