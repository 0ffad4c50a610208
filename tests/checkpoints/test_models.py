"""Models saved and loaded give the same bits, whoever encodes what."""

import dataclasses
import shutil
from copy import deepcopy

import pytest
import torch

from irgen.checkpoints import models as artifact
from irgen.checkpoints import tensor_file
from irgen.checkpoints.models import Models, assemble, load_models, save_models
from irgen.checkpoints.retriever import initial_query_encoder, save_retriever
from irgen.checkpoints.tokenizer import load_tokenizer, save_tokenizer
from irgen.checkpoints.weights import create_encoder
from irgen.errors import ArtifactError, IrgenError
from irgen.models.decoder import IdentifierDecoder, Shape
from irgen.models.retriever import Retriever
from irgen.models.tokenizer import Tokenizer

from .. import tiny

CPU = torch.device("cpu")
ENCODER = dataclasses.replace(tiny.ENCODER, crop=0.875)
CASES = {
    f"the tokenizer's encoder {own}, the retriever reads by the {source}'s {tuned}": (a, source, b)
    for a, own in ((False, "frozen"), (True, "tuned"))
    for source in ("pretrained", "tokenizer")
    for b, tuned in ((False, "frozen"), (True, "tuned"))
}


def change(module, seed=1):
    """Other weights than the ones it was made with, as if it had been trained."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for weights in module.parameters():
            weights.add_(0.1 * torch.randn_like(weights))
    return module


@pytest.fixture
def make(tokenizer_settings, retriever_settings):
    """Models of one of CASES and the sections they are made by."""

    def build(tokenizer_tuned: bool, source: str, reader_tuned: bool):
        sections = (
            ENCODER,
            dataclasses.replace(tokenizer_settings, tune_encoder=tokenizer_tuned),
            dataclasses.replace(
                retriever_settings, encoder=source, tune_encoder=reader_tuned, dropout=0.0
            ),
        )
        pretrained = create_encoder(ENCODER, seed=0)
        own = change(deepcopy(pretrained)) if tokenizer_tuned else None
        tokenizer = Tokenizer(sections[1], pretrained.width, 3, own)
        tokenizer.codebooks.copy_(torch.randn_like(tokenizer.codebooks))
        reader = initial_query_encoder(pretrained, tokenizer, source)
        reader = change(deepcopy(reader), 2) if reader_tuned else reader
        width = pretrained.width if source == "pretrained" else tokenizer_settings.width
        shape = Shape(
            summary_width=width,
            token_width=pretrained.token_width,
            token_count=pretrained.token_count,
            levels=3,
            codebook=8,
        )
        retriever = Retriever(reader, IdentifierDecoder(sections[2], shape))
        models = Models(
            tokenizer=tokenizer, retriever=retriever, pretrained=pretrained, labels=["a", "b", "c"]
        )
        return models.to(CPU), sections

    return build


def pixels(count=5):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 1, 32, 32), generator=generator, dtype=torch.uint8)


def outputs(models):
    read = models.encode(pixels())
    codes = models.tokenize(read.embedding)
    logits = models.retriever.decoder(read.summary, read.tokens, codes)
    return [read.summary, read.tokens, read.embedding, models.embed(pixels()), codes, logits]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@torch.inference_mode()
def test_what_was_saved_reads_the_same_bits(make, tmp_path, case):
    models, sections = make(*case)
    save_models(tmp_path / "models", models, *sections)
    shutil.move(tmp_path / "models", tmp_path / "elsewhere")
    loaded = load_models(tmp_path / "elsewhere", CPU)
    for before, after in zip(outputs(models), outputs(loaded), strict=True):
        assert before.dtype == after.dtype and torch.equal(before, after)
    assert loaded.labels == models.labels and loaded.decoding == models.decoding
    save_models(tmp_path / "again", loaded, *sections)
    for path in (tmp_path / "elsewhere").iterdir():
        if path.name != artifact.PRETRAINED or loaded.pretrained is not None:
            assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@torch.inference_mode()
def test_who_encodes_what_is_what_training_says(make, case):
    models, _ = make(*case)
    tokenizer_tuned, source, reader_tuned = case
    encoder = models.tokenizer.encoder if tokenizer_tuned else models.pretrained
    assert encoder is not None
    read, embedding = models.encode(pixels()), models.tokenizer.adapt(encoder(pixels())[0])
    assert torch.equal(read.embedding, embedding)
    assert torch.equal(models.embed(pixels()), embedding)
    assert torch.equal(read.summary, models.query_encoder(pixels())[0])
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(5))
    if source == "tokenizer" and not reader_tuned:
        assert torch.equal(read.summary, embedding)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_no_encoder_runs_twice_on_an_image(make, case, monkeypatch):
    models, _ = make(*case)
    ran = []
    forward = type(models.encoder).forward
    monkeypatch.setattr(
        type(models.encoder), "forward", lambda own, x: ran.append(own) or forward(own, x)
    )
    models.encode(pixels())
    assert len(ran) == len({id(encoder) for encoder in ran}) <= 2
    shared = models.query_encoder.encoder is models.encoder
    assert len(ran) == (1 if shared else 2)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_weights_that_nobody_reads_by_are_not_kept(make, tmp_path, case):
    tokenizer_tuned, source, reader_tuned = case
    models, sections = make(*case)
    save_tokenizer(tmp_path / "t", models.tokenizer, *sections[:2], models.labels)
    retriever = models.retriever if reader_tuned else Retriever(None, models.retriever.decoder)
    save_retriever(tmp_path / "r", retriever, sections[2])
    assembled = assemble(tmp_path / "t", tmp_path / "r", models.pretrained)
    needed = not tokenizer_tuned or (source == "pretrained" and not reader_tuned)
    assert (assembled.pretrained is not None) == needed
    save_models(tmp_path / "models", assembled, *sections)
    assert bool(tensor_file.load(tmp_path / "models" / artifact.PRETRAINED)[0]) == needed
    loaded = load_models(tmp_path / "models", CPU)
    assert torch.equal(loaded.embed(pixels()), models.embed(pixels()))
    assert torch.equal(loaded.encode(pixels()).summary, models.encode(pixels()).summary)


def test_a_batch_of_none_is_read_as_none(make):
    models, _ = make(False, "tokenizer", False)
    assert models.encode(pixels(0)).embedding.shape == (0, 6)
    assert models.tokenize(torch.empty(0, 6)).shape == (0, 3)


def test_in_low_precision_an_embedding_is_still_adapted_in_full(make):
    models, _ = make(False, "tokenizer", False)
    with torch.autocast("cpu", torch.bfloat16):
        read = models.encode(pixels())
    assert {t.dtype for t in (read.summary, read.tokens, read.embedding)} == {torch.float32}
    torch.testing.assert_close(read.embedding.norm(dim=1), torch.ones(5))


FILES = [artifact.TOKENIZER, artifact.RETRIEVER, artifact.PRETRAINED]


@pytest.fixture
def saved(make, tmp_path):
    models, sections = make(False, "pretrained", False)
    save_models(tmp_path / "models", models, *sections)
    return tmp_path / "models"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "text"])
def test_a_damaged_file_is_refused_by_name(saved, name, damage):
    path = saved / name
    whole = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"empty": b"", "cut": whole[:-8], "text": b"weights"}[damage])
    with pytest.raises(ArtifactError, match=name):
        load_models(saved, CPU)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("other", FILES)
def test_a_file_of_something_else_is_refused_by_name(saved, name, other):
    if name == other:
        tensor_file.save(saved / name, {}, [{"step": 1}])
    else:
        shutil.copy(saved / other, saved / name)
    with pytest.raises(ArtifactError, match=f"{name} holds something else"):
        load_models(saved, CPU)


def test_a_neighbours_file_of_other_models_is_refused(make, saved, tmp_path):
    models, sections = make(True, "tokenizer", False)
    models = dataclasses.replace(models, pretrained=None)
    save_models(tmp_path / "other", models, *sections)
    shutil.copy(tmp_path / "other" / artifact.PRETRAINED, saved / artifact.PRETRAINED)
    with pytest.raises(ArtifactError, match="lacks the weights"):
        load_models(saved, CPU)
    narrow = dataclasses.replace(ENCODER, options={"channels": [8, 8, 8, 8], "stem_width": 8})
    save_models(saved, models, narrow, *sections[1:])
    with pytest.raises(IrgenError, match="another architecture"):
        load_models(saved, CPU)


def test_an_encoder_that_another_timm_would_feed_otherwise_is_refused(saved):
    path = saved / artifact.PRETRAINED
    tensors, config = tensor_file.load(path)
    config["inputs"]["interpolation"] = "nearest"
    tensor_file.save(path, tensors, config)
    with pytest.raises(ArtifactError, match="version of timm"):
        load_models(saved, CPU)


def test_a_tokenizer_taught_by_clusters_says_so(tokenizer_settings, tmp_path):
    settings = dataclasses.replace(tokenizer_settings, labels="clusters", clusters=3)
    save_tokenizer(tmp_path / "t", Tokenizer(settings, 10, 3, None), ENCODER, settings, [*"012"])
    assert tensor_file.load_config(tmp_path / "t")["tokenizer"]["labels"] == "clusters"
    assert load_tokenizer(tmp_path / "t")[1] == ["0", "1", "2"]
