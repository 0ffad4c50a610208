"""Run a frozen backbone by ONNX Runtime, on a CPU in fp32: about twice as fast as PyTorch does."""

import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from irgen.models.encoder import ImageEncoder, RunBackbone, run_backbone

FEW = 100  # images: exporting a network takes as long as it saves with so many


def expect(encoder: ImageEncoder, images: int) -> None:
    """Prepare to encode so many images in inference mode and fp32, with the weights of now: if they
    are many, and on a CPU, ONNX Runtime runs the network until it is trained."""
    is_here = encoder.mean.device.type == "cpu"
    if images >= FEW and is_here and encoder.exported is None:
        encoder.exported = export(encoder.backbone, encoder.decoding.shape)


class _Backbone(nn.Module):
    def __init__(self, backbone: Any):
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return run_backbone(self.backbone, images)


def export(backbone: nn.Module, shape: tuple[int, int, int]) -> RunBackbone | None:
    """Return a function that does what ``run_backbone`` does with a backbone in eval mode and its
    weights of now, for images of ``shape`` (C, H, W); None if it cannot be exported."""
    import onnxruntime  # takes half a second

    axes = {name: {0: "batch"} for name in ("images", "summaries", "features")}
    with tempfile.TemporaryDirectory(prefix="irgen-") as folder:
        file = Path(folder) / "backbone.onnx"
        try:
            with warnings.catch_warnings():  # this exporter, which needs no compiler, is an old one
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    _Backbone(backbone).eval(),
                    (torch.zeros(2, *shape),),
                    file,
                    dynamo=False,
                    input_names=["images"],
                    output_names=["summaries", "features"],
                    dynamic_axes=axes,
                )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError):
            return None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry(
            "session.intra_op.allow_spinning", "0"
        )  # others need cores
        options.log_severity_level = 3  # errors
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        arrays = session.run(None, {"images": images.contiguous().numpy()})
        summaries, features = map(torch.from_numpy, arrays)
        return summaries, features

    return run
