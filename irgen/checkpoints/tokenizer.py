"""Save and load the tokenizer: weights, codebooks, configuration and class names."""

from dataclasses import asdict
from pathlib import Path

from irgen.checkpoints import tensor_file
from irgen.checkpoints.weights import untrained_encoder
from irgen.models.tokenizer import Tokenizer
from irgen.params import Encoder
from irgen.params import Tokenizer as Settings
from irgen.params.strict import parse


def save_tokenizer(
    path: Path, model: Tokenizer, encoder: Encoder, settings: Settings, labels: list[str]
) -> None:
    """Write the tokenizer with everything that loading needs. ``labels``: class names, or numbers
    of clusters."""
    config = {
        "encoder": asdict(encoder),
        "tokenizer": asdict(settings),
        "labels": labels,
        "summary_width": model.adapter.summary_width,
    }
    tensor_file.save(path, model.state_dict(), config)


def load_tokenizer(path: Path) -> tuple[Tokenizer, list[str]]:
    """Return the trained tokenizer in eval mode and its class names. Raises ArtifactError for a
    file that is missing, damaged or of something else."""
    config = tensor_file.load_config(path, "tokenizer", "encoder", "labels", "summary_width")
    tensors, _ = tensor_file.load(path)
    settings = parse(Settings, config["tokenizer"], where=str(path))
    encoder = parse(Encoder, config["encoder"], where=str(path))
    tuned = untrained_encoder(encoder) if settings.tune_encoder else None
    model = Tokenizer(settings, config["summary_width"], len(config["labels"]), tuned)
    tensor_file.load_into(model, tensors, path)
    return model.eval(), config["labels"]
