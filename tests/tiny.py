"""Small real things to test with: an encoder, untrained models, pictures of a few labels."""

import io

import numpy as np
import torch
from PIL import Image

from irgen.checkpoints.models import Models
from irgen.checkpoints.retriever import initial_query_encoder
from irgen.checkpoints.weights import create_encoder
from irgen.models.decoder import IdentifierDecoder, Shape
from irgen.models.retriever import Retriever
from irgen.models.text import TextEncoder, split_words
from irgen.models.tokenizer import Tokenizer
from irgen.params import Encoder, Texts
from irgen.params import Retriever as RetrieverSettings
from irgen.params import Tokenizer as TokenizerSettings
from irgen.training.texts import train_subwords

ENCODER = Encoder(
    name="resnet10t",
    weights="none",
    image_size=32,
    channels=1,
    crop=1.0,
    options={"channels": [8, 8, 16, 24], "stem_width": 8},
)


def untrained(
    encoder: Encoder, tokenizing: TokenizerSettings, retrieving: RetrieverSettings
) -> Models:
    """Real networks, enough to tell images apart; always the same."""
    torch.manual_seed(0)
    pretrained = create_encoder(encoder, seed=0)
    tokenizer = Tokenizer(tokenizing, pretrained.width, 1, None)
    tokenizer.codebooks.copy_(torch.randn_like(tokenizer.codebooks) / 3)
    shape = Shape(
        summary_width=tokenizing.width,
        token_width=pretrained.token_width,
        token_count=pretrained.token_count,
        levels=tokenizing.levels,
        codebook=tokenizing.codebook,
    )
    retriever = Retriever(
        initial_query_encoder(pretrained, tokenizer, "tokenizer"),
        IdentifierDecoder(retrieving, shape),
    )
    made = Models(tokenizer=tokenizer, retriever=retriever, pretrained=pretrained, labels=["a"])
    return made.to(torch.device("cpu"))


def text_encoder(texts: list[str], embedding_width: int) -> TextEncoder:
    """Return an untrained text encoder that knows the words of ``texts``; always the same."""
    torch.manual_seed(0)
    words = [split_words(text) for text in texts]
    settings = Texts(subwords=300)
    return TextEncoder(
        settings,
        train_subwords(words, settings.subwords),
        {word for text in words for word in text},
        embedding_width,
    ).eval()


def picture(label: int, number: int) -> bytes:
    """Return a PNG that looks like the others of its label."""
    pattern = np.random.default_rng(label).integers(0, 256, (4, 4)).repeat(6, 0).repeat(6, 1)
    noise = np.random.default_rng([label, number]).integers(-20, 21, pattern.shape)
    file = io.BytesIO()
    Image.fromarray(np.clip(pattern + noise, 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()
