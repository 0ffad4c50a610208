"""``irgen init``: look at a collection of images and write the settings that suit it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from irgen.commands.options import PATH, root_option, settings_file
from irgen.errors import CatalogError, ParamsError

if TYPE_CHECKING:
    from irgen.catalog.survey import Survey
    from irgen.params import Params
    from irgen.params.presets import Collection, Pretrained, Values

ASK = (
    "say where your images are: irgen init ../photos. It may be a folder (one folder a label, or "
    "none), an archive (.tar, .zip), a list (.csv, .parquet), s3://bucket/prefix or "
    "https://…/images.zip; irgen init digits takes the built-in handwritten digits"
)
FEWEST = 20  # images that training makes sense with


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A preset: its name, the reason for it, where the encoder's weights come from, and its values
    in the order in which they apply."""

    kind: str
    reason: str
    origin: str
    parts: list[Values]


@click.command()
@click.argument("source", required=False, metavar="[PATH]")
@click.option(
    "--weights",
    type=PATH,
    metavar="FILE",
    help="A safetensors file with the weights of a pretrained encoder. Default: the hub's.",
)
@click.option(
    "--encoder", metavar="NAME", help="The timm model that reads images. Default: by this machine."
)
@click.option(
    "--tune",
    is_flag=True,
    help="Train the pretrained encoder of photos, too. Takes longer; see docs/lab-notes.",
)
@click.option(
    "--captions",
    type=PATH,
    metavar="FILE",
    help="A CSV or Parquet file with texts of the images: a column id, path or label, and texts.",
)
@click.option("--unlabelled", is_flag=True, help="Use no labels, even if there are class folders.")
@click.option("--force", is_flag=True, help="Overwrite settings that you have changed.")
@click.option(
    "--params",
    "file",
    type=PATH,
    metavar="FILE",
    help="Write this file, e.g. experiments/photos.yaml, to compare methods on. Default: "
    "params.yaml in the project's folder.",
)
@root_option
def init(
    source: str | None,
    weights: Path | None,
    encoder: str | None,
    tune: bool,
    captions: Path | None,
    unlabelled: bool,
    force: bool,
    file: Path | None,
    root: Path,
) -> None:
    """Look at your images and write settings that suit them into params.yaml.

    PATH is a folder, an archive, a list, or one of these at s3://… or https://…; or "digits". It is
    listed, and some of its images are opened; none is copied. Run it again at any time: only
    settings that you changed yourself need --force.
    """
    from irgen.catalog.captions import read_captions
    from irgen.commands import init_costs, init_output
    from irgen.params.presets import digits

    if not source:
        raise click.UsageError(ASK)
    path, base = settings_file(root, file), settings_file(root, None)
    if not force and (path == base or path.exists()):
        refuse_edited(path)
    if source == "digits":
        write(path, base, [digits(), {"download": {"source": source}}], source)
        print(f"{path.name} has the default settings, for the built-in digits.\nNext: make run")
        return
    # It refuses a file that the download would refuse.
    texts = init_output.describe_captions(read_captions(captions)) if captions else {}
    print(f"Looking at {source} …", flush=True)
    survey = look(source, root)
    labelled = has_labels(survey) and not unlabelled
    print(init_output.layout(init_output.describe_images(survey, labelled) | texts), flush=True)
    if survey.images < FEWEST:
        raise CatalogError(
            f"{source}: training on {survey.images} images makes no sense; give some dozens, "
            "better hundreds"
        )
    machine, collection = init_costs.describe_machine(), summarise(survey, labelled)
    choice = choose(
        survey, collection, weights, encoder, tune=tune, gpu=bool(machine.gpu), root=root
    )
    given = {"source": source, **({"captions": str(captions)} if captions else {})}
    source_values: Values = {"download": {key: relate(value, root) for key, value in given.items()}}
    params = write(path, base, [*choice.parts, source_values], source)
    costs = init_costs.estimate_costs(params, collection, survey.sample.bytes, machine)
    lines = {
        "machine": init_output.describe_machine(machine),
        **init_output.describe_choice(choice.kind, choice.reason, choice.origin, params),
        "cost": init_output.describe_costs(costs),
        "change": f"edit {path}; irgen params explains every setting; irgen init --help",
    }
    following = (
        f"add {path.stem} to the plan, and irgen compare {path.stem}" if file else "make run"
    )
    print(f"\nWrote {path}:\n{init_output.layout(lines)}\n\nNext: {following}")


def refuse_edited(path: Path) -> None:
    """Raise ParamsError if a settings file has settings that a user would lose."""
    from irgen.params.writing import list_edits

    if edits := list_edits(path):
        shown = ", ".join(edits[:3]) + (f" and {len(edits) - 3} more" if edits[3:] else "")
        raise ParamsError(
            f"{path} has settings of yours, which would be lost ({shown}): to write it anew, add "
            "--force; to keep it, set download.source in it yourself"
        )


def look(source: str, root: Path) -> Survey:
    """Return what the source holds. An archive at a URL is fetched to where the pipeline looks."""
    from irgen.catalog.sources.open import open_source
    from irgen.catalog.survey import survey_source
    from irgen.files.workspace import Workspace
    from irgen.params import load
    from irgen.stages.download import FILES

    settings = replace(load(root / "params.yaml").download, source=source)  # with its endpoint
    cache = Workspace.at(root).cache / "download" / FILES
    return survey_source(open_source(settings, cache))


def has_labels(survey: Survey) -> bool:
    """Tell whether at least two labels have enough images to teach and to measure."""
    return sum(count >= 3 for count in survey.labels.values()) >= 2


def summarise(survey: Survey, labelled: bool) -> Collection:
    """Return what a preset depends on."""
    from irgen.commands.init_output import median_side
    from irgen.params.presets import TRAINED_SHARE, Collection

    drawn = round(TRAINED_SHARE * survey.images)
    return Collection(
        images=survey.images,
        trained=survey.roles.get("train", drawn),
        labels=len(survey.labels) if labelled else 0,
        side=median_side(survey.sample),
        channels=1 if survey.sample.grey == 1 else 3,
    )


def choose(
    survey: Survey,
    collection: Collection,
    weights: Path | None,
    encoder: str | None,
    *,
    tune: bool,
    gpu: bool,
    root: Path,
) -> Choice:
    """Choose the preset, and for photos the encoder: the one named, else by the machine. Raises
    CatalogError if an encoder shall be tuned that the preset does not have."""
    from irgen.params import presets

    kind, reason = presets.choose_kind(
        collection.side, drawings=survey.sample.drawings > 0.5, labelled=collection.labels > 0
    )
    if kind != "photos" and (weights or encoder):
        kind, reason = "photos", "the pretrained encoder that you name stays as it is"
    title = kind if collection.labels else f"{kind} without labels"
    if tune:
        check_tunable(title)
        reason = "a pretrained encoder has seen many photos; it learns from yours, too"
    if kind == "tiny images":
        parts, origin = [presets.tiny_images(collection)], "trained from nothing"
    elif kind == "drawings":
        parts, origin = [presets.drawings(collection)], "trained from nothing"
    else:
        default = presets.GPU_ENCODER if gpu else presets.CPU_ENCODER
        pretrained, origin = choose_encoder(weights, encoder, default, root)
        parts = [presets.photos(collection, pretrained)]
        if tune:
            parts.append(presets.tuned_photos(collection, pretrained))
    if not collection.labels:
        parts.append(presets.without_labels(collection))
    return Choice(kind=title, reason=reason, origin=origin, parts=parts)


def check_tunable(kind: str) -> None:
    """Raise CatalogError for images other than photos with labels, whose encoder can be tuned."""
    if kind != "photos":
        raise CatalogError(
            f"--tune trains the pretrained encoder of photos with labels; these are {kind}: leave "
            "--tune out, or name an encoder (--encoder or --weights)"
        )


def choose_encoder(
    weights: Path | None, name: str | None, default: str, root: Path
) -> tuple[Pretrained, str]:
    """Return the pretrained encoder, and where its weights come from in words. Raises WeightsError
    if they are missing, or fit no encoder."""
    from irgen.checkpoints.hub import check_hub
    from irgen.checkpoints.recognise import read_input_format, recognise_encoder
    from irgen.checkpoints.weights import check_name, reads_one_size
    from irgen.params.presets import Pretrained

    if weights is None:
        chosen, value = name or default, "hub"
        check_name(chosen)
        origin = f"weights {check_hub(chosen)}"
    else:
        chosen, value = recognise_encoder(weights, name or ""), relate(str(weights), root)
        origin = f"weights from {value} ({weights.stat().st_size / 1e6:.0f} MB)"
    size, crop = read_input_format(chosen)
    pretrained = Pretrained(
        name=chosen, weights=value, image_size=size, crop=crop, fixed_size=reads_one_size(chosen)
    )
    return pretrained, origin


def relate(path: str, root: Path) -> str:
    """Return a path as params.yaml holds it: relative to the project unless it is absolute."""
    if "://" in path or path.startswith(("~", "/")):
        return path
    return os.path.relpath(path, root)


def write(path: Path, base: Path, parts: list[Values], source: str) -> Params:
    """Write the settings of the file ``base`` with other values to ``path``, and return all
    settings. Raises ParamsError for a file that is not valid."""
    from irgen.errors import redact
    from irgen.files.atomic import write_bytes
    from irgen.params import load
    from irgen.params.writing import apply_values

    text = apply_values(base.read_text(encoding="utf-8"), parts, redact(source))
    write_bytes(path, text.encode())
    return load(path)
