"""Find the images that a list names by address: https://, http:// or s3://."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from requests.utils import requote_uri

from irgen.catalog.sources import http
from irgen.catalog.sources.list_paths import find_scheme
from irgen.catalog.sources.listing import Entry
from irgen.catalog.sources.remote import Remote
from irgen.catalog.sources.remote_images import Location, look_up_all
from irgen.errors import GivenUpError, UnreachableError, UnreadableError, redact

if TYPE_CHECKING:
    from irgen.catalog.sources.s3_client import Client

S3 = ("s3", "s3a", "s3n")
WEB = ("http", "https")
SIGNING = re.compile(  # parameters that let somebody in: they are secret, and change
    r"x-(amz|goog|oss|cos|bce|obs|ms)-.*"
    r"|.*(signature|token|secret|passw|credential).*"
    r"|(.*[-_])?(sig|sign|hmac|policy|auth|jwt|expires?|expiry|exp|hdnts|hdnea)"
    r"|.*(access|api)[-_]?(key)?[-_]?(id)?|key-pair-id",
    re.IGNORECASE,
)
AZURE = re.compile("sv|ss|srt|sp|st|se|spr|sr|sip|skoid|sktid|skt|ske|sks|skv|sdd", re.IGNORECASE)

T = TypeVar("T")


def name_address(address: str) -> str:
    """Return what identifies the image at an address: the address without user, password, fragment
    and the parameters of a signature.

    >>> name_address("HTTPS://me:pw@Shop.example/a b.jpg?id=5&X-Amz-Signature=1f#top")
    'https://shop.example/a%20b.jpg?id=5'
    >>> name_address("s3a://shop/a b?.jpg")
    's3://shop/a b?.jpg'
    """
    scheme, rest = find_scheme(address), address.strip().partition("://")[2]
    if scheme in S3:
        return f"s3://{rest}"
    try:
        parts = urlsplit(requote_uri(f"{scheme}://{rest}"))
    except ValueError:  # it is no address
        return str(redact(address.strip()))
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    is_azure = any(name.lower() == "sig" for name, _ in pairs)
    kept = [
        (name, value)
        for name, value in pairs
        if not SIGNING.fullmatch(name) and not (is_azure and AZURE.fullmatch(name))
    ]
    host = parts.netloc.rpartition("@")[2].lower()
    return urlunsplit((scheme, host, parts.path, urlencode(kept), ""))


def find_images(
    addresses: Sequence[str],
    connect_web: Callable[[], http.Client],
    connect_s3: Callable[[], "Client"],
    ahead: int,
) -> list[Entry]:
    """Return the entries of the images at these addresses; `ahead` are looked at at once.

    One that cannot be had has a problem, also if its whole server or bucket is not there. Raises
    SourceError if many in a row are given up.
    """
    schemes = {find_scheme(address) for address in addresses}
    clients = {
        **({"web": connect_web()} if schemes.intersection(WEB) else {}),
        **({"s3": connect_s3()} if schemes.intersection(S3) else {}),
    }
    lost: dict[str, str] = {}
    locations = [_locate(address, clients, lost) for address in addresses]
    return look_up_all(locations, ahead) if locations else []


def _locate(address: str, clients: dict[str, Any], lost: dict[str, str]) -> Location:
    """Return how to look at an address and read it. `lost`: why a server is not there."""
    key, scheme = name_address(address), find_scheme(address)
    server = "/".join(key.split("/")[:3])
    guard = partial(_guard, lost, server)
    if not _has_server(key) or scheme not in (*S3, *WEB):
        return Location(key, partial(_refuse, scheme), partial(_refuse, scheme))
    if scheme in S3:
        from irgen.catalog.sources import s3  # boto3 takes a moment that others need not pay

        look = partial(_look_in_bucket, s3.look_at, clients["s3"], key)
        read = partial(s3.read_image, clients["s3"])
        return Location(key, partial(guard, look), partial(guard, read))
    look = partial(http.look_at, clients["web"], address.strip())
    read = partial(http.read_image, clients["web"])
    return Location(key, partial(guard, look), partial(guard, read))


def _has_server(key: str) -> bool:
    try:
        return bool(urlsplit(key).hostname)
    except ValueError:
        return False


def _look_in_bucket(look_at: Callable[..., Remote | None], client: Any, url: str) -> Remote | None:
    """Return what is at a URL, or where S3's own inventories would write it so, percent-encoded."""
    file = look_at(client, url)
    decoded = unquote(url)
    return look_at(client, decoded) if file is None and decoded != url else file


def _guard(lost: dict[str, str], server: str, call: Callable[..., T], *arguments: Any) -> T:
    """Return what the call does. If its server is not there, that is a problem of this image, and
    the server is not asked again."""
    if server in lost:
        raise UnreadableError(lost[server])
    try:
        return call(*arguments)
    except UnreachableError as error:
        kind = UnreadableError if server in lost else GivenUpError
        lost[server] = str(error)
        raise kind(str(error)) from None


def _refuse(scheme: str, *arguments: Any) -> None:
    raise UnreadableError(f"{scheme}:// is not read, or names no server; give https:// or s3://")
