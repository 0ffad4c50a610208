"""Open the source of images, `download.source` of `params.yaml`.

To add a kind of source, write a function that returns a `Listing` in a module of its own, and give
it its line in `_open_local` or `_open_url`. The kinds are: `arrays.py` (digits, CIFAR), `local.py`,
`archive.py`, `image_list.py`, `bucket.py` (S3), and `http.py` for what is on a web server.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from irgen.catalog.sources import archive, arrays, image_list, local, transfer
from irgen.catalog.sources.listing import Entry, Listing, Source
from irgen.catalog.sources.remote import Remote, use_present
from irgen.catalog.sources.remote_images import unpack_gzip
from irgen.errors import SourceError
from irgen.files.digests import digest, file_digest
from irgen.params import Download

if TYPE_CHECKING:
    from irgen.catalog.sources.s3_client import Client

CACHE = Path(".cache", "download")
FILES = "an archive (.tar, .tar.gz, .tar.xz, .tar.bz2, .zip) or a list (.csv, .tsv, .txt, .parquet)"
ALLOWED = f"'digits', a folder, {FILES}, here or at a URL"


def open_source(settings: Download, cache: Path = CACHE) -> Source:
    """Return the source that `download.source` names; archives at URLs are fetched into `cache`.

    Raises SourceError if it is missing or of no known kind. Its content is checked on `load`.
    """
    if "://" in settings.source:
        return replace(_open_url(settings, cache), types=settings.columns)
    if settings.sha256:
        raise SourceError(
            f"download: sha256: {settings.source!r} is no URL; only an archive or list that comes "
            "from elsewhere is checked: set sha256 to ''"
        )
    return replace(_open_local(settings), types=settings.columns)


def _open_local(settings: Download) -> Source:
    name = settings.source
    if name == "digits":
        return Source(name=name, stamp=None, load=arrays.list_digits)
    path = Path(name).expanduser()
    try:
        status = path.stat()
    except OSError as error:
        raise SourceError(
            f"download: source: {name!r} cannot be read ({error.strerror}); give {ALLOWED}"
        ) from None
    stamp: str | None = None
    load: Callable[[], Listing]
    if path.is_dir():
        version = arrays.find_cifar(path)
        list_folder = partial(local.list_folder, path, settings.ignore)
        load = partial(arrays.list_cifar, path, version) if version else list_folder
    elif path.name.lower().endswith(image_list.ENDINGS):
        find_addresses, ahead = partial(_find_images, settings), settings.connections
        load = partial(image_list.list_file, path, find_addresses, ahead, settings.outside)
    elif path.name.lower().endswith(archive.ENDINGS):
        stamp = f"{path.resolve()}-{status.st_size}-{status.st_mtime_ns}"
        load = partial(_list_archive, settings, path, name)
    else:
        raise _refuse_kind(name, f"is of no known kind; give {ALLOWED}")
    return Source(name=name, stamp=stamp, load=load)


@dataclass(frozen=True, kw_only=True)
class File:
    """A file at a URL. `name`: the URL without secrets; `look`: returns the file as it is now;
    `list_named`: lists the images that an image list with this content names."""

    name: str
    look: Callable[[], Remote | None]
    list_named: Callable[[bytes], Listing]

    def read_state(self) -> str | None:
        """Return a value that changes with the file. Raises SourceError if there is no file."""
        file = self.look()
        if file is None:
            raise self.missing()
        return file.state

    def missing(self) -> SourceError:
        """Return the error for a file that is not there."""
        return SourceError(f"{self.name} is not there; check download.source and download.endpoint")


def _open_url(settings: Download, cache: Path) -> Source:
    """Return the source at a URL: a bucket's prefix, or an archive or list on S3 or a web server.

    The stamp of an archive is its state, or download.sha256 if that is set; that of a list on a web
    server is its state, so images that change while their list does not are not noticed; a bucket
    is always listed.
    """
    scheme = settings.source.partition("://")[0].lower()
    if scheme not in ("s3", "http", "https"):
        raise SourceError(
            f"download: source: {settings.source!r} is not supported here; give a URL with s3://, "
            "http:// or https://"
        )
    file = _file_on_s3(settings) if scheme == "s3" else _file_on_web(settings)
    if file.name.lower().endswith(image_list.ENDINGS):
        stamp = None if scheme == "s3" else file.read_state()
        load = partial(_load_list, settings, file)
        return Source(name=file.name, stamp=stamp, load=load, retried=True)
    if file.name.lower().endswith(archive.ENDINGS):
        stamp = settings.sha256.lower() or file.read_state()
        load = partial(_load_archive, settings, file, cache)
        return Source(name=file.name, stamp=stamp, load=load)
    if scheme != "s3":
        raise _refuse_kind(file.name, f"a web server cannot be listed; give the URL of {FILES}")
    return _open_prefix(settings)


def _refuse_kind(name: str, reason: str) -> SourceError:
    """Return the error for a source of no kind that is read; for an archive with its remedy."""
    for ending, command in archive.UNPACKERS.items():
        if name.lower().endswith(ending):
            file = PurePosixPath(name).name
            reason = f"such archives are not read; unpack it ({command} {file}), give the folder"
    return SourceError(f"download: source: {name}: {reason}")


def _list_archive(settings: Download, path: Path, name: str) -> Listing:
    return archive.list_archive(
        path,
        _byte_limit(settings),
        name,
        ignore=settings.ignore,
        name_encoding=settings.name_encoding,
    )


def _connect_s3(settings: Download) -> "Client":
    from irgen.catalog.sources.s3_client import connect  # boto3 takes a moment: only S3 pays it

    return connect(
        settings.endpoint,
        requester_pays=settings.requester_pays,
        customer_key=settings.customer_key,
        connections=settings.connections,
        retries=settings.retries,
    )


def _file_on_s3(settings: Download) -> File:
    from irgen.catalog.sources import bucket, s3

    client, url = _connect_s3(settings), settings.source
    s3.split_url(url)
    find_addresses, ahead = partial(_find_images, settings), settings.connections
    list_named = partial(bucket.list_named, client, url, find_addresses=find_addresses, ahead=ahead)
    return File(name=url, look=partial(s3.look_at, client, url), list_named=list_named)


def _file_on_web(settings: Download) -> File:
    from irgen.catalog.sources import http

    client, url = http.connect(settings.connections, settings.retries), settings.source
    look = partial(http.look_at, client, url)
    find_addresses, ahead = partial(_find_images, settings), settings.connections
    list_named = partial(http.list_named, client, url, find_addresses=find_addresses, ahead=ahead)
    return File(name=http.hide_secrets(url), look=look, list_named=list_named)


def _find_images(settings: Download, addresses: Sequence[str]) -> list[Entry]:
    """Return the entries of the images that a list names by address."""
    from irgen.catalog.sources import http
    from irgen.catalog.sources.addresses import find_images

    connect_web = partial(http.connect, settings.connections, settings.retries)
    connect_s3 = partial(_connect_s3, settings)
    return find_images(addresses, connect_web, connect_s3, settings.connections)


def _open_prefix(settings: Download) -> Source:
    from irgen.catalog.sources import bucket

    url = settings.source
    if settings.sha256:
        raise SourceError(
            f"download: sha256: {url} is not one file; give the URL of {FILES}, or sha256: ''"
        )
    load = partial(
        bucket.list_bucket, _connect_s3(settings), url, settings.connections, settings.ignore
    )
    return Source(name=url, stamp=None, load=load)


def _load_list(settings: Download, file: File) -> Listing:
    content = use_present(file.look, lambda state: transfer.read(state, settings.retries).content)
    if content is None:
        raise file.missing()
    content = unpack_gzip(content, file.name)
    _check_digest(hashlib.sha256(content).hexdigest(), settings, file.name)
    return file.list_named(content)


def _load_archive(settings: Download, file: File, cache: Path) -> Listing:
    limit = _byte_limit(settings)

    def fetch(state: Remote) -> Path:
        if (state.size or 0) > limit:
            raise SourceError(
                f"{file.name} is larger than {limit / 1e9:g} GB; raise download.max_gigabytes if "
                "that is meant"
            )
        folder = cache / digest(file.name, state.state)[:12]
        path = folder / PurePosixPath(file.name).name
        if not (path.is_file() and state.etag and path.stat().st_size == state.size):
            transfer.fetch(state, path, connections=settings.connections, retries=settings.retries)
        return path

    path = use_present(file.look, fetch)
    if path is None:
        raise file.missing()
    if settings.sha256:
        try:
            _check_digest(file_digest(path), settings, file.name)
        except SourceError:
            path.unlink()
            raise
    return _list_archive(settings, path, file.name)


def _byte_limit(settings: Download) -> int:
    return int(settings.max_gigabytes * 1e9)


def _check_digest(actual: str, settings: Download, name: str) -> None:
    if settings.sha256 and actual != settings.sha256.lower():
        raise SourceError(
            f"{name} has the SHA-256 {actual}, not {settings.sha256} as download.sha256 says: it "
            "is another file than meant, or was changed on its way; correct one of the two"
        )
