"""Stop an update that would remove too many images, and keep its question and a person's answer.

The cache of the download stage has three files: ``held.json`` says why the last update stopped;
``removals.parquet`` lists the images that it would have removed; ``accepted.parquet`` those that a
person lets go. A question belongs to one manifest. It ends when an update goes through.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from irgen.catalog import manifest, removals
from irgen.catalog.check import check_images
from irgen.catalog.datasets.annotations import drop_annotations
from irgen.catalog.removals import Removals
from irgen.catalog.shards import Images
from irgen.errors import (
    ArtifactError,
    ReleaseError,
    RemovalsError,
    SourceError,
    format_line,
    redact,
)
from irgen.files.digests import file_digest
from irgen.files.records import read_json, write_json
from irgen.files.sealed import read_parquet, write_parquet

HELD, QUESTION, ACCEPTED = "held.json", "removals.parquet", "accepted.parquet"
REMOVALS, SOURCE = "removals", "source"  # kinds of note
SHOWN = 6  # labels that a message names
KEPT = "nothing is removed: manifest, index and served release stay as they are"
REMEDY = (
    "if the source is away, bring it back, and the next update goes on; if these images should "
    "go: irgen release --accept-removals, then update again (dvc repro, or the flow update)"
)


@dataclass(frozen=True, kw_only=True)
class Guard:
    """Guard against the removals of a sync. `folder`: holds the manifest; `cache`: holds the notes;
    `checks`: cache of the stage catalog; `share`: largest share of the images that may go without
    asking; `format_name`: the setting catalog.format."""

    folder: Path
    cache: Path
    checks: Path
    share: float
    format_name: str

    def check(
        self, old: pl.DataFrame, new: pl.DataFrame, past: pl.DataFrame, stored: Images
    ) -> bool:
        """Return whether a person accepted some of the removals, before a sync replaces the
        manifest `old`, with its `past` images, by `new`. `stored`: the bytes of both.

        Raises RemovalsError, and keeps the question, if more would go than may.
        """
        if not removals.has_removals(old, new):
            return False
        before = removals.label_images(old, self.format_name, stored.read)
        after = removals.label_images(new, self.format_name, stored.read, before)
        after = after.filter(~pl.col("sha256").is_in(self._find_broken(before, after, stored)))
        gone = removals.find_removals(before, after)
        accepted = gone.join(self._read_accepted(), on=["key", "sha256"], how="semi")
        history = before.with_columns(gone=pl.lit(None, pl.Int32))
        if len(accepted):  # a person knows that there are fewer: images of the past do not count
            history = history.join(accepted, on="key", how="anti")
        else:
            past = removals.label_past(past, old, self.format_name)
            history = pl.concat([history, past], how="diagonal_relaxed")
        objection = removals.find_objection(
            gone.join(accepted, on="key", how="anti"),
            before.join(accepted, on="key", how="anti"),
            after,
            history,
            since=manifest.read_accepted(self.folder),
            share=self.share,
        )
        if objection is not None:
            self._ask(replace(objection, images=gone, before=len(before)))
        return len(accepted) > 0

    def _find_broken(self, before: pl.DataFrame, after: pl.DataFrame, stored: Images) -> list[str]:
        """Return the hashes of changed contents that are no images: stubs of a sync client, Git
        LFS's pointers, pages of an error. The stage catalog need not check them again."""
        changed = after.join(before, on="key", how="semi").join(before, on="sha256", how="anti")
        if len(changed) < removals.FEWEST:
            return []
        checked = check_images(stored, changed["sha256"].to_list(), self.checks, 0)
        return checked.filter(pl.col("reason").is_not_null())["sha256"].to_list()

    def _ask(self, question: Removals) -> None:
        notes = {"manifest": _digest_manifest(self.folder)}
        write_parquet(self.cache / QUESTION, question.images, notes)
        summary = question.summarize()
        message = f"the source lacks {describe(summary)}; {KEPT}; {REMEDY}"
        _write_note(self.cache, message, {"kind": REMOVALS} | summary)
        raise RemovalsError(message)

    def _read_accepted(self) -> pl.DataFrame:
        return _read(self.cache / ACCEPTED, self.folder)

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Note a SourceError of the block as the reason why an update stopped. Raise it again, with
        the addition that nothing is lost."""
        try:
            yield
        except SourceError as error:
            raise SourceError(note_source(self.folder, self.cache, str(error))) from error


def note_source(folder: Path, cache: Path, problem: str) -> str:
    """Note why the source cannot be had as the reason why an update stopped; return the message,
    which says that nothing is lost. Without a manifest there is nothing to lose or to note."""
    if not (folder / manifest.NAME).is_file():
        return problem
    images = drop_annotations(manifest.images(manifest.read(folder)))
    message = f"{problem}; {KEPT}; bring the source back, and the next update goes on"
    _write_note(cache, message, {"kind": SOURCE, "before": len(images)})
    return message


def describe(summary: dict[str, Any]) -> str:
    """Describe the images that would go, by the counts of `Removals.summarize`.

    >>> describe({"gone": 7, "before": 9, "peak": 9, "by_label": {"cat": 5, "dog": 2},
    ...           "whole_labels": ["cat"], "whole_roles": [], "examples": ["cat/1.png"]})
    '7 of 9 images (cat 5, dog 2), all images of cat among them, such as cat/1.png'
    """
    counts = [f"{label} {count:,}" for label, count in summary["by_label"].items()]
    whole, peak = summary["whole_labels"], summary["peak"]
    text = f"{summary['gone']:,} of {summary['before']:,} images"
    text += f" ({_enumerate(counts)})" if counts else ""
    text += f", all images of {_enumerate(whole)} among them" if whole else ""
    roles = summary["whole_roles"]
    text += f", all {_enumerate(roles)} images among them" if roles else ""
    text += f", such as {summary['examples'][0]}" if summary["examples"] else ""
    if peak > summary["before"]:
        text += f"; there were {peak:,} once, and earlier updates took some away"
    return text


def _enumerate(texts: list[str]) -> str:
    more = len(texts) - SHOWN
    return ", ".join(texts[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def accept(folder: Path, cache: Path) -> dict[str, Any]:
    """Let the images go that the last update asked about, and those alone; return their counts, as
    `Removals.summarize` does. Raises ReleaseError if no update waits for an answer."""
    note = read_note(cache)
    if note is None or note["kind"] != REMOVALS or not len(_read(cache / QUESTION, folder)):
        raise ReleaseError(
            "no update waits for a word about removals: the next one (dvc repro, or the flow "
            "update) asks if it would take too many images away"
        )
    shutil.copyfile(cache / QUESTION, cache / ACCEPTED)
    return note


def withdraw(cache: Path) -> None:
    """Forget question and answer, since an update went through or the source is unchanged."""
    for name in (HELD, QUESTION, ACCEPTED):
        (cache / name).unlink(missing_ok=True)


def read_note(cache: Path) -> dict[str, Any] | None:
    """Return why the last update stopped: its `message`, a `number` of its own, `kind` (removals or
    source) and, of removals, what `Removals.summarize` returns. None if none stopped."""
    try:
        return read_json(cache / HELD)
    except ArtifactError:
        return None


def _write_note(cache: Path, message: str, facts: dict[str, Any]) -> None:
    message = format_line(redact(message))
    last = read_note(cache)
    number = last["number"] if last and last["message"] == message else time.time_ns()
    write_json(cache / HELD, facts | {"message": message, "number": number})


def _read(path: Path, folder: Path) -> pl.DataFrame:
    """Return the images of a question or answer about the present manifest; else none."""
    empty = pl.DataFrame(schema={"key": pl.String, "sha256": pl.String, "label": pl.String})
    try:
        is_ours = pl.read_parquet_metadata(path).get("manifest") == _digest_manifest(folder)
        return read_parquet(path) if is_ours else empty
    except (ArtifactError, OSError, pl.exceptions.PolarsError):
        return empty


def _digest_manifest(folder: Path) -> str:
    return file_digest(folder / manifest.NAME)
