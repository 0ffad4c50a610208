"""Ranking losses: they pull images of a label together and push others away.

The one file that imports pytorch-metric-learning, a package of the extra ``compare``.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from irgen.errors import ExtraError
from irgen.models.descriptors import CgdHead, IrtHead
from irgen.params.baselines import Cgd, Irt


def load_library() -> Any:
    """Return pytorch-metric-learning. Raises ExtraError, naming what to install."""
    try:
        import pytorch_metric_learning.distances
        import pytorch_metric_learning.losses
        import pytorch_metric_learning.miners
        import pytorch_metric_learning.reducers
    except ImportError as error:
        raise ExtraError("pytorch_metric_learning", "compare", error) from error
    return pytorch_metric_learning


def cgd_losses(
    head: CgdHead, embeddings: Tensor, labels: Tensor, settings: Cgd
) -> dict[str, Tensor]:
    """Return CGD's losses of unit vectors (B, D) and class numbers (B,): ``loss/triplet``, of every
    anchor's furthest positive and nearest negative in the batch, and ``loss/class``; ``loss`` is
    their sum, the second one weighted."""
    logits = head.classify(embeddings)
    values = {
        "loss/triplet": hardest_triplet_loss(embeddings, labels, settings.margin),
        "loss/class": F.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing),
        "accuracy": (logits.argmax(-1) == labels).float().mean(),
    }
    values["loss"] = values["loss/triplet"] + settings.class_weight * values["loss/class"]
    return values


def irt_losses(
    head: IrtHead, embeddings: Tensor, labels: Tensor, settings: Irt
) -> dict[str, Tensor]:
    """Return IRT_R's losses of unit vectors (B, D) and class numbers (B,): ``loss/contrast`` and
    ``loss/entropy``; ``loss`` is their sum, the second one weighted."""
    values = {
        "loss/contrast": contrastive_loss(embeddings, labels, settings.margin),
        "loss/entropy": koleo_loss(embeddings),
    }
    values["loss"] = values["loss/contrast"] + settings.koleo * values["loss/entropy"]
    return values


def hardest_triplet_loss(embeddings: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Return the mean over anchors by how much their hardest triplet in the batch violates the
    margin of distances, 0 if it does not.

    >>> points = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    >>> hardest_triplet_loss(points, torch.tensor([0, 0, 1, 1]), 0.1).item()
    0.0
    >>> round(hardest_triplet_loss(points, torch.tensor([0, 1, 0, 1]), 0.1).item(), 3)
    2.1
    """
    learning = load_library()
    triplets = learning.miners.BatchHardMiner()(embeddings, labels)
    mean = learning.reducers.MeanReducer()
    loss = learning.losses.TripletMarginLoss(margin=margin, reducer=mean)
    return loss(embeddings, labels, triplets)


def contrastive_loss(embeddings: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Sum 1 − cosine over an anchor's positives and cosine − ``margin``, where that is
    above 0, over its negatives; return the mean over the batch's anchors, as in IRT_R.

    >>> points = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
    >>> labels = torch.tensor([0, 0, 1])  # 2 (0.2 + 0.1 + 0.46) / 3
    >>> round(contrastive_loss(points, labels, 0.5).item(), 3)
    0.507
    """
    learning = load_library()
    loss = learning.losses.ContrastiveLoss(
        pos_margin=1,
        neg_margin=margin,
        distance=learning.distances.CosineSimilarity(),
        reducer=learning.reducers.SumReducer(),
    )
    return loss(embeddings, labels) / len(embeddings)


def koleo_loss(embeddings: Tensor) -> Tensor:
    """Return the negated Kozachenko-Leonenko estimate of the batch's differential entropy: the mean
    −log distance of each vector to its nearest neighbour in the batch. 0 of a lone vector.

    >>> round(koleo_loss(torch.tensor([[1.0, 0.0], [0.8, 0.6], [-1.0, 0.0]])).item(), 3)
    0.092
    """
    if len(embeddings) < 2:
        return embeddings.sum() * 0
    with torch.no_grad():
        rows = (embeddings @ embeddings.T).fill_diagonal_(-2).argmax(1)  # (B,)
    nearest = embeddings[rows]
    return -(F.pairwise_distance(embeddings, nearest)).log().mean()
