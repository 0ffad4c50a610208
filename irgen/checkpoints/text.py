"""Save and load the text encoder: vectors, sub-words and the words that it knows."""

from dataclasses import asdict
from pathlib import Path

from irgen.checkpoints import tensor_file
from irgen.models.text import TextEncoder
from irgen.params import Texts as Settings
from irgen.params.strict import parse

TEXT_ENCODER = "text_encoder.safetensors"


def save_text_encoder(path: Path, model: TextEncoder | None) -> None:
    """Write the encoder with everything that loading needs; None: a file that says that there is
    none."""
    if model is None:
        tensor_file.save(path, {}, {"texts": None})
        return
    config = {
        "texts": asdict(model.settings),
        "subwords": model.subwords,
        "words": sorted(model.words),
        "width": model.table.embedding_dim,
    }
    tensor_file.save(path, model.state_dict(), config)


def load_text_encoder(path: Path) -> TextEncoder | None:
    """Return the trained encoder in eval mode; None if the catalogue that it is of has no texts.
    Raises ArtifactError for a file that is missing, damaged or of something else."""
    config = tensor_file.load_config(path, "texts")
    if config["texts"] is None:
        return None
    config = tensor_file.load_config(path, "texts", "subwords", "words", "width")
    settings = parse(Settings, config["texts"], where=str(path))
    model = TextEncoder(settings, config["subwords"], config["words"], config["width"])
    tensor_file.load_into(model, tensor_file.load(path)[0], path)
    return model.eval()
