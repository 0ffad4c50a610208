"""Fields of requests and answers, as the API's description shows them."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

MOST_REMOVED = 1000  # ids of one request
MOST_HITS, MOST_QUERIES, MOST_CHARACTERS = 1000, 32, 4000  # of a filter or an address
EXAMPLE_HIT: dict[str, Any] = {
    "id": "shirts/0042.jpg",
    "score": 0.913,
    "cosine": 0.921,
    "log_probability": -1.4,
    "same_label": 0.88,
    "probability": 0.41,
    "by_embedding": False,
    "code": [17, 203, 8, 90],
    "metadata": {"label": "shirts", "path": "shirts/0042.jpg", "price": 29.9},
    "thumbnail": "/v1/thumbnail?id=shirts%2F0042.jpg",
}


EXAMPLE_ITEMS = '[{"id": "shirts/0043.jpg", "metadata": {"label": "shirts", "price": 29.9}}]'


class Model(BaseModel):
    """Strict fields: an unknown one is an error, as is a number that is not finite."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class SearchOptions(Model):
    """Options of a search, as those of ``irgen search``. What is left out is the index's own."""

    k: Annotated[int, Field(ge=1, le=MOST_HITS, description="Images to find per query.")] = 10
    offset: Annotated[
        int, Field(ge=0, le=MOST_HITS, description="Hits to leave out: for the next page.")
    ] = 0
    beams: Annotated[
        int | None,
        Field(ge=1, le=1000, description="Code sequences kept: more find more, and take longer."),
    ] = None
    candidates: Annotated[
        int | None, Field(ge=1, le=10_000, description="Most images to collect and re-rank.")
    ] = None
    fresh_beams: Annotated[
        int | None, Field(ge=0, le=1000, description="Beams towards images added after training.")
    ] = None
    rerank: Annotated[
        bool | None, Field(description="False: keep the retriever's order, not the cosine's.")
    ] = None
    hedge: Annotated[
        float | None,
        Field(
            ge=0,
            le=1000,
            description="How much one good hit among the first ten is worth, in tens of good hits. "
            "The larger it is, the more of the other labels that the query may have are there.",
        ),
    ] = None
    distinct: Annotated[
        float | None,
        Field(ge=-1, le=1, description="Hide an image with this cosine to a better hit."),
    ] = None
    filter: Annotated[
        str | None,
        Field(
            max_length=MOST_CHARACTERS,
            description="Find only images that match an SQL expression over id and metadata.",
            examples=["label = 'shirts' AND price < 30"],
        ),
    ] = None
    words: Annotated[
        str | None,
        Field(
            max_length=MOST_CHARACTERS,
            description="A filter: find only images with all of these words in their id or text "
            "columns.",
            examples=["red dress"],
        ),
    ] = None
    min_score: Annotated[float | None, Field(description="Drop hits with a lower score.")] = None
    min_probability: Annotated[
        float | None,
        Field(ge=0, le=1, description="Drop hits less likely to have the query's label."),
    ] = None


class QueryBody(Model):
    """One query: an image file in base64, its address, the id of an image of the index, or a text;
    or a file or an address together with a text."""

    image: Annotated[str | None, Field(description="An image file in base64.")] = None
    id: Annotated[
        str | None,
        Field(max_length=MOST_CHARACTERS, description="The id of an image of the index."),
    ] = None
    url: Annotated[
        str | None,
        Field(
            max_length=MOST_CHARACTERS,
            description="The http or https address of an image file on the public internet, if "
            "the service runs with --fetch.",
        ),
    ] = None
    text: Annotated[
        str | None,
        Field(
            max_length=MOST_CHARACTERS,
            description="Words that say what to look for. With image or url: both together, if the "
            "index has a text encoder (text_method of /v1/info).",
            examples=["green apple"],
        ),
    ] = None


class SearchBody(SearchOptions):
    """Queries and the options that hold for all of them."""

    queries: Annotated[list[QueryBody], Field(min_length=1, max_length=MOST_QUERIES)]
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"queries": [{"id": "shirts/0042.jpg"}], "k": 5},
                {"queries": [{"text": "red shirt"}], "k": 5},
            ]
        },
    )


class HitBody(BaseModel):
    """One image that was found."""

    id: str
    score: Annotated[float, Field(description="Hits are sorted by it.")]
    cosine: Annotated[float | None, Field(description="Cosine of the two embeddings.")]
    log_probability: Annotated[
        float | None, Field(description="Natural logarithm, among all codes there could be.")
    ]
    same_label: Annotated[
        float | None,
        Field(description="Calibrated probability that it has the query's label."),
    ]
    probability: Annotated[
        float | None, Field(description="Probability of its code; null if found by embedding.")
    ]
    by_embedding: Annotated[
        bool, Field(description="The embedding led to it, not a code that was predicted.")
    ]
    code: list[int]
    metadata: dict[str, Any]
    thumbnail: Annotated[str, Field(description="Address of a small picture of it.")]
    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_HIT]})


class TextBody(BaseModel):
    """Reading of a query in words."""

    unknown_words: Annotated[
        list[str], Field(description="No image's texts have them: they were left out.")
    ]
    read_as: Annotated[
        dict[str, str],
        Field(
            description="Words that no image's texts have, and the forms of them that were read."
        ),
    ]
    full_text: Annotated[
        bool,
        Field(
            description="Full-text search answered: the index has no text encoder, or it has not "
            "learned all of the words. A score says how well texts match (BM25)."
        ),
    ]


class ResultBody(BaseModel):
    """Hits of one query, best first. ``next_offset``: of the next page; null at the end. ``text``:
    null if the query is not in words."""

    hits: list[HitBody]
    next_offset: int | None
    untaught: Annotated[
        float | None,
        Field(
            description="Probability that the query has none of the labels that were taught, so "
            "that its nearest images come first; null where labels do not rank."
        ),
    ]
    text: TextBody | None


class IndexBody(BaseModel):
    """Index that answered."""

    name: str
    release: int | None
    images: int


class TimesBody(BaseModel):
    """Milliseconds that parts of an answer took, and how many queries were answered together."""

    decode: float
    queue: float
    search: float
    batch: int


class SearchAnswer(BaseModel):
    """Results of all queries, in their order."""

    index: IndexBody
    milliseconds: TimesBody
    results: list[ResultBody]


class ItemBody(BaseModel):
    """One image of the index."""

    id: str
    metadata: dict[str, Any]
    thumbnail: str


class ItemsAnswer(BaseModel):
    """A page of the index's images, by row. ``next_offset``: of the next page; null at the end."""

    total: int
    items: list[ItemBody]
    next_offset: int | None


class NewItemBody(Model):
    """Id and metadata of an image to add; without an id, it is the name of its file."""

    id: Annotated[str | None, Field(min_length=1, max_length=MOST_CHARACTERS)] = None
    metadata: dict[str, Any] = {}


class ChangeAnswer(BaseModel):
    """A change that is on the disk: ids that were added or removed, how many of them replaced an
    image, and how many images the index has now."""

    ids: list[str]
    replaced: int
    images: int
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"ids": ["shirts/0043.jpg"], "replaced": 0, "images": 41}]}
    )


class InfoAnswer(BaseModel):
    """Description of the served index: see ``irgen info``."""

    version: Annotated[str, Field(description="Of irgen.")]
    index: IndexBody
    columns: dict[str, str]
    options: dict[str, Any]
    calibrated: bool
    text_method: Annotated[
        str | None, Field(description="What answers queries in words; null: nothing does.")
    ]
    problem: Annotated[
        str | None, Field(description="Why a newer release cannot be opened, if it is so.")
    ]
