"""Measure every search method on the same queries: quality, and time on this machine.

Time: queries × N for brute force, of at most ``evaluate.queries`` queries. Memory: one copy of N
vectors, since methods are built one after the other.
"""

from collections.abc import Callable

from irgen.checkpoints import tensor_file
from irgen.checkpoints.identifiers import ImageCodes, load_codes
from irgen.checkpoints.models import assemble
from irgen.checkpoints.weights import create_encoder
from irgen.encoding.encode import Encoding, decode_pixels, open_encoding
from irgen.encoding.query_features import encode_queries
from irgen.evaluation import answer_cache
from irgen.evaluation.latency import TIMED_BATCHES
from irgen.evaluation.measure import EvalConfig, measure_methods
from irgen.evaluation.methods import MethodInputs, brute_force_pretrained, list_builders
from irgen.evaluation.query_set import QuerySet, read_copies, read_query_set
from irgen.evaluation.summary import summarize
from irgen.files.records import read_json, write_json
from irgen.files.workspace import Workspace
from irgen.index.index import Index
from irgen.models.encoder import ImageEncoder
from irgen.params import Params
from irgen.search import trie
from irgen.search.snapshot import Snapshot


def run(params: Params, workspace: Workspace, log: Callable) -> dict[str, float]:
    """Measure the search methods; write ``data/evaluate/`` and ``reports/latency.json``.

    See ``measure.measure_methods``. Latency is no output of DVC, because it differs from machine to
    machine. Methods that do not apply are left out (``methods.METHODS``). Without the trie,
    generative methods also have ``invalid``, the share of predicted codes that no image has.
    """
    encoding, cutoffs = open_encoding(params.compute, workspace), params.evaluate.cutoffs
    query_set = read_query_set(workspace, params.evaluate)
    sha256s = query_set.queries["sha256"].to_list()
    pretrained = create_encoder(params.encoder, params.seed).eval().to(encoding.machine.device)
    identified = load_codes(workspace.existing("identifiers", "database"))
    inputs = load_inputs(params, workspace, encoding, query_set, identified, pretrained)
    size = params.evaluate.batch_size
    config = EvalConfig(
        query_set=query_set,
        cutoffs=cutoffs,
        batch_size=size,
        machine=encoding.machine,
        timing_images=lambda: decode_pixels(pretrained, sha256s[: TIMED_BATCHES * size], encoding),
        build_reference=lambda: brute_force_pretrained(inputs),
        copies=read_copies(workspace, query_set),
    )
    folder, latency_path = workspace.stage("evaluate"), workspace.reports / "latency.json"
    builders, codes = list_builders(inputs), identified.codes.numpy()
    metrics = measure_methods(builders, config, codes, folder, latency_path)
    write_json(folder / "summary.json", summarize(read_json(folder / "metrics.json")))
    if inputs.index is not None:
        answer_cache.cache_answers(inputs.index, workspace, params.evaluate, params.compute)
    return metrics


def load_inputs(
    params: Params,
    workspace: Workspace,
    encoding: Encoding,
    query_set: QuerySet,
    identified: ImageCodes,
    pretrained: ImageEncoder,
) -> MethodInputs:
    """Load models, database, index and query features."""
    device = encoding.machine.device
    models = assemble(
        workspace.existing("tokenizer", "tokenizer.safetensors"),
        workspace.existing("retriever", "retriever.safetensors"),
        pretrained,
    ).to(device)
    arrays, _ = tensor_file.load(workspace.existing("trie", "trie.safetensors"))
    return MethodInputs(
        settings=params.evaluate,
        has_labels=params.tokenizer.labels == "given",
        workspace=workspace,
        encoding=encoding,
        pretrained=pretrained,
        models=models,
        query_set=query_set,
        query_features=encode_queries(models, query_set.queries["sha256"].to_list(), encoding),
        identified=identified,
        snapshot=Snapshot.fixed(
            trie.from_tensors(arrays).to(device),
            identified.codes.to(device),
            identified.embeddings.to(device),
            models.tokenizer.codebooks,
        ),
        index=open_index(params, workspace, encoding),
    )


def open_index(params: Params, workspace: Workspace, encoding: Encoding) -> Index | None:
    """Open ``data/index``; None if the codes are not the tokenizer's."""
    if params.identifiers.rule != "semantic":
        return None
    machine = encoding.machine
    device, precision = str(machine.device), machine.decoder
    return Index.open(workspace.existing("index"), device=device, precision=precision)
