"""Show the page for people: search by a picture or words, browse, and see why an image was found.

Every view has an address of its own, so it can be shared, reloaded and gone back to. It works
without JavaScript; ``static/page.js`` adds dropping, pasting and sliders that show their value.
"""

import asyncio
import hashlib
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Query, Request, Response, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse

from irgen.index.index import Index
from irgen.index.metadata import OURS, as_plain
from irgen.index.networks import QueryImage
from irgen.search.calibration import Calibration
from irgen.serve.api import etags, routes
from irgen.serve.api.schema import MOST_CHARACTERS, SearchOptions
from irgen.serve.content.facets import PREFIX
from irgen.serve.errors import NotFoundError, NotReadyError
from irgen.serve.pages import codes
from irgen.serve.pages.rendering import render
from irgen.serve.query import Method, QueryInput, SearchResults
from irgen.serve.requests import get_service, run_while_connected
from irgen.serve.service import Service

PER_PAGE = 60
STARTS = 16  # pictures to start from
UNSHOWN = {*OURS} - {"label"}
SAMPLES = 6  # pictures shown of a branch
LIKELIEST = 4  # prefixes shown of a level
DEFAULT_K = 24
METHODS: dict[str, Method] = {
    "As served": "served",
    "Retriever alone: no re-ranking": "retriever",
    "Brute force: every image compared": "brute_force",
}
page = APIRouter(include_in_schema=False)


@page.get("/")
async def start(
    request: Request,
    q: str = "",
    id: str = "",
    text: Annotated[str, Query(max_length=MOST_CHARACTERS)] = "",
    k: int = DEFAULT_K,
    beams: str = "",
    min_probability: str = "",
    words: str = "",
    filter: str = "",
    distinct: str = "",
) -> HTMLResponse:
    """Show the form and, for an uploaded picture ``q``, an image ``id``, a ``text``, or an image
    with a text, what is like it; without any, some images to start from."""
    service = get_service(request)
    fields = {
        "q": q,
        "id": id,
        "text": text.strip(),
        "k": k,
        "beams": beams,
        "min_probability": "" if min_probability == "0" else min_probability,
        "words": words,
        "filter": filter,
        "distinct": distinct,
    }
    filters = await list_filters(request)

    async def load() -> dict[str, Any]:
        service.champion.require()
        if not (q or id or fields["text"]):
            return {"samples": await asyncio.to_thread(service.items.sample, STARTS)}
        search = _search(service, fields, filters["facet_values"])
        return {"results": await run_while_connected(request, search)}

    values = filters | {"fields": fields, "fetches": service.fetches_addresses}
    if id:
        values["item"] = await describe_item(service, id)
    return await render(request, "search.html", load(), **values, **describe_search(service))


def describe_search(service: Service) -> dict[str, Any]:
    """Return what the search form shows of the index: its beams, whether it is calibrated, and what
    answers words."""
    served = service.champion.served
    if served is None:
        return {"beams": 1, "calibrated": False, "text_method": None}
    index = served.index
    return {
        "beams": index.options(1).beams,
        "calibrated": isinstance(index.calibration, Calibration),
        "text_method": index.text_method,
    }


async def describe_item(service: Service, name: str) -> dict[str, Any]:
    """Return the metadata of an image that people look at; none if it is not in the index."""
    with suppress(NotFoundError, NotReadyError):
        item = await service.items.find(name)
        shown = as_plain({column: item[column] for column in item if column not in UNSHOWN})
        return {column: value for column, value in shown.items() if value not in (None, "", [])}
    return {}


async def _search(
    service: Service, fields: dict[str, Any], facets: dict[str, str]
) -> SearchResults:
    names = ("k", "beams", "min_probability", "words", "filter", "distinct")
    wanted = SearchOptions(**{name: fields[name] for name in names if fields[name] != ""})
    upload, name, text = (fields[field] for field in ("q", "id", "text"))
    if name and not (upload or text):
        query = QueryInput(id=name)  # its picture need not be here
    else:
        image = await _read_image(service, upload, name) if upload or name else None
        query = QueryInput(image=image, text=text or None)
    return await service.search([query], wanted, facets=facets)


async def list_filters(request: Request) -> dict[str, Any]:
    """Return what the form of filters shows: the columns that a filter can name, the fields made
    from them, and the values of these in the address."""
    service, fields = get_service(request), request.query_params.items()
    served = service.champion.served
    return {
        "columns": [] if served is None else ["id", *served.index.schema],
        "facets": await asyncio.to_thread(service.items.list_facets),
        "facet_values": {
            name: value for name, value in fields if name.startswith(PREFIX) and value
        },
    }


async def read_upload(service: Service, name: str) -> bytes:
    """Return a picture by the name from ``keep_upload``. Raise NotFoundError if it has gone."""
    content = await asyncio.to_thread(service.uploads.get, name)
    if content is None:
        raise NotFoundError("that picture is no longer here: choose it again")
    return content


@page.post("/search")
async def upload(request: Request, image: Annotated[UploadFile, File()]) -> Response:
    """Keep a picture for a while and show what is like it."""
    content = await image.read()
    if not content:
        return RedirectResponse("/", 303)
    return RedirectResponse(f"/?q={await keep_upload(get_service(request), content)}", 303)


async def keep_upload(service: Service, content: bytes) -> str:
    """Keep a picture for a while; return the name that addresses call it by."""
    name = hashlib.sha256(content).hexdigest()
    await asyncio.to_thread(service.uploads.put, name, content)
    return name


@page.post("/search/address")
async def fetch(request: Request, url: Annotated[str, Form()]) -> Response:
    """Fetch the picture at an address, keep it for a while, and show what is like it."""
    service = get_service(request)
    (content,) = await service.fetch([url])
    return RedirectResponse(f"/?q={await keep_upload(service, content)}", 303)


@page.get("/upload")
async def show_upload(request: Request, q: Annotated[str, Query(min_length=1)]) -> Response:
    """Show an uploaded picture, small."""
    service = get_service(request)
    headers = etags.make_headers(q, "small")
    if (unchanged := etags.find_unchanged(request, headers)) is not None:
        return unchanged
    content = await read_upload(service, q)
    kind, small = await service.workers.thumbnail(content)
    return Response(small, media_type=kind, headers=headers)


@page.get("/catalogue")
async def catalogue(
    request: Request,
    words: Annotated[str, Query(max_length=MOST_CHARACTERS)] = "",
    filter: Annotated[str, Query(max_length=MOST_CHARACTERS)] = "",
    offset: Annotated[int, Query(ge=0)] = 0,
) -> HTMLResponse:
    """Show the images of the index, a page at a time; with ``words``, the best match first."""
    service = get_service(request)
    filters = await list_filters(request)

    async def load() -> dict[str, Any]:
        facets = filters["facet_values"]
        total, items = await asyncio.to_thread(
            service.items.list,
            filter=filter,
            facets=facets,
            words=words or None,
            offset=offset,
            limit=PER_PAGE,
        )
        return {"total": total, "items": items}

    fields = {"words": words, "filter": filter, "offset": offset, "per_page": PER_PAGE}
    return await render(request, "catalogue.html", load(), **fields, **filters)


@page.get("/codes")
async def show_codes(request: Request, prefix: str = "") -> HTMLResponse:
    """Show the branches of the code tree below a prefix, with sample pictures."""
    service = get_service(request)

    async def load() -> dict[str, Any]:
        view, codes_wanted = service.champion.require().index.view, codes.parse_prefix(prefix)
        branches = await asyncio.to_thread(codes.list_branches, view, codes_wanted, SAMPLES)
        return {"prefix": codes_wanted, "branches": branches}

    return await render(request, "codes.html", load())


@page.get("/compare")
async def compare(request: Request, q: str = "", id: str = "", k: int = 12) -> HTMLResponse:
    """Show one below the other what the served search, the retriever alone and brute force find."""
    service = get_service(request)

    async def load() -> dict[str, Any]:
        image = await _read_image(service, q, id)
        rows = [
            (title, await service.search([QueryInput(image=image)], SearchOptions(k=k), method))
            for title, method in METHODS.items()
        ]
        return {"rows": rows}

    return await render(request, "compare.html", load(), q=q, id=id)


async def _read_image(service: Service, upload: str, name: str) -> bytes:
    """Return the picture that was uploaded, or else the file of an image of the index."""
    if upload:
        return await read_upload(service, upload)
    return await service.items.read_picture(await service.items.find(name))


@page.get("/why")
async def why(
    request: Request, hit: str, q: str = "", id: str = "", text: str = ""
) -> HTMLResponse:
    """Show the prefixes that the beam search of a query keeps, level by level, and where the code
    of one hit is among them."""
    service = get_service(request)

    async def load() -> dict[str, Any]:
        index = service.champion.require().index
        query = await _read_query(service, index, q, id, text)
        (explanation,) = await asyncio.to_thread(index.explain, query, [hit])
        width = index.options(1).beams
        levels = await asyncio.to_thread(codes.trace_query, index, query, width, LIKELIEST, SAMPLES)
        return {"levels": levels, "explanation": explanation}

    return await render(request, "why.html", load(), hit=hit, q=q, id=id, text=text)


async def _read_query(
    service: Service, index: Index, upload: str, name: str, text: str
) -> QueryImage:
    """Return the pixels of a picture, or the features of words or of both together."""
    if text and not (upload or name):
        return await asyncio.to_thread(index.read_text, text)
    image = await _read_image(service, upload, name)
    pixels = await service.workers.decode(image, index.models.decoding)
    return await asyncio.to_thread(index.read_text, text, pixels) if text else pixels


@page.get("/state")
async def state(request: Request) -> HTMLResponse:
    """Show which index is served and how the service is doing."""
    service = get_service(request)

    async def load() -> dict[str, Any]:
        info, served = await routes.info(request), service.champion.require()
        try:
            facts = await asyncio.to_thread(served.index.info)
            state = await asyncio.to_thread(service.state.read, served)
        except OSError:
            raise NotFoundError(
                "the files of the served index are gone: searches are answered from memory until "
                f"the service ends; {service.problem}"
            ) from None
        return {"info": info, "facts": facts, "state": state, "problem": service.problem}

    return await render(request, "state.html", load())
