"""Routes of the API, all under /v1, and those for machines that watch the service."""

import asyncio
import base64
import binascii
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, File, Form, Query, Request, Response, UploadFile

import irgen
from irgen.errors import ImageError, IndexingError
from irgen.index.metadata import ID, as_plain
from irgen.index.text_query import TextQuery
from irgen.search.calibration import Calibration
from irgen.serve.api import etags, schema
from irgen.serve.api.problems import describe_problems, make_problem
from irgen.serve.api.schema import SearchAnswer, SearchBody, SearchOptions
from irgen.serve.champion import Served
from irgen.serve.query import Hit, QueryHits, QueryInput, SearchResults
from irgen.serve.requests import get_service, run_while_connected
from irgen.serve.service import Service

SEARCH_PROBLEMS = describe_problems(400, 401, 408, 413, 422, 429, 503, 504)
ITEM_PROBLEMS = describe_problems(400, 401, 404, 422, 503)
UNCHANGED: dict[int | str, dict[str, Any]] = {
    304: {"description": "It is as If-None-Match has it."}
}
BYTES = {"schema": {"type": "string", "format": "binary"}}
api = APIRouter(prefix="/v1")
watch = APIRouter()


@api.post(
    "/search",
    summary="Search by images in base64, by their addresses, by ids of the index, or by words",
    responses=SEARCH_PROBLEMS,
)
async def search(body: SearchBody, request: Request) -> SearchAnswer:
    """Return the images most like each query, best first."""
    wanted = SearchOptions(**body.model_dump(exclude={"queries"}))
    work = _search(get_service(request), body.queries, wanted)
    return _format(await run_while_connected(request, work), wanted)


async def _search(
    service: Service, queries: Sequence[schema.QueryBody], wanted: SearchOptions
) -> SearchResults:
    inputs = [_read_query(number, query) for number, query in enumerate(queries)]
    pictures = iter(await service.fetch([query.url for query in queries if query.url is not None]))
    fetched = [
        value if query.url is None else replace(value, image=next(pictures))
        for value, query in zip(inputs, queries, strict=True)
    ]
    return await service.search(fetched, wanted)


@api.post("/search/upload", summary="Search by uploaded image files", responses=SEARCH_PROBLEMS)
async def upload(
    images: Annotated[list[UploadFile], File(description="One image file or several.")],
    options: Annotated[SearchOptions, Query()],
    request: Request,
    text: Annotated[
        str | None,
        Form(max_length=schema.MOST_CHARACTERS, description="Words that go with every file."),
    ] = None,
) -> SearchAnswer:
    """Return the images most like each file, or like each file together with the text, best
    first."""
    if len(images) > schema.MOST_QUERIES:
        raise ImageError(f"{len(images)} images: at most {schema.MOST_QUERIES} at once")
    inputs = [QueryInput(image=await image.read(), text=text or None) for image in images]
    work = get_service(request).search(inputs, options)
    return _format(await run_while_connected(request, work), options)


@api.get(
    "/items", summary="List the index's images, or some of them by id", responses=ITEM_PROBLEMS
)
async def items(
    request: Request,
    id: Annotated[list[str] | None, Query(description="Ids of images.")] = None,
    filter: Annotated[str | None, Query(max_length=schema.MOST_CHARACTERS)] = None,
    words: Annotated[str | None, Query(max_length=schema.MOST_CHARACTERS)] = None,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> schema.ItemsAnswer:
    """Return id and metadata of a page of images; with words, the best match first."""
    service = get_service(request)
    total, page = await asyncio.to_thread(
        service.items.list, ids=id or (), filter=filter, words=words, offset=offset, limit=limit
    )
    listed = [
        schema.ItemBody(
            id=(name := item.pop(ID)), metadata=as_plain(item), thumbnail=thumbnail_path(name)
        )
        for item in page
    ]
    following = offset + len(page)
    return schema.ItemsAnswer(
        total=total, items=listed, next_offset=following if following < total else None
    )


@api.get(
    "/thumbnail",
    summary="A small picture of an image of the index",
    response_class=Response,
    responses=ITEM_PROBLEMS
    | UNCHANGED
    | {200: {"content": {"image/jpeg": BYTES, "image/png": BYTES}}},
)
async def thumbnail(id: str, request: Request) -> Response:
    """Return a JPEG, or a PNG of a tiny image."""
    items = get_service(request).items
    item = await items.find(id)
    headers = etags.make_headers(item.get("sha256"), "small")
    if (unchanged := etags.find_unchanged(request, headers)) is not None:
        return unchanged
    kind, content = await items.draw(item)
    return Response(content, media_type=kind, headers=headers)


@api.get(
    "/picture",
    summary="The file of an image of the index",
    response_class=Response,
    responses=ITEM_PROBLEMS | UNCHANGED | {200: {"content": {"application/octet-stream": BYTES}}},
)
async def picture(id: str, request: Request) -> Response:
    """Return the bytes as they are, to be saved and not shown."""
    items = get_service(request).items
    item = await items.find(id)
    headers = etags.make_headers(item.get("sha256"), "file")
    if (unchanged := etags.find_unchanged(request, headers)) is not None:
        return unchanged
    headers |= {"Content-Disposition": "attachment"}
    content = await items.read_picture(item)
    return Response(content, media_type="application/octet-stream", headers=headers)


@api.get("/info", summary="The served index", responses=describe_problems(401, 503))
async def info(request: Request) -> schema.InfoAnswer:
    """Describe the index, its metadata columns and the options it is searched with."""
    service = get_service(request)
    served = service.champion.require()
    await asyncio.to_thread(served.index.refresh)
    options = asdict(served.index.options(10))
    for name in ("allow", "words", "trust_copies"):
        del options[name]  # of one search
    return schema.InfoAnswer(
        version=irgen.__version__,
        index=describe_index(served),
        columns={name: str(kind) for name, kind in served.index.view.schema.items()},
        options=options,
        calibrated=isinstance(served.index.calibration, Calibration),
        text_method=served.index.text_method,
        problem=service.problem,
    )


@watch.get("/healthz", summary="The process answers")
async def health() -> dict[str, str]:
    """Return 200 as long as the process runs."""
    return {"status": "ok"}


@watch.get("/readyz", summary="An index is open and answers", responses=describe_problems(503))
async def ready(request: Request) -> Response:
    """Return 200 if searches are answered, else 503 with the reason."""
    service = get_service(request)
    if service.champion.served is None:
        return make_problem(503, service.problem or "the index is being opened")
    return Response('{"status": "ready"}', media_type="application/json")


@watch.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """Return requests, times, batches, scores and the state of the index."""
    content = get_service(request).measurements.text()
    return Response(content, media_type="text/plain; version=0.0.4; charset=utf-8")


def _read_query(number: int, body: schema.QueryBody) -> QueryInput:
    """Return a query; its image is missing if it is given by its address."""
    sources = sum(value is not None for value in (body.image, body.url, body.id))
    if sources > 1 or (not sources and body.text is None) or (body.id and body.text):
        raise IndexingError(
            f"query {number}: give one of image, url, id and text, or an image or url with text"
        )
    if body.image is None:
        return QueryInput(id=body.id, text=body.text)
    try:
        content = base64.b64decode(body.image.rpartition(",")[2], validate=True)
    except (binascii.Error, ValueError):
        raise ImageError(f"query {number}: image is not base64 of a file") from None
    return QueryInput(image=content, text=body.text)


def _format(results: SearchResults, wanted: SearchOptions) -> SearchAnswer:
    timing = results.timings[0]
    return SearchAnswer(
        index=describe_index(results.served),
        milliseconds=schema.TimesBody(
            decode=results.decode_seconds * 1e3,
            queue=timing.queued * 1e3,
            search=timing.worked * 1e3,
            batch=timing.batch,
        ),
        results=[_format_result(query, wanted) for query in results.queries],
    )


def _format_result(query: QueryHits, wanted: SearchOptions) -> schema.ResultBody:
    """Return one page of the hits of a query, which were searched up to its end."""
    hits, end = query.hits, wanted.offset + wanted.k
    is_full = len(hits) == end and end + wanted.k <= schema.MOST_HITS
    return schema.ResultBody(
        hits=[_format_hit(hit) for hit in hits[wanted.offset :]],
        next_offset=end if is_full else None,
        untaught=query.untaught,
        text=None if query.text is None else _format_text(query.text),
    )


def _format_text(text: TextQuery) -> schema.TextBody:
    return schema.TextBody(
        unknown_words=list(text.unknown), read_as=dict(text.forms), full_text=text.is_full_text
    )


def _format_hit(hit: Hit) -> schema.HitBody:
    fields = vars(hit) | {"code": list(hit.code), "metadata": as_plain(hit.metadata)}
    return schema.HitBody(**fields, thumbnail=thumbnail_path(hit.id))


def describe_index(served: Served) -> schema.IndexBody:
    """Return name, release and size of an index."""
    return schema.IndexBody(name=served.name, release=served.version, images=len(served.index))


def thumbnail_path(name: str) -> str:
    """Return the address of an image's thumbnail, without the host."""
    return f"/v1/thumbnail?id={quote(name, safe='')}"
