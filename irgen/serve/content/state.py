"""Read what the page *State* shows: the release with links to its runs, what is new in it, and what
people changed since."""

import os
import re
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import polars as pl

from irgen.errors import IrgenError
from irgen.index import folder
from irgen.index.database import Database
from irgen.index.index import Index
from irgen.index.metadata import ID
from irgen.index.view import View
from irgen.releases import edits, own_index, settings, store
from irgen.releases.edits import Edits
from irgen.releases.release import Release
from irgen.serve.champion import Served
from irgen.tracking import locations, mlflow_store

SHOWN = 12  # pictures of new images
FLOW_RUN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
FLOW_PAGES = "PREFECT_UI_URL"  # of the environment: where browsers find the pages of flows


@dataclass(frozen=True)
class Link:
    """A text that leads to another page; ``url`` is None if nobody knows where that is."""

    text: str
    url: str | None


@dataclass(frozen=True)
class Difference:
    """Images of an index that another one does not have, has with other content, or has alone; and
    the ids of some that are new."""

    added: int
    replaced: int
    removed: int
    samples: list[str]

    @classmethod
    def of(cls, changes: Edits, ids: pl.Series) -> "Difference":
        """Return the numbers of ``changes``, whose rows are those of ``ids``."""
        new = [*changes.added[:SHOWN], *changes.replaced[:SHOWN]][:SHOWN]
        return cls(
            len(changes.added), len(changes.replaced), len(changes.removed), ids[new].to_list()
        )


@dataclass(frozen=True, kw_only=True)
class State:
    """State of the served index. ``record``: of its release, or of that which it is a copy of.
    ``news``: since the release before. ``edits``: by hand, since the copy was made. ``changed``:
    milliseconds since 1970."""

    record: Release | None
    links: dict[str, Link]
    news: Difference | None
    edits: Difference | None
    changed: float


class StateReader:
    """State of a project's served index. Threads may share it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._edits: tuple[View, Difference | None] | None = None

    def read(self, served: Served) -> State:
        """Return the state of the index that is served."""
        is_own = served.record is None and own_index.is_own(served.index, self._root)
        record = served.record
        with suppress(IrgenError):  # the link to the release is broken
            record = store.read_champion(store.path_in(self._root)) if is_own else record
        return State(
            record=record,
            links={} if record is None else list_links(self._root, record),
            news=None if record is None else self._read_news(record),
            edits=self._read_edits(served.index) if is_own else None,
            changed=_last_change(served.index.folder.path),
        )

    def _read_news(self, record: Release) -> Difference | None:
        releases = store.path_in(self._root)
        if record.previous is None:
            return None
        with suppress(IrgenError, OSError):  # the release before is not kept any more
            before = store.find_release(releases, record.previous)
            return compare(releases / before.name, releases / record.name)
        return None

    def _read_edits(self, index: Index) -> Difference | None:
        """Return the edits of the index; they are looked up once a view."""
        view = index.view
        if self._edits is None or self._edits[0] is not view:
            changes = own_index.find_edits(index)
            ids = pl.Series(view.all_ids(), dtype=pl.String)
            self._edits = (view, None if changes is None else Difference.of(changes, ids))
        return self._edits[1]


@lru_cache(maxsize=2)
def compare(before: Path, now: Path) -> Difference:
    """Compare the ids and contents of two releases, which never change."""
    tables = [_read_table(path) for path in (before, now)]
    names = [name for name in (ID, edits.SHA256) if all(name in table for table in tables)]
    old, new = (table.select(names) for table in tables)
    return Difference.of(edits.find_edits(old, new), new[ID])


def _read_table(path: Path) -> pl.DataFrame:
    with closing(Database(path)) as file:
        view = folder.read(path).load(file)
    return view.take(view.snapshot.alive_rows().numpy())


def list_links(root: Path, record: Release) -> dict[str, Link]:
    """Return where to read more about a release: its page in MLflow, its flow run in Prefect."""
    links = {}
    with suppress(IrgenError):  # the settings cannot be read
        if record.registered and record.registry == locations.store_key(root):
            model = settings.read_release(root / "params.yaml").model
            page = mlflow_store.model_page(root, model, record.registered)
            text = f"version {record.registered} of the model {model}"
            links["MLflow"] = Link(text if page else f"{text}: irgen ui shows it", page)
    if FLOW_RUN.fullmatch(record.build):
        pages = os.environ.get(FLOW_PAGES, "").rstrip("/")
        page = f"{pages}/runs/flow-run/{record.build}" if pages else None
        links["Flow run"] = Link(record.build, page)
    return links


def _last_change(path: Path) -> float:
    """Return when an index was last written, in milliseconds since 1970."""
    times: Sequence[float] = [file.stat().st_mtime for file in path.iterdir() if file.is_file()]
    return 1000 * max(times, default=0.0)
