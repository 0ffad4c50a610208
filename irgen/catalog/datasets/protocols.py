"""Protocols: which part of a data set is trained on, searched, and used as queries, as data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from irgen.errors import CatalogError

GALLERY = "gallery"  # a role of this stage alone: searched, and not trained on


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """`roles` of the publisher's parts (None: drawn from each label), and the roles that make up
    the `database` (none: those of catalog.database).

    `classes`: classes up to this number are the part train, the others the part test; 0: as
    published. `every`: use every so many-th query, in the order of ids, starting with the first.
    `disjoint`: no label has both training images and queries.
    """

    says: str
    roles: Mapping[str, str | None]
    database: tuple[str, ...] = ()
    classes: int = 0
    every: int = 1
    disjoint: bool = False

    @property
    def draws(self) -> bool:
        """Tell whether queries are drawn where the source names none."""
        return not self.roles or None in self.roles.values()


GIVEN = Protocol(says="the source's own train and test images", roles={})
TRAINED = ("train", "validation")
DRAWN = Protocol(
    says="queries are drawn from each label; all other images are the database",
    roles={"background": None, "evaluation": None},
    database=TRAINED,
)
SAME = Protocol(
    says="same classes on both sides: test images search the training images",
    roles={"train": "train", "test": "query", "val": "query"},
    database=TRAINED,
)
UNSEEN = Protocol(
    says="unseen classes: each test image searches all other test images; none of their classes "
    "is trained on",
    roles={"train": "train", "test": "query"},
    database=("query",),
    disjoint=True,
)
CUB200 = Protocol(
    says="unseen classes: each image of the last 100 classes searches all others of them; the "
    "first 100 are trained on",
    roles=UNSEEN.roles,
    database=UNSEEN.database,
    disjoint=True,
    classes=100,
)
CARS196 = Protocol(
    says="unseen classes: each image of the last 98 classes searches all others of them; the "
    "first 98 are trained on",
    roles=UNSEEN.roles,
    database=UNSEEN.database,
    disjoint=True,
    classes=98,
)
INSHOP = Protocol(
    says="queries search the gallery; none of their identities is trained on",
    roles={"train": "train", GALLERY: GALLERY, "query": "query"},
    database=(GALLERY,),
    disjoint=True,
)
INSHOP_IRGEN = Protocol(
    says="the database is the training set, and the gallery, with the queries' identities, is part "
    "of it",
    roles={"train": "train", GALLERY: "train", "query": "query"},
    database=TRAINED,
)
IMAGENET_IRGEN = Protocol(
    says="every tenth validation image searches the training images",
    roles={"train": "train", "val": "query"},
    database=TRAINED,
    every=10,
)
OMNIGLOT = Protocol(
    says="unseen alphabets: each drawing of the evaluation set searches all others of it; the "
    "background set is trained on",
    roles={"background": "train", "evaluation": "query"},
    database=("query",),
    disjoint=True,
)

# given: as the publisher splits the set. irgen: as the paper does (ECCV 2024, arXiv 2303.10126, and
# its code): the database is the training set. standard: that of metric learning, with unseen
# classes (Liu et al. 2016 for In-shop; Song et al. 2016 for CUB, Cars and Products).
PROTOCOLS: dict[str, dict[str, Protocol]] = {
    "folders": {"given": GIVEN},
    "images": {"given": GIVEN},
    "list": {"given": GIVEN},
    "inshop": {"given": INSHOP, "irgen": INSHOP_IRGEN, "standard": INSHOP},
    "cub200": {"given": SAME, "irgen": SAME, "standard": CUB200},
    "cars196": {"given": SAME, "irgen": SAME, "standard": CARS196},
    "imagenet": {"given": SAME, "irgen": IMAGENET_IRGEN},
    "places365": {"given": SAME, "irgen": SAME},
    "products": {"given": UNSEEN, "standard": UNSEEN},
    "omniglot": {"given": DRAWN, "standard": OMNIGLOT},
}


def choose_protocol(source_format: str, name: str) -> Protocol:
    """Return the protocol `name` of a format. Raises CatalogError if there is none."""
    protocols = PROTOCOLS[source_format]
    if name not in protocols:
        raise CatalogError(
            f"params.yaml: catalog: protocol: {name!r} is not defined for the format "
            f"{source_format!r}; allowed: {', '.join(protocols)}"
        )
    return protocols[name]


def describe_split(protocol: Protocol, roles: pl.Series, query_fraction: float) -> str:
    """Return where the queries come from; `roles` (N,): of the source, null where it names none.

    >>> describe_split(GIVEN, pl.Series([None, None], dtype=pl.String), 0.2)
    'no train and test folders found: 20 % of the images measure quality'
    """
    if protocol.roles or not roles.null_count():
        return protocol.says
    share = f"{query_fraction * 100:g} %"
    if roles.null_count() == len(roles):
        return f"no train and test folders found: {share} of the images measure quality"
    return f"{protocol.says}; {share} of images without a role measure quality"


def describe_protocol(record: Mapping[str, Any]) -> str:
    """Return the protocol of a catalogue's `protocol.json` in one line.

    >>> describe_protocol({"protocol": "given", "format": "list", "says": "roles as given"})
    'given (list): roles as given'
    """
    return f"{record['protocol']} ({record['format']}): {record['says']}"


def apply_protocol(images: pl.DataFrame, protocol: Protocol) -> pl.DataFrame:
    """Return `images` (id, part, number, role …) with the protocol's roles, without unused queries
    and `number`; unchanged if it has no roles. Images of no part have no role.

    >>> images = pl.DataFrame({"id": ["a", "b", "c"], "part": ["val", "val", "train"],
    ...                        "number": [None, None, None]})
    >>> apply_protocol(images, IMAGENET_IRGEN).select("id", "role").rows()
    [('a', 'query'), ('c', 'train')]
    """
    if not protocol.roles:
        return images
    part = pl.col("part")
    if protocol.classes:
        trained = pl.col("number") <= protocol.classes
        part = pl.when(trained).then(pl.lit("train")).when(~trained).then(pl.lit("test"))
    role = part.replace_strict(protocol.roles, default=None, return_dtype=pl.String)
    is_query = pl.col("role") == "query"
    is_used = (is_query.cum_sum() - 1) % protocol.every == 0
    images = images.with_columns(role.alias("role")).sort("id")
    return images.filter(is_query.not_().fill_null(True) | is_used).drop("number")
