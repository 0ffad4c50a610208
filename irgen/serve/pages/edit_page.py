"""Show the forms that add an image to the catalogue and remove one, and do what they ask."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import polars as pl
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.datastructures import UploadFile

from irgen.errors import IdTakenError, ImageError
from irgen.index.decoded_image import FILE_COLUMNS
from irgen.serve.api.problems import describe_error
from irgen.serve.api.write_routes import clean_path
from irgen.serve.content.writer import NewImage
from irgen.serve.pages.page import keep_upload, read_upload
from irgen.serve.pages.rendering import fill, render
from irgen.serve.requests import get_service, get_writer, run_while_connected
from irgen.serve.service import Service

PREFIX = "m."  # of the fields' names, before that of the column
TAKEN = "an image of the catalogue has this id: give another one, or tick the box to replace it"
edits = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class Field:
    """A field of the form for one metadata column: the type of its input, and values to propose."""

    column: str
    kind: str
    choices: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return its name in the form."""
        return PREFIX + self.column


def list_fields(service: Service) -> list[Field]:
    """Return a field for each column that people fill in; lists and structs have none."""
    served = service.champion.served
    if served is None:
        return []
    choices = {facet.column: facet.choices for facet in service.items.list_facets()}
    return [
        Field(name, _input_type(kind), choices.get(name, ()))
        for name, kind in served.index.schema.items()
        if name not in FILE_COLUMNS and not kind.is_nested()
    ]


def _input_type(kind: pl.DataType) -> str:
    if kind.is_numeric():
        return "number"
    if isinstance(kind, pl.Datetime):
        return "datetime-local"
    return {pl.Boolean: "boolean", pl.Date: "date", pl.Time: "time"}.get(type(kind), "text")


@edits.get("/add")
async def show_addition(request: Request, q: str = "") -> Response:
    """Show the form that adds an image; ``q``: a picture that was uploaded."""

    async def load() -> dict[str, Any]:
        get_writer(request)
        return {"fields": await asyncio.to_thread(list_fields, get_service(request))}

    return await render(request, "add.html", load(), values={"q": q})


@edits.post("/add")
async def add(request: Request) -> Response:
    """Add the image of the form and show it; if that fails, show the form and the reason."""
    service, values = get_service(request), await _read_form(request)
    try:
        await _put(request, values)
    except Exception as error:
        status, problem = describe_error(error)
        problem = TAKEN if isinstance(error, IdTakenError) else problem
        fields = await asyncio.to_thread(list_fields, service)
        shown = {"problem": problem, "fields": fields, "values": values}
        return await asyncio.to_thread(fill, request, "add.html", status, shown)
    done = "replaced" if "upsert" in values else "added"
    return RedirectResponse("/?" + urlencode({"id": values["id"], "done": done}), 303)


async def _read_form(request: Request) -> dict[str, str]:
    """Return the texts of the form. A file is kept for a while, as a picture that is searched with:
    ``q`` is its name, so that nobody has to choose it again; its own name is the default id."""
    async with request.form() as form:
        values = {name: value.strip() for name, value in form.items() if isinstance(value, str)}
        file = form.get("image")
        if isinstance(file, UploadFile) and file.filename:
            values["q"] = await keep_upload(get_service(request), await file.read())
            values["id"] = values.get("id") or clean_path(file.filename)
    return values


async def _put(request: Request, values: Mapping[str, str]) -> None:
    service, writer = get_service(request), get_writer(request)
    if not values.get("q"):
        raise ImageError("choose a picture")
    content = await read_upload(service, values["q"])
    metadata = {
        name.removeprefix(PREFIX): value
        for name, value in values.items()
        if name.startswith(PREFIX) and value
    }
    name = values.get("id", "")
    image = NewImage(id=name, content=content, path=clean_path(name), metadata=metadata)
    await run_while_connected(request, writer.add([image], replace="upsert" in values))


@edits.get("/remove")
async def show_removal(request: Request, id: str) -> Response:
    """Ask whether an image is to be removed."""

    async def load() -> dict[str, Any]:
        get_writer(request)
        await get_service(request).items.find(id)
        return {"exists": True}

    return await render(request, "remove.html", load(), id=id)


@edits.post("/remove")
async def remove(request: Request) -> Response:
    """Remove an image from the catalogue; if that fails, say why."""
    name = (await _read_form(request)).get("id", "")
    try:
        await run_while_connected(request, get_writer(request).remove([name]))
    except Exception as error:
        status, problem = describe_error(error)
        shown = {"problem": problem, "id": name}
        return await asyncio.to_thread(fill, request, "remove.html", status, shown)
    return RedirectResponse("/catalogue?done=removed", 303)
