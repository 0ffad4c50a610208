"""A URL as a source: a bucket's prefix, or one archive or list in a bucket or on a web server."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from irgen.catalog.sources import archives, fetch, lists, remote
from irgen.catalog.sources.listing import Listing, Source
from irgen.catalog.sources.remote import Remote, state, steady
from irgen.errors import SourceError
from irgen.files import digest, file_digest
from irgen.params import Download

FILES = "an archive (.tar, .tar.gz, .tgz, .zip) or a list (.csv, .parquet)"
SCHEMES = ("s3", "http", "https")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a URL leads: ``name`` is its part that may be told, ``look`` looks at the file there,
    ``table`` lists the images that a list with this content names."""

    name: str
    look: Callable[[], Remote | None]
    table: Callable[[bytes], Listing]


def open_url(settings: Download, cache: Path) -> Source:
    """The source at a URL. An archive is fetched into ``cache`` when it is loaded, and stays there
    until somebody deletes it.

    The stamp of an archive is its state, or download.sha256 if that is given; that of a list on a
    web server is its state, so that images which change while their list does not are not noticed;
    a bucket is always listed. Raises SourceError if there is no such file, and for another kind.
    """
    scheme = settings.source.partition("://")[0].lower()
    if scheme not in SCHEMES:
        raise SourceError(
            f"download: source: {settings.source!r} is not supported here; give a URL with s3://, "
            "http:// or https://"
        )
    place = _bucket(settings) if scheme == "s3" else _web(settings)
    path = PurePosixPath(place.name.partition("://")[2])
    one = str(path).lower().endswith((*archives.ENDINGS, *lists.ENDINGS))
    if place.name.endswith("/") or not one:
        return _prefix(settings, place.name)
    if str(path).lower().endswith(lists.ENDINGS):
        stamp = None if scheme == "s3" else state(_there(place))
        return Source(name=place.name, stamp=stamp, load=partial(_load_list, settings, place))
    stamp = settings.sha256.lower() or state(_there(place))
    load = partial(_load_archive, settings, place, cache)
    return Source(name=place.name, stamp=stamp, load=load)


def _bucket(settings: Download) -> Place:
    from irgen.catalog.sources import (
        buckets,
        s3,  # boto3 takes a moment that other sources need not pay
    )

    client, url = _client(settings), settings.source
    s3.split(url)
    table = partial(buckets.list_bucket_table, client, url, ahead=settings.connections)
    return Place(name=url, look=partial(s3.look_at, client, url), table=table)


def _client(settings: Download) -> Any:
    from irgen.catalog.sources import s3

    return s3.client(
        settings.endpoint,
        requester_pays=settings.requester_pays,
        customer_key=settings.customer_key,
        connections=settings.connections,
        retries=settings.retries,
    )


def _web(settings: Download) -> Place:
    from irgen.catalog.sources import web

    way, url = web.connect(settings.connections, settings.retries), settings.source
    table = partial(web.list_web_table, way, url, ahead=settings.connections)
    return Place(name=web.shown(url), look=partial(web.look_at, way, url), table=table)


def _prefix(settings: Download, url: str) -> Source:
    if not url.startswith("s3://"):
        raise SourceError(
            f"download: source: {url}: a web server cannot be listed; give the URL of {FILES}"
        )
    if settings.sha256:
        raise SourceError(
            f"download: sha256: {url} is not one file; give the URL of {FILES}, or sha256: ''"
        )
    from irgen.catalog.sources import buckets

    load = partial(buckets.list_bucket, _client(settings), url, settings.connections)
    return Source(name=url, stamp=None, load=load)


def _there(place: Place) -> Remote:
    found = place.look()
    if found is None:
        raise _missing(place.name)
    return found


def _missing(name: str) -> SourceError:
    return SourceError(f"{name} is not there; check download.source and download.endpoint")


def _load_list(settings: Download, place: Place) -> Listing:
    def bring(found: Remote) -> bytes | None:
        body = remote.read(found, settings.retries)
        return None if body is None else body.content

    content = steady(place.look, bring)
    if content is None:
        raise _missing(place.name)
    _check(hashlib.sha256(content).hexdigest(), settings, place.name)
    return place.table(content)


def _load_archive(settings: Download, place: Place, cache: Path) -> Listing:
    limit = int(settings.max_gigabytes * 1e9)

    def bring(found: Remote) -> Path | None:
        if (found.size or 0) > limit:
            raise SourceError(
                f"{place.name} is larger than {limit / 1e9:g} GB; raise download.max_gigabytes if "
                "that is meant"
            )
        path = cache / digest(place.name, state(found))[:12] / PurePosixPath(place.name).name
        if path.is_file() and found.etag and path.stat().st_size == found.size:
            return path
        there = fetch.fetch(found, path, connections=settings.connections, retries=settings.retries)
        return path if there else None

    path = steady(place.look, bring)
    if path is None:
        raise _missing(place.name)
    if settings.sha256:
        try:
            _check(file_digest(path), settings, place.name)
        except SourceError:
            path.unlink()
            raise
    return archives.list_archive(path, limit, place.name)


def _check(found: str, settings: Download, name: str) -> None:
    if settings.sha256 and found != settings.sha256.lower():
        raise SourceError(
            f"{name} has the SHA-256 {found}, not {settings.sha256} as download.sha256 says: it is "
            "another file than meant, or was changed on its way; correct one of the two"
        )
