"""Report an update that stopped, since its source is away or lacks too many images."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect.states import Failed, State

from flows import artifacts, events, state
from flows.artifacts import Log
from flows.state import LastPass
from irgen.catalog import guard
from irgen.files.workspace import Workspace
from irgen.releases import store

LABELS = 30  # rows of the page's table


def read_note(root: Path, error: Exception) -> dict[str, Any] | None:
    """Return the guard's note on the update that stopped with this error; None if the guard did not
    stop it."""
    note = guard.read_note(Workspace.at(root).cache / "download")
    return note if note is not None and note["message"] in str(error) else None


def report(root: Path, note: dict[str, Any], log: Log) -> State[Any]:
    """Report why the update stopped, by an event and a page, once for each question. Return the
    flow run's final state."""
    last = state.read_last_pass(root) or LastPass(key="", settled=False)
    number = str(note["number"])
    if last.announced.get(events.HELD) != number:
        events.emit(events.HELD, root, note, key=f"{root} {number}")
        artifacts.create_markdown("held", describe(root, note), note["message"], log)
        announced = last.announced | {events.HELD: number}
        state.write_last_pass(root, replace(last, announced=announced))
    artifacts.name_run(state.catalogue_name(root), "held", log=log)
    log.warning("the update is held: %s", note["message"])
    return Failed(name="Held", message=note["message"])


def describe(root: Path, note: dict[str, Any]) -> str:
    """Return a page in Markdown: why the update stopped, what would go, and what to do."""
    lines = ["# The update is held", note["message"]]
    if note["kind"] == guard.SOURCE:
        lines.append(
            f"All {note['before']:,} images would go. To follow another source, change "
            "`download.source` in `params.yaml`."
        )
        return "\n\n".join([*lines, _describe_served(root)]) + "\n"
    rows = [f"| {label} | {count:,} |" for label, count in note["by_label"].items()]
    if rows:
        more = [f"| … {len(rows) - LABELS:,} more labels | |"] if len(rows) > LABELS else []
        head = ["| label | images that would go |", "| --- | ---: |"]
        lines.append("\n".join([*head, *rows[:LABELS], *more]))
    if note["whole_labels"]:
        lines.append(f"These labels would have no image left: {', '.join(note['whole_labels'])}.")
    lines.append("Examples:\n\n" + "\n".join(f"- `{key}`" for key in note["examples"]))
    lines.append(
        "Is the source away, or a part of it? Bring it back: the next update goes on, and nothing "
        "has to be read or trained again. Should the images go? Run, on the worker's machine in "
        f"`{root}`, and start the update again:\n\n    irgen release --accept-removals"
    )
    return "\n\n".join([*lines, _describe_served(root)]) + "\n"


def _describe_served(root: Path) -> str:
    champion = store.read_champion(store.path_in(root))
    return "No release is served." if champion is None else f"Release {champion.version} is served."
