"""Who may import whom, how large files are, and what docstrings begin with."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "irgen").rglob("*.py"))
ALL = [*MODULES, *sorted((ROOT / "flows").rglob("*.py"))]
BENCHMARKS, TESTS = (sorted((ROOT / folder).rglob("*.py")) for folder in ("benchmarks", "tests"))
MOST_NAMES, MOST_LINES = 20, 400

# Each may import those before it; a folder counts as one.
ORDER = [
    "errors",
    "params",
    "files",
    "compute",
    "catalog",
    "models",
    "search",
    "checkpoints",
    "encoding",
    "training",
    "index",
    "evaluation",
    "report",
    "stages",
    "tracking",
    "study",
    "releases",
    "serve",
    "client",
    "commands",
    "__main__",
]

ONE_IMPORTER = {
    "mlflow": "irgen/tracking/",
    "boto3": "irgen/catalog/sources/s3",
    "faiss": "irgen/evaluation/ann.py",
    "scann": "irgen/evaluation/ann.py",
    "pytorch_metric_learning": "irgen/training/ranking_losses.py",
    "matplotlib": "irgen/report/figures.py",
    "jinja2": "irgen/report/page.py",
    "psutil": "irgen/tracking/provenance.py",
    "ray": "irgen/compute/cluster",
}
PRIVATE = re.compile(r"(?:prefect|dvc|mlflow|torch)[A-Za-z_.]*\._[a-z]\w*")
PRIVATE_ALLOWED = {  # torch says nowhere else what the processor can do
    "irgen/compute/machine.py": {
        "torch.cpu._is_amx_tile_supported",
        "torch.cpu._is_avx512_bf16_supported",
    },
    "irgen/search/linear.py": {
        "torch.ops.mkldnn._is_mkldnn_bf16_supported",
        "torch.cpu._is_vnni_supported",
    },
}
VAGUE_STARTS = {"What", "Whether", "The", "How", "Where", "When", "Who", "Which"}
DESCRIBED = (ast.FunctionDef, ast.ClassDef, ast.Module)
CONDUCTORS = {"dvc", "prefect", "flows"}
DISK_AND_NETWORK = {"pathlib", "os", "shutil", "socket", "urllib", "requests", "tempfile", "io"}


def imports(path: Path) -> set[str]:
    """Return the dotted names that a module imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def unit(dotted: str) -> str:
    """Return the line of ORDER that ``irgen.x.y`` belongs to."""
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else ""


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_go_downward(path: Path) -> None:
    own = path.relative_to(ROOT / "irgen").parts[0].removesuffix(".py")
    if own == "__init__":
        return
    assert own in ORDER, f"{name(path)}: give {own} its place in ORDER"
    for dotted in imports(path):
        if dotted.startswith("irgen.") and (other := unit(dotted)) in ORDER and other != own:
            assert ORDER.index(other) < ORDER.index(own), f"{name(path)} imports {dotted}, above it"


@pytest.mark.parametrize("package", ONE_IMPORTER)
def test_a_heavy_package_has_one_importer(package: str) -> None:
    importers = {
        name(path) for path in MODULES if package in {i.split(".")[0] for i in imports(path)}
    }
    importer = ONE_IMPORTER[package]
    strangers = {each for each in importers if importer is None or not each.startswith(importer)}
    assert not strangers, f"{package} is imported by {strangers}"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_nothing_in_irgen_knows_its_conductors_or_has_a_drawer_for_odds_and_ends(
    path: Path,
) -> None:
    roots = {dotted.split(".")[0] for dotted in imports(path)}
    assert not roots & CONDUCTORS
    vague = {"utils", "helpers", "common", "base", "manager"}
    assert (
        not {
            part
            for dotted in imports(path)
            if dotted.startswith("irgen")
            for part in dotted.split(".")
        }
        & vague
    )
    assert path.stem not in vague


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.parent.name in ("models", "search")], ids=name
)
def test_models_and_search_touch_no_disk_and_no_network(path: Path) -> None:
    assert not {dotted.split(".")[0] for dotted in imports(path)} & DISK_AND_NETWORK
    calls = [
        node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
    ]
    assert not [f for f in calls if isinstance(f, ast.Name) and f.id == "open"]
    reads = {("torch", "load"), ("torch", "save"), ("np", "load"), ("np", "save")}
    used = {
        (f.value.id, f.attr)
        for f in calls
        if isinstance(f, ast.Attribute) and isinstance(f.value, ast.Name)
    }
    assert not used & reads


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_what_others_call_has_a_docstring(path: Path) -> None:
    module = ast.parse(path.read_text())
    assert ast.get_docstring(module), f"{name(path)}: what is this file?"
    public = [
        node
        for node in module.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
    ]
    bare = [node.name for node in public if not ast.get_docstring(node) and not is_section(node)]
    assert not bare, f"{name(path)}: no docstring: {', '.join(bare)}"


def is_section(node: ast.AST) -> bool:
    """Tell whether a class is a section of params.yaml, which its name and the comments of its
    fields describe."""
    return isinstance(node, ast.ClassDef) and bool(node.decorator_list)


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_nothing_is_pickled_or_evaluated(path: Path) -> None:
    assert not {dotted.split(".")[0] for dotted in imports(path)} & {"pickle", "joblib", "dill"}


def test_irgen_has_few_names_at_its_top() -> None:
    names = {path.relative_to(ROOT / "irgen").parts[0].removesuffix(".py") for path in MODULES}
    public = {each for each in names if not each.startswith("__")}
    assert len(public) <= MOST_NAMES, sorted(public)


@pytest.mark.parametrize("path", ALL, ids=name)
def test_no_file_is_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", ALL, ids=name)
def test_no_private_name_of_a_library_is_touched(path: Path) -> None:
    touched = set(PRIVATE.findall(path.read_text()))
    assert touched <= PRIVATE_ALLOWED.get(name(path), set())


@pytest.mark.parametrize("path", [*ALL, *BENCHMARKS, *TESTS], ids=name)
def test_a_docstring_says_at_once_what_is_done(path: Path) -> None:
    """Let the docstring of a test file state a behaviour as a sentence."""
    kinds = (ast.FunctionDef, ast.ClassDef) if path in TESTS else DESCRIBED
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]
    texts = [text for node in nodes if (text := ast.get_docstring(node))]
    assert not [text for text in texts if text.split()[0] in VAGUE_STARTS]
