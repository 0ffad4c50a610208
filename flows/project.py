"""The project a flow works on, and where the flows keep what they have to remember."""

from pathlib import Path

from irgen.errors import IrgenError


class ProjectError(IrgenError):
    """The folder is not a project that flows can work on."""


def find(root: str) -> Path:
    """The absolute path of the project's folder. Raises ProjectError if there is no pipeline."""
    path = Path(root).expanduser().resolve()
    for name in ("dvc.yaml", ".dvc"):
        if not (path / name).exists():
            raise ProjectError(
                f"{path} has no {name}: give the project's folder, by the flow's parameter root or "
                "as IRGEN_ROOT when prefect deploy and the worker are started"
            )
    return path


def memory(root: Path) -> Path:
    """The folder of the flows' own notes. It may be deleted when nothing runs: the next update
    then looks at every stage and says that all images are new."""
    folder = root / ".cache" / "flows"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
