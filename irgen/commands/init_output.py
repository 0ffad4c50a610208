"""Say in plain words what ``irgen init`` found, chose, and expects it to cost."""

from collections.abc import Mapping
from statistics import median
from typing import TYPE_CHECKING

from irgen.catalog.sources.selection import describe_left_out
from irgen.catalog.survey import Sample, Survey
from irgen.commands.format import format_count
from irgen.commands.init_costs import Costs, Machine
from irgen.errors import escape_controls
from irgen.params import Params

if TYPE_CHECKING:
    import polars as pl

SHOWN = 3  # labels or files that a line names
FEW = 4  # images of a label: with fewer it teaches and measures little


def describe_images(survey: Survey, labelled: bool) -> dict[str, str]:
    """Return what the source holds, line by line."""
    sample = survey.sample
    lines = {
        "found": format_count(survey.images, "image"),
        "labels": describe_labels(survey, labelled),
        "roles": describe_roles(survey.roles),
        "sizes": describe_sizes(sample),
        "columns": ", ".join(f"{name} ({kind})" for name, kind in survey.columns.items()),
        "left out": describe_losses(survey),
        "note": "; ".join(survey.notes),
    }
    return {name: text for name, text in lines.items() if text}


def describe_captions(captions: "pl.DataFrame") -> dict[str, str]:
    """Return what a file of captions holds, as a line: its key and columns with texts."""
    key, *names = captions.columns
    return {"captions": f"of {format_count(len(captions), key)}: {', '.join(names)}"}


def describe_labels(survey: Survey, labelled: bool) -> str:
    """Describe how many labels there are and how many images they have, or why none is used."""
    counts = survey.labels
    if not labelled:
        reason = survey.no_labels or (
            f"{format_count(len(counts), 'label')} would be used without --unlabelled"
            if len(counts) > 1
            else "one label teaches nothing"
        )
        return f"none: {reason}"
    sizes = list(counts.values())
    if sizes[0] == sizes[-1]:
        return f"{len(counts):,}, {format_count(sizes[0], 'image')} each"
    largest = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:SHOWN])
    name, least = list(counts.items())[-1]
    text = (
        f"{len(counts):,}: {largest} … {name} {least:,}"
        if len(counts) > SHOWN
        else (f"{len(counts):,}: {largest}")
    )
    if few := sum(size < FEW for size in sizes):
        text += f"; {format_count(few, 'label')} with fewer than {FEW} images teach little"
    return text


def describe_roles(roles: Mapping[str, int]) -> str:
    """Describe the roles that the source gives, or how they are drawn."""
    if not roles:
        return "none given: a fifth of the images also measures quality; all can be found"
    return "as given: " + ", ".join(f"{count:,} {role}" for role, count in sorted(roles.items()))


def describe_sizes(sample: Sample) -> str:
    """Describe the sizes and colours of the images that were opened."""
    sides = sorted(sample.sizes, key=lambda size: size[0] * size[1])
    small, large = ("×".join(map(str, size)) for size in (sides[0], sides[-1]))
    pixels = f"{small} pixels" if small == large else f"{small} to {large} pixels"
    share = sample.grey
    colour = "grey" if share > 0.95 else "colour" if share < 0.05 else f"{share:.0%} grey"
    if sample.drawings > 0.5 and colour == "grey":
        colour = "grey line drawings"
    return f"{pixels}, {colour} ({format_count(len(sides), 'image')} opened)"


def describe_losses(survey: Survey) -> str:
    """Describe what will not be read, and why."""
    parts = [f"{count:,} {reason}" for reason, count in survey.left_out.items()]
    parts += describe_left_out(survey.skipped, survey.ignored)
    damaged = survey.sample.damaged
    if damaged:
        opened = len(damaged) + len(survey.sample.sizes)
        name, reason = next(iter(damaged.items()))
        parts.append(f"{len(damaged)} of {opened} opened cannot be read, e.g. {name}: {reason}")
    return "; ".join(parts) or "nothing"


def describe_machine(machine: Machine) -> str:
    """Describe the machine in a few words."""
    memory = f", {machine.memory / 2**30:.0f} GB of memory" if machine.memory else ""
    return f"{format_count(machine.cores, 'core')}{memory}, {machine.gpu or 'no GPU'}"


def describe_choice(kind: str, reason: str, origin: str, params: Params) -> dict[str, str]:
    """Return what was chosen, line by line."""
    encoder, tokenizer = params.encoder, params.tokenizer
    teachers = (
        "your labels"
        if tokenizer.labels == "given"
        else f"{tokenizer.clusters} clusters of the encoder's features"
    )
    return {
        "preset": f"{kind}: {reason}",
        "encoder": f"{encoder.name}, {encoder.image_size} pixels, {origin}",
        "codes": f"{tokenizer.levels} codes an image, of {tokenizer.codebook} each; "
        f"{teachers} teach what is alike",
        "training": f"at most {tokenizer.steps:,} and {params.retriever.steps:,} steps; it stops "
        "when it brings no more",
    }


def describe_costs(costs: Costs) -> str:
    """Describe the costs, and how rough they are."""
    minutes = max(1, round(costs.seconds / 60))
    return (
        f"about {format_count(minutes, 'minute')} and {costs.bytes / 1e9:.1f} GB of disk. A rough "
        f"estimate: encoding was timed here ({costs.encoding:.0f} ms an image), the rest is scaled "
        "from another machine"
    )


def layout(lines: Mapping[str, str]) -> str:
    """Return lines with their names in a column."""
    width = max(map(len, lines))
    return "\n".join(f"  {name:<{width}}  {escape_controls(text)}" for name, text in lines.items())


def median_side(sample: Sample) -> int:
    """Return the median short side of the images that were opened, in pixels."""
    return round(median(min(size) for size in sample.sizes))
