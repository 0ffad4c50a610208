"""Estimate what a build will cost on this machine: time and disk."""

import os
import time
from dataclasses import dataclass

from irgen.params import Params
from irgen.params.presets import Collection

BATCH, REPEATS = 8, 2
# Seconds of one step with a batch of 128, measured with 287 training photos on two cores that other
# programs used too; STAGES, for all else, is a guess on the safe side (40 s were measured).
TOKENIZER_STEP, RETRIEVER_STEP, STAGES = 0.07, 0.1, 120.0
REFERENCE_CORES = 2
BACKWARD = 3  # a training step takes as long as three encodings of its batch
VALIDATING = 1.5  # of all training images that a round encodes, with those that validate
FIXED_BYTES = 0.2e9  # models, their copies, MLflow's files


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Cores, memory in bytes (0: unknown) and the GPU's name ("": none) of this machine."""

    cores: int
    memory: int
    gpu: str


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Estimate of a first build: seconds, bytes on disk, and the milliseconds that encoding an
    image took just now."""

    seconds: float
    bytes: float
    encoding: float


def describe_machine() -> Machine:
    """Return what this machine has."""
    import torch

    from irgen.catalog.images.pixels import count_cores

    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        memory = 0
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
    return Machine(cores=count_cores(), memory=memory, gpu=gpu)


def estimate_costs(
    params: Params, collection: Collection, image_bytes: float, machine: Machine
) -> Costs:
    """Return the costs of a first build: encoding is timed on this machine with random pixels, the
    rest is scaled from another one. `image_bytes`: mean size of an image's file."""
    import torch

    from irgen.checkpoints.weights import untrained_encoder

    device = torch.device("cuda" if machine.gpu else "cpu")
    encoder = untrained_encoder(params.encoder).eval().to(device)
    pixels = torch.zeros(BATCH, *encoder.decoding.shape, device=device)
    with torch.inference_mode():
        encoder(pixels)
        start = time.perf_counter()
        for _ in range(REPEATS):
            summary, _ = encoder(pixels)
        summary.sum().item()  # waits for a GPU
    encoding = (time.perf_counter() - start) / (BATCH * REPEATS)  # seconds an image
    views = collection.trained * params.augment.views
    encoded = 1.5 * collection.images + views
    if params.tokenizer.tune_encoder:
        encoded += collection.images + _encoded_by_tuning(params, collection)
        encoded += views if params.tokenizer.probe_steps else 0
    share = 0.1 if machine.gpu else min(1.0, REFERENCE_CORES / machine.cores)
    seconds = encoded * encoding + STAGES + share * _training_seconds(params)
    tokens = 2 * encoder.token_count * encoder.token_width  # half precision
    stored = 2 * collection.images * image_bytes + views * tokens
    return Costs(seconds=seconds, bytes=stored + FIXED_BYTES, encoding=1000 * encoding)


def _encoded_by_tuning(params: Params, collection: Collection) -> float:
    """Return the work of a training of the encoder, as a number of images that are encoded."""
    tokenizer, side = params.tokenizer, params.encoder.image_size
    size = (tokenizer.tuned_size or side) / side
    rounds = tokenizer.steps / max(tokenizer.validate_every, 1)
    trained = tokenizer.steps * tokenizer.batch_size * size**2
    return BACKWARD * trained + rounds * VALIDATING * collection.trained


def _training_seconds(params: Params) -> float:
    tokenizer, retriever = params.tokenizer, params.retriever
    return (
        tokenizer.steps * TOKENIZER_STEP * tokenizer.batch_size
        + retriever.steps * RETRIEVER_STEP * retriever.batch_size
    ) / 128
