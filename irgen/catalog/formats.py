"""Read the label and role of each image from a manifest, by the format of the source.

To add a published data set, write a reader in `datasets/` and name it in SETS.
"""

from collections.abc import Callable, Iterable

import polars as pl

from irgen.catalog import manifest
from irgen.catalog.datasets import cars196, cub200, imagenet, inshop, omniglot, places365, products
from irgen.catalog.datasets.annotations import drop_annotations, find_sets
from irgen.catalog.sources.keys import ROLE_FOLDERS
from irgen.errors import CatalogError

COLUMNS = ("id", "path", "label", "role", "sha256", "revision")
NO_FOLDERS = "the images lie in no class folders (train, test and the like are none)"
MOST_STRAYS = 0.1  # share of the images that may lie where no folder gives a label
SETS = {
    "inshop": inshop.read,
    "cub200": cub200.read,
    "cars196": cars196.read,
    "imagenet": imagenet.read,
    "places365": places365.read,
    "products": products.read,
    "omniglot": omniglot.read,
}


def choose_format(table: pl.DataFrame, setting: str) -> str:
    """Return the format of a manifest: the `setting` catalog.format, or with `auto` as
    `recognise_format` does."""
    return recognise_format(table) if setting == "auto" else setting


def recognise_format(table: pl.DataFrame) -> str:
    """Return the format of a manifest.

    `list` if it has labels; a published data set by its annotation files or, Omniglot, by its
    names; `images` if no image lies in a folder, or all directly in folders of roles; else
    `folders`. Raises CatalogError if there are annotation files of several sets.
    """
    if "label" in table.columns:
        return "list"
    sets = sorted(find_sets(table["key"]))
    if len(sets) > 1:
        raise CatalogError(
            f"the source has annotation files of several sets ({', '.join(sets)}); make the "
            "folder of one the source, or set catalog.format"
        )
    if sets:
        return sets[0]
    images = manifest.images(table)
    if len(images) and images.select(omniglot.is_drawing()).to_series().all():
        return "omniglot"
    bare = len(images) and not images["key"].str.contains("/", literal=True).any()
    return "images" if bare or lie_in_roles(images["key"]) else "folders"


def read_format(
    table: pl.DataFrame, name: str, read: Callable[[str], bytes] = lambda sha256: b""
) -> pl.DataFrame:
    """Return the images of a manifest, sorted by id: columns of COLUMNS (role may be null), and an
    image list's `metadata`, or a data set's `part` and class `number`.

    Missing images are left out; past ones keep their `gone`. `name`: a key of FORMATS or SETS, as
    `recognise_format` returns it; `read` returns the bytes of an annotation file by its hash.
    Raises CatalogError for folders or lists that do not fit the format.
    """
    present = manifest.images(table)
    images = drop_annotations(present)
    if name in SETS:
        annotations = present.join(images, on="key", how="anti").select("key", "sha256")
        files = {key: read(sha256) for key, sha256 in annotations.iter_rows()}
        role = pl.lit(None, pl.String).alias("role")
        catalog = SETS[name](images, files).with_columns(role)
    else:
        catalog = FORMATS[name](images)
    label = pl.col("label").str.normalize("NFC").str.strip_chars()  # one name however it is typed
    catalog = catalog.with_columns(label)
    identity = [column for column in ("id", manifest.GONE) if column in catalog.columns]
    twice = catalog.filter(pl.struct(identity).is_duplicated())["id"]
    if len(twice):
        raise CatalogError(
            f"the list gives the id {twice[0]!r} to several images; ids are distinct"
        )
    return catalog.select(*COLUMNS, pl.exclude(COLUMNS)).sort("id")


def read_folders(images: pl.DataFrame) -> pl.DataFrame:
    """Read label/file, or role/label/file with role folders of any case: train (training, database,
    gallery), validation (val, valid), test (query, queries). The id is the path.

    A few images that lie elsewhere get no label. Raises CatalogError if many do, and if images lie
    directly in role folders alone.
    """
    keys = images["key"].to_list()
    parts = [[part for part in key.split("/") if part] for key in keys]
    if lie_in_roles(keys):
        raise CatalogError(
            f"{keys[0]} lies directly in a role's folder, so no folder gives a label; put class "
            "folders into it (train/cat/1.jpg), give a list (.csv or .parquet with path and "
            "label), or set catalog.format to images"
        )
    with_roles = any(len(p) == 3 and p[0].lower() in ROLE_FOLDERS for p in parts)
    problems = [_find_misplacement(p, with_roles) for p in parts]
    strays = [n for n, problem in enumerate(problems) if problem]
    if len(strays) > MOST_STRAYS * len(parts):
        raise CatalogError(f"{keys[strays[0]]} {problems[strays[0]]}")
    labels = [None if problem else p[-2] for p, problem in zip(parts, problems, strict=True)]
    roles = [ROLE_FOLDERS.get(p[0].lower()) if with_roles else None for p in parts]
    plain = images.drop("label", "role", "id", strict=False)
    return _catalog(plain).with_columns(
        pl.col("path").alias("id"),
        pl.Series("label", labels, pl.String),
        pl.Series("role", roles, pl.String),
    )


def lie_in_roles(keys: Iterable[str]) -> bool:
    """Tell whether all images lie directly in folders named after roles, which are no classes.

    >>> lie_in_roles(["train/1.jpg", "Test/2.jpg"]), lie_in_roles(["train/1.jpg", "bus/2.jpg"])
    (True, False)
    """
    tops = {key.split("/")[0].lower() if key.count("/") == 1 else "" for key in keys}
    return bool(tops) and tops <= ROLE_FOLDERS.keys()


def _find_misplacement(parts: list[str], with_roles: bool) -> str | None:
    """Return why no folder gives the image at `parts` a label; None: one does."""
    has_role = parts[0].lower() in ROLE_FOLDERS
    if with_roles and not (len(parts) == 3 and has_role):
        return (
            "does not fit: beside role folders (train, validation, test) every image is at "
            "role/class/file"
        )
    if len(parts) == 1:
        return (
            "lies in no class folder; put each image into its class's folder, or, if no "
            "image has a label, set catalog.format to images"
        )
    if not with_roles and len(parts) > 2:
        return (
            "lies too deep: allowed are class/file, or train|validation|test/class/file; "
            "give anything else as a list (.csv or .parquet with path and label). If the source "
            f"had other folders beside {parts[0]} before, delete data/download, so that images "
            "are named anew"
        )
    return None


def read_images(images: pl.DataFrame) -> pl.DataFrame:
    """Read images without labels, in any folders. A top folder named after a role gives the role.
    The id is the path."""
    tops = [key.split("/")[0].lower() if "/" in key else "" for key in images["key"]]
    plain = images.drop("label", "role", "id", strict=False)
    return _catalog(plain).with_columns(
        pl.col("path").alias("id"),
        pl.lit(None, pl.String).alias("label"),
        pl.Series("role", [ROLE_FOLDERS.get(top) for top in tops], pl.String),
    )


def read_list(images: pl.DataFrame) -> pl.DataFrame:
    """Read a list's columns. Without `id` the path is the id; roles have the names of role folders,
    and may be empty.

    Raises CatalogError for a manifest without labels and for an unknown role.
    """
    if "label" not in images.columns:
        raise CatalogError(
            "params.yaml: catalog: format: 'list' needs a .csv or .parquet list as "
            "download.source; set 'folders' or 'auto'"
        )
    catalog = _catalog(images)
    empty = pl.Series([None] * len(catalog), dtype=pl.String)
    ids = catalog.get_column("id", default=empty).cast(pl.String)
    roles = catalog.get_column("role", default=empty).cast(pl.String)
    roles = roles.str.strip_chars().str.to_lowercase()
    roles = roles.set(roles == "", None)
    unknown = roles.filter(~roles.is_in(list(ROLE_FOLDERS)))
    if len(unknown):
        raise CatalogError(
            f"the list gives the role {unknown[0]!r}; known: {', '.join(ROLE_FOLDERS)}, or nothing"
        )
    return catalog.with_columns(
        ids.fill_null(catalog["path"]).alias("id"),
        roles.replace_strict(ROLE_FOLDERS, default=None, return_dtype=pl.String).alias("role"),
    )


def _catalog(images: pl.DataFrame) -> pl.DataFrame:
    return images.rename({"key": "path"}).drop(
        "size", "etag", "shard", "offset", "version", "problem"
    )


FORMATS = {"folders": read_folders, "images": read_images, "list": read_list}
