"""Caches are keyed by version numbers: whoever changes a result raises the module's VERSION.

Then record the new values: ``python -m tests.test_versions``. It records nothing for a module whose
VERSION is the recorded one.
"""

import io
import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from irgen.catalog import fingerprints
from irgen.catalog.images import pixels as images
from irgen.catalog.images.decode import decode
from irgen.catalog.images.pixels import Decoding
from irgen.checkpoints.weights import create_encoder
from irgen.compute.machine import Machine
from irgen.compute.seeds import seed_everything
from irgen.encoding import augment
from irgen.encoding.batches import EncodedViews, LabelledImages
from irgen.models import clusters, decoder, descriptors, encoder, quantizer, tokenizer
from irgen.models.retriever import Retriever
from irgen.params import Augment, Encoder
from irgen.params import Retriever as RetrieverSettings
from irgen.params import Tokenizer as TokenizerSettings
from irgen.params.baselines import Cgd, Irt
from irgen.search import engine, trie
from irgen.search.decoder import Decoder
from irgen.search.engine import Options, QueryFeatures
from irgen.search.relevance import Ranker
from irgen.search.snapshot import Snapshot
from irgen.training import descriptors as descriptor_training
from irgen.training import retriever as retriever_training
from irgen.training import tokenizer as tokenizer_training
from irgen.training.run import TrainingRun

from .small_index import RANKING

RECORD = Path(__file__).with_name("versions.json")
TOLERANCE = 2e-3  # processors round differently
CPU = Machine(device=torch.device("cpu"), autocast=None)
SHORT = {"steps": 6, "batch_size": 16, "warmup": 0.5, "learning_rate": 0.02}
TOKENIZER = TokenizerSettings(
    levels=2, codebook=4, width=6, tune_encoder=False, weight_decay=0.1, validate_every=3, **SHORT
)
RETRIEVER = RetrieverSettings(width=16, layers=1, heads=2, dropout=0.0, validate_every=3, **SHORT)
SHAPE = decoder.Shape(summary_width=10, token_width=10, token_count=3, levels=2, codebook=4)

Values = list[float]


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def listed(*tensors: Tensor) -> Values:
    """Return the first numbers of each tensor and the mean of its absolute values."""
    numbers: Values = []
    for tensor in tensors:
        flat = tensor.detach().double().flatten()
        numbers += [*flat[:8].tolist(), float(flat.abs().mean())]
    return numbers


def decoded() -> Values:
    """Pixels of a picture that is rotated, transparent in part, and not square, and of a photo
    that is shrunk as it is decoded."""
    values = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    exif, content = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    picture = Image.fromarray(values.repeat(5, 0).repeat(5, 1), "RGBA")
    picture.save(content, "PNG", exif=exif)
    decoding = Decoding(size=8, channels=3, crop=0.9, interpolation="bicubic")
    photo = io.BytesIO()
    picture.convert("RGB").resize((90, 70)).save(photo, "JPEG")
    shrunk = images.square(decode(photo.getvalue(), 3, decoding.short), decoding)
    square = images.square(decode(content.getvalue(), 3), decoding)
    return [*square.flatten().tolist(), *shrunk.flatten()[::5].tolist()]


def fingerprinted() -> Values:
    """Bits of a picture's fingerprint, and its thumbnail."""
    values = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    picture = Image.fromarray(values)
    halves = np.array(fingerprints.fingerprint(picture), np.uint64)
    bits = np.unpackbits(halves.view(np.uint8)).tolist()
    return [*map(float, bits), *fingerprints.thumbnail(picture)[:8].tolist()]


def encoded() -> Values:
    config = Encoder(
        name="resnet10t",
        weights="none",
        image_size=32,
        channels=1,
        options={"channels": [8, 8, 16, 24], "stem_width": 8},
    )
    pixels = (torch.arange(2 * 32 * 32) * 7 % 256).view(2, 1, 32, 32)
    with torch.inference_mode():
        return listed(*create_encoder(config, 0).eval()(pixels))


def augmented() -> Values:
    changes = Augment(scale=0.2, rotate=9, shear=4, shift=0.1, flip=True, colour=0.2, erase=0.5)
    pixels = (torch.arange(4 * 8 * 8) * 7 % 256).view(4, 1, 8, 8)
    images = augment.augment(pixels, changes, 6, torch.Generator().manual_seed(0))
    return listed(*(images / 255))


def grouped(width: int) -> tuple[Tensor, Tensor]:
    """Return 48 vectors around 4 centres that are far apart, and their numbers."""
    labels = torch.arange(48) % 4
    return 5 * random(4, width)[labels] + random(48, width), labels


def quantised() -> Values:
    codebooks, _ = quantizer.fit(grouped(6)[0], None, (2, 4), 5, 0)
    return listed(codebooks, quantizer.encode(grouped(6)[0], codebooks))


def clustered() -> Values:
    numbers = clusters.cluster(grouped(6)[0], 4, 5, 0)
    return listed(clusters.match_numbers(numbers, grouped(6)[1], 4))


def tokenized() -> Values:
    torch.manual_seed(0)
    model = tokenizer.Tokenizer(TOKENIZER, 10, 4, None).eval()
    model.codebooks.copy_(random(2, 4, 6) / 3)
    vectors, labels = grouped(10)
    embeddings = model.embed(vectors)
    values = tokenizer.losses(model, embeddings, labels, TOKENIZER)
    return listed(embeddings, *values.values())


def predicted() -> Values:
    torch.manual_seed(0)
    model = decoder.IdentifierDecoder(RETRIEVER, SHAPE).eval()
    codes = torch.arange(8).view(4, 2) % 4
    logits = model(random(4, 10), random(4, 3, 10), codes)
    return listed(10 * logits, decoder.loss(logits, codes, 0.1))


def described() -> Values:
    torch.manual_seed(0)
    heads = (
        descriptors.CgdHead(10, 4, Cgd(width=6, hidden=0)),
        descriptors.IrtHead(10, Irt(width=6, hidden=0)),
    )
    inputs = random(4, 10), random(4, 3, 10)
    return listed(*(descriptors.DescriptorModel(head, None).eval()(*inputs) for head in heads))


def views() -> tuple[EncodedViews, Tensor]:
    vectors, labels = grouped(10)
    summaries = vectors[:, None].numpy()
    return EncodedViews(summaries, summaries[:, :, None].repeat(3, 2)), labels


def of_history(history: list[dict[str, float]]) -> Values:
    return [row[name] for row in history for name in ("loss", *sorted(row)[:3])]


def run() -> TrainingRun:
    return TrainingRun(machine=CPU, seed=0, log=lambda row, step: None)


def trained_tokenizer() -> Values:
    seed_everything(0)
    model = tokenizer.Tokenizer(TOKENIZER, 10, 4, None)
    data = LabelledImages(views()[0].without_tokens(), views()[1])
    history = tokenizer_training.train(model, data, data, TOKENIZER, run())
    return of_history(history) + listed(model.embed(grouped(10)[0]))


def trained_retriever() -> Values:
    seed_everything(0)
    model = Retriever(None, decoder.IdentifierDecoder(RETRIEVER, SHAPE))
    data, labels = views()
    codes = torch.stack([labels, torch.arange(48) // 12], dim=1)
    pairs = retriever_training.Pairs(data, codes, (torch.arange(48) + 4) % 48, torch.arange(49))
    validation = retriever_training.Validation(LabelledImages(data, labels), labels)
    history = retriever_training.train(model, pairs, validation, RETRIEVER, run())
    logits = model.eval()(data.plain(torch.arange(8)), codes[:8])
    return of_history(history) + listed(logits)


def trained_descriptors() -> Values:
    losses = pytest.importorskip("irgen.training.ranking_losses")
    losses.load_library()
    seed_everything(0)
    settings = Cgd(width=6, hidden=0, dropout=0.0, per_label=2, **SHORT)
    model = descriptors.DescriptorModel(descriptors.CgdHead(10, 4, settings), None)
    data = LabelledImages(*views())
    history = descriptor_training.train(model, data, losses.cgd_losses, settings, run())
    return of_history(history) + listed(model.eval()(*data.images.plain(torch.arange(8))))


class LabelReader:
    """Reads two labels, as likely as two of the first codes."""

    code_labels = torch.eye(4)[:, :2]

    def read_labels(self, embeddings: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
        return log_probs[:, :2].softmax(1)


def searched() -> Values:
    torch.manual_seed(0)
    model = decoder.IdentifierDecoder(RETRIEVER, SHAPE)
    for parameter in model.parameters():
        parameter.data *= 3  # far from uniform, so that the order is certain
    vectors = torch.nn.functional.normalize(random(40, 5), dim=1)
    codes = torch.stack([torch.arange(40) % 4, torch.arange(40) // 10], dim=1)
    database = Snapshot.fixed(trie.build(codes), codes, vectors, random(2, 4, 5))
    queries = QueryFeatures(random(4, 10), random(4, 3, 10), vectors[:4] + 0.3 * vectors[4:8])
    numbers: Values = []
    ranker = Ranker(RANKING, torch.arange(40) % 3, torch.arange(40) % 5 > 0)
    for options, kinds in (
        (Options(beams=4), None),
        (Options(beams=4, rerank=False), None),
        (Options(beams=4, hedge=2.0), ranker),
    ):
        reader = Decoder(model, label_scorer=LabelReader())
        hits = engine.search(reader, queries, database, 3, options, kinds)
        numbers += listed(hits.rows, hits.scores)
    return numbers


def answered() -> Values:
    """Return the versions that an index's answers depend on; that module imports no networks."""
    return [module.VERSION for module in (images, encoder, tokenizer, quantizer, decoder, engine)]


CASES: dict[str, Callable[[], Values]] = {
    "irgen.catalog.images.pixels": decoded,
    "irgen.catalog.fingerprints": fingerprinted,
    "irgen.models.encoder": encoded,
    "irgen.encoding.augment": augmented,
    "irgen.models.quantizer": quantised,
    "irgen.models.clusters": clustered,
    "irgen.models.tokenizer": tokenized,
    "irgen.models.decoder": predicted,
    "irgen.models.descriptors": described,
    "irgen.training.tokenizer": trained_tokenizer,
    "irgen.training.retriever": trained_retriever,
    "irgen.training.descriptors": trained_descriptors,
    "irgen.search.engine": searched,
    "irgen.evaluation.answer_cache": answered,
}


def version_of(name: str) -> int:
    return import_module(name).VERSION


@pytest.mark.parametrize("name", CASES)
def test_a_changed_result_has_a_new_version(name: str) -> None:
    record, path = json.loads(RECORD.read_text())[name], name.replace(".", "/") + ".py"
    assert record["version"] == version_of(name), (
        f"{path} has a new VERSION: record its values with `python -m tests.test_versions`"
    )
    same = CASES[name]() == pytest.approx(record["values"], rel=TOLERANCE, abs=TOLERANCE)
    assert same, (
        f"the results of {path} changed: raise its VERSION and record the new values with "
        "`python -m tests.test_versions`"
    )


def main() -> None:
    """Record the values of every module whose VERSION is not the recorded one."""
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    for name, values in CASES.items():
        if record.get(name, {}).get("version") != version_of(name):
            rounded = [round(value, 4) for value in values()]
            record[name] = {"version": version_of(name), "values": rounded}
            print(f"recorded {name}, VERSION {version_of(name)}")
    lines = [f'"{name}": {json.dumps(record[name])}' for name in CASES]
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
