"""Build the trie of the database's codes, which beam search walks.

Time: one sort of N codes, N log N. Memory: a few numbers an image.
"""

from collections.abc import Callable

from irgen.checkpoints import tensor_file
from irgen.checkpoints.identifiers import load_codes
from irgen.errors import CatalogError
from irgen.files.workspace import Workspace
from irgen.params import Params
from irgen.search import trie


def run(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Write ``data/trie/trie.safetensors``. Time O(N log N), memory O(N M)."""
    codes = load_codes(workspace.existing("identifiers", "database")).codes
    if not len(codes):
        raise CatalogError("the database has no image; name its roles in catalog: database")
    built = trie.build(codes)
    tensor_file.save(workspace.stage("trie") / "trie.safetensors", trie.to_tensors(built), {})
    nodes = {f"nodes/level_{m + 1}": float(len(e)) for m, e in enumerate(built.codes)}
    return nodes | {"images": float(len(codes)), "bytes_per_image": built.nbytes / len(codes)}
