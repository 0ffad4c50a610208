"""The grammar of the commands on an index; each is a module of this package with ``run``."""

import argparse
from importlib import import_module
from pathlib import Path

COMMANDS = {
    "search": "find the images of the index that are most like some images",
    "add": "add images to the index, or replace some",
    "remove": "remove images from the index",
    "info": "say what the index is and whether it is sound",
    "compact": "write the index afresh, without what was removed or replaced",
}

DESCRIPTIONS = {
    "search": """Finds the images of the index that are most like each IMAGE, best first, and says
        how sure that is. The columns: score, by which images are ordered, is the cosine of the two
        images' embeddings, 1 at most, less what the models find improbable about the first
        entry of the image's code, or about the label it stands for, by evaluate.rerank_weight and
        rerank_signal of params.yaml (with --no-rerank it is the log-probability of the image's
        code, or with evaluate.order_by of its first entry alone or of that entry's label);
        "same label" is the probability that an image carries the query's label, as learnt from
        validation images; "found" says whether the retriever wrote the image's code or the image
        was reached by its embedding, as images are that came after training.""",
    "add": """Adds images to the index; every search that begins afterwards finds them. They are
        added batch by batch, and what has been added stays: an add that was interrupted is simply
        run again with --skip-known (or --upsert). An image that cannot be read is listed with the
        reason, and then nothing is added unless --skip-unreadable is given. What the index keeps of
        every file itself (path, sha256, width, height) is filled in.""",
    "remove": """Removes images from the index: those named, those listed in a file, or those whose
        metadata an expression is true for. If one of the ids is unknown, nothing is removed.""",
    "info": """Says what the index holds, how it is searched, how sure its answers are, what it
        takes on the disk, and whether the pipeline has made another one since.""",
    "compact": """Writes the index afresh, so that it is what a new index of the same images would
        be: what was removed or replaced takes no more space, and what was added is searched as fast
        as the rest. Searches may go on meanwhile.""",
}

RELEASING = {
    "release": "make the pipeline's index the one that is served, if it is good enough",
    "releases": "list what was released, or fetch a release from the bucket",
    "rollback": "serve an earlier release again",
}

TOLD = {
    "release": """Makes the index that the pipeline made, data/index, a release, and the champion
        that is served if the gate finds it no worse than the champion, on the same queries (gate in
        params.yaml); else it is kept as a candidate. Run again it does what was left undone: a
        release is copied to the bucket and made a version of the registered model in MLflow as soon
        as these answer. Exit status: 0 if the index is served, 3 if it is kept as a candidate.""",
    "releases": """Lists the releases, the newest first, and marks the one that is served. With
        fetch: first brings the release that is served, or that VERSION, from the bucket
        (release.remote in params.yaml), and serves it if this machine serves none yet.""",
    "rollback": """Serves an earlier release again: the one that was served before, or that VERSION.
        The one that was served is not released again by itself; rollback to it brings it back.""",
}

COMPARING = {
    "compare": "compare methods, identifiers and ablations on whole data sets, over seeds",
    "source": "look at the images of a set of a comparison (what its DVC stages depend on)",
    "point": "run one training and evaluation of a comparison (what its DVC stages do)",
    "tables": "write a comparison's tables (what its last DVC stage does)",
}

ASKED = {
    "compare": """Runs the plan, experiments/comparison.yaml, for each SET (its settings are
        experiments/SET.yaml): every variant it compares with each of its seeds, then tables of all
        methods and variants with significance, as HTML, Markdown and LaTeX, below
        experiments/tables/SET, and as a run in MLflow with one below it for each training. Runs by
        DVC: whatever was done with the same inputs is not done again, and a run that was killed
        goes on from there.""",
    "source": """Brings the images of a SET up to date and writes down what they are.""",
    "point": """Trains and evaluates one VARIANT of a SET with one SEED, and keeps what it finds
        below experiments/results. Stages that another ran with the same inputs are shared.""",
    "tables": """Writes the tables, figures and the page of what is there below
        experiments/results/SET.""",
}

READS = (
    "By default this is index/ in the root if it is there, else the release that is served "
    "(releases/champion), else data/index."
)
WRITES = (
    "By default this is index/ in the root, which is made from the release that is served, else "
    "from data/index, when it is changed for the first time. These themselves are never changed."
)
EXPRESSION = (
    "as in SQL, over id and the metadata columns, such as \"label = 'shirt' AND width > 200\""
)


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds a parser for each command; ``options.command(options)`` runs it."""
    options = {
        "search": _search,
        "add": _add,
        "remove": _remove,
        "info": _info,
        "compact": lambda command: None,
    }
    for name, line in COMMANDS.items():
        command = commands.add_parser(name, help=line, description=DESCRIPTIONS[name])
        options[name](command)
        command.add_argument(
            "--index",
            type=Path,
            metavar="PATH",
            help=f"The folder of the index. {READS if name in ('search', 'info') else WRITES}",
        )
        command.add_argument(
            "--root", type=Path, default=Path(), help="The project's folder; by default this one."
        )
        command.set_defaults(command=_run)
    _add_releasing(commands)
    _add_comparing(commands)


def _add_comparing(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    runners = {"compare": "run", "source": "run_source"}
    runners |= {"point": "run_point", "tables": "run_tables"}
    for name, line in COMPARING.items():
        command = commands.add_parser(name, help=line, description=ASKED[name])
        if name == "compare":
            command.add_argument(
                "sets", nargs="*", metavar="SET", help="By default all that the plan names."
            )
            command.add_argument(
                "--ablations", action="store_true", help="Run the plan's ablations too, at the end."
            )
        else:
            command.add_argument("set", metavar="SET")
        if name == "point":
            command.add_argument("variant", metavar="VARIANT")
            command.add_argument("seed", type=int, metavar="SEED")
        command.add_argument(
            "--root", type=Path, default=Path(), help="The project's folder; by default this one."
        )
        command.set_defaults(command=_compare, runner=runners[name])


def _compare(options: argparse.Namespace) -> int | None:
    return getattr(import_module("irgen.commands.compare"), options.runner)(options)


def _add_releasing(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    for name, line in RELEASING.items():
        command = commands.add_parser(name, help=line, description=TOLD[name])
        if name == "release":
            command.add_argument(
                "--force", action="store_true", help="Release it whatever the gate says."
            )
            command.add_argument(
                "--after",
                type=Path,
                metavar="FILE",
                help="Load what it takes, and begin when FILE appears; end if its folder goes.",
            )
        if name == "releases":
            command.add_argument("action", nargs="?", choices=["list", "fetch"], default="list")
        if name != "release":
            command.add_argument("version", nargs="?", type=int, metavar="VERSION")
        command.add_argument("--json", action="store_true", help="Print JSON instead.")
        command.add_argument(
            "--params", type=Path, help="The parameters' file; by default params.yaml in the root."
        )
        command.add_argument(
            "--root", type=Path, default=Path(), help="The project's folder; by default this one."
        )
        command.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int | None:
    return import_module(f"irgen.commands.{options.name}").run(options)


def _search(command: argparse.ArgumentParser) -> None:
    command.add_argument("images", nargs="*", metavar="IMAGE", help="An image file to search with.")
    command.add_argument(
        "--ids",
        nargs="+",
        metavar="ID",
        help="Search with images of the index instead, by their stored embeddings; none of them is "
        "an answer to itself.",
    )
    command.add_argument(
        "-k", "--k", type=int, default=10, help="How many images to find for each; by default 10."
    )
    command.add_argument(
        "--beams",
        type=int,
        help="How many codes the search follows; more find more and take longer. By default as "
        "irgen info says, or as many as images are to be found.",
    )
    command.add_argument(
        "--candidates", type=int, help="How many images at most are gathered and compared."
    )
    command.add_argument(
        "--fresh-beams",
        type=int,
        help="How many codes lead to images that came after training, by their embeddings; with 0 "
        "only what the retriever writes counts.",
    )
    command.add_argument(
        "--no-rerank",
        action="store_true",
        help="Keep the retriever's own order instead of ordering by cosine.",
    )
    command.add_argument(
        "--distinct",
        type=float,
        metavar="COSINE",
        help="Hide an image whose cosine with a better one is at least this, such as 0.98.",
    )
    command.add_argument(
        "--allow", metavar="EXPR", help=f"Find only images for which this is true: {EXPRESSION}."
    )
    command.add_argument(
        "--min-score", type=float, metavar="SCORE", help="Find only images of at least this score."
    )
    command.add_argument(
        "--min-probability",
        type=float,
        metavar="P",
        help="Find only images that carry the query's label with at least this probability, 0 to "
        "1.",
    )
    command.add_argument(
        "--explain",
        action="store_true",
        help="Also say how likely the retriever finds the code of each image, level by level.",
    )
    form = command.add_mutually_exclusive_group()
    form.add_argument(
        "--json",
        action="store_const",
        const="json",
        dest="form",
        help="Print a JSON list with one object a query, metadata included.",
    )
    form.add_argument(
        "--csv",
        action="store_const",
        const="csv",
        dest="form",
        help="Print a CSV table with one row a hit, metadata included.",
    )
    command.set_defaults(form="text")


def _add(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "images",
        nargs="+",
        type=Path,
        metavar="IMAGE",
        help="An image file, or a folder whose image files are added, however deep.",
    )
    command.add_argument(
        "--base",
        type=Path,
        default=Path(),
        help="The folder from which paths are counted: an image's id is its path from there. By "
        "default this is the current folder.",
    )
    command.add_argument(
        "--metadata",
        type=Path,
        metavar="FILE",
        help="A .csv or .parquet file with a row for each image, found by its path (from the base) "
        "in the column path, or by its id in the column id. With both columns, id is the image's "
        "id. All other columns are metadata.",
    )
    known = command.add_mutually_exclusive_group()
    known.add_argument(
        "--upsert", action="store_true", help="Replace images whose id is in the index already."
    )
    known.add_argument(
        "--skip-known", action="store_true", help="Pass over images whose id is in the index."
    )
    command.add_argument(
        "--skip-unreadable", action="store_true", help="Pass over images that cannot be read."
    )


def _remove(command: argparse.ArgumentParser) -> None:
    command.add_argument("ids", nargs="*", metavar="ID", help="The id of an image.")
    command.add_argument(
        "--ids-from",
        metavar="FILE",
        help="A text file with one id a line; - is the standard input.",
    )
    command.add_argument(
        "--allow",
        metavar="EXPR",
        help=f"Remove all images for which this is true: {EXPRESSION}. Without --yes it only says "
        "how many these are.",
    )
    command.add_argument(
        "--yes", action="store_true", help="Do remove the images that --allow selects."
    )


def _info(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--verify", action="store_true", help="Read every file and compare it with its checksum."
    )
    command.add_argument("--json", action="store_true", help="Print a JSON object instead.")
