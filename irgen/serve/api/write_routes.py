"""Routes of the API that change the index."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated

from fastapi import APIRouter, Depends, File, Form, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError

from irgen.errors import ImageError, IndexingError
from irgen.serve.api import schema
from irgen.serve.api.problems import describe_problems
from irgen.serve.api.schema import ChangeAnswer, NewItemBody
from irgen.serve.content.writer import NewImage, Writer
from irgen.serve.requests import get_writer, run_while_connected

REMOVE_PROBLEMS = describe_problems(400, 401, 403, 404, 422, 429, 503, 507)
ADD_PROBLEMS = describe_problems(400, 401, 403, 408, 409, 413, 422, 429, 503, 507)
writes = APIRouter(prefix="/v1")


@writes.post("/items", summary="Add images, or replace them", responses=ADD_PROBLEMS)
async def add_items(
    request: Request,
    writer: Annotated[Writer, Depends(get_writer)],
    images: Annotated[list[UploadFile], File(description="One image file or several.")],
    items: Annotated[
        str | None,
        Form(
            description="A JSON list with one entry for each file, in their order: `id` (default: "
            "the name of the file) and `metadata`, values by the names of the index's columns. "
            "path, sha256, width and height are filled in.",
            examples=[schema.EXAMPLE_ITEMS],
            json_schema_extra={"contentMediaType": "application/json"},
        ),
    ] = None,
    upsert: Annotated[
        bool, Query(description="Replace images that have the same id, with their metadata.")
    ] = False,
) -> ChangeAnswer:
    """Add all images, or none and say why. When this answers, they are on the disk, and every
    search that begins afterwards finds them."""
    if len(images) > schema.MOST_QUERIES:
        raise ImageError(f"{len(images)} images: at most {schema.MOST_QUERIES} at once")
    new = await _read_images(images, None if items is None else _parse_items(items))
    changed = await run_while_connected(request, writer.add(new, replace=upsert))
    ids = [image.id for image in new]
    return ChangeAnswer(ids=ids, replaced=changed.replaced, images=changed.images)


@writes.delete("/items", summary="Remove images", responses=REMOVE_PROBLEMS)
async def remove_items(
    request: Request,
    writer: Annotated[Writer, Depends(get_writer)],
    id: Annotated[
        list[str],
        Query(min_length=1, max_length=schema.MOST_REMOVED, examples=[["shirts/0042.jpg"]]),
    ],
) -> ChangeAnswer:
    """Remove all images, or none and say why. When this answers, no search that begins afterwards
    finds them."""
    changed = await run_while_connected(request, writer.remove(id))
    return ChangeAnswer(ids=id, replaced=0, images=changed.images)


def _parse_items(text: str) -> list[NewItemBody]:
    """Return the entries of a JSON list. Raise RequestValidationError if they are not valid."""
    try:
        return TypeAdapter(list[NewItemBody]).validate_json(text)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False)
        located = [item | {"loc": ("body", "items", *item["loc"])} for item in errors]
        raise RequestValidationError(located) from None


async def _read_images(
    files: Sequence[UploadFile], items: Sequence[NewItemBody] | None
) -> list[NewImage]:
    """Return the uploaded files with what ``items`` says of them. Raise IndexingError if it has not
    one entry for each."""
    rows = [NewItemBody() for _ in files] if items is None else items
    if len(rows) != len(files):
        raise IndexingError(f"items has {len(rows)} entries for {len(files)} images")
    return [
        NewImage(
            id=row.id or file.filename or "",
            content=await file.read(),
            path=clean_path(file.filename or ""),
            metadata=row.metadata,
        )
        for file, row in zip(files, rows, strict=True)
    ]


def clean_path(name: str) -> str:
    """Return the name of a client's file, without folders if it leads out of a folder: pictures
    are looked for below the project's.

    >>> clean_path("shirts/1.jpg"), clean_path("/dev/zero"), clean_path("a/../../b.jpg")
    ('shirts/1.jpg', 'zero', 'b.jpg')
    """
    path = PurePosixPath(name)
    return path.name if path.is_absolute() or ".." in path.parts else str(path)
