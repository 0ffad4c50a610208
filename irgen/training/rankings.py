"""Losses of ranking: what pulls images of a label together and pushes others away.

The one file that imports pytorch-metric-learning, a package of the extra ``compare``.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from irgen.errors import ExtraError
from irgen.models.descriptors import Combined, Projected
from irgen.params.baselines import Cgd, Irt


def library() -> Any:
    """pytorch-metric-learning. Raises ExtraError, naming what to install, if it is not there."""
    try:
        import pytorch_metric_learning.distances
        import pytorch_metric_learning.losses
        import pytorch_metric_learning.miners
        import pytorch_metric_learning.reducers
    except ImportError as error:
        raise ExtraError("pytorch_metric_learning", "compare", error) from error
    return pytorch_metric_learning


def combined(
    head: Combined, embeddings: Tensor, labels: Tensor, settings: Cgd
) -> dict[str, Tensor]:
    """CGD's losses of unit vectors (B, D) and class numbers (B,): ``loss/triplet``, of every
    anchor's furthest positive and nearest negative in the batch, and ``loss/class``; ``loss`` is
    their sum, the second one weighted."""
    logits = head.classify(embeddings)
    found = {
        "loss/triplet": hardest_triplets(embeddings, labels, settings.margin),
        "loss/class": F.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing),
        "accuracy": (logits.argmax(-1) == labels).float().mean(),
    }
    found["loss"] = found["loss/triplet"] + settings.class_weight * found["loss/class"]
    return found


def contrasted(
    head: Projected, embeddings: Tensor, labels: Tensor, settings: Irt
) -> dict[str, Tensor]:
    """IRT_R's losses of unit vectors (B, D) and class numbers (B,): ``loss/contrast`` and
    ``loss/entropy``; ``loss`` is their sum, the second one weighted."""
    found = {
        "loss/contrast": contrast(embeddings, labels, settings.margin),
        "loss/entropy": koleo(embeddings),
    }
    found["loss"] = found["loss/contrast"] + settings.koleo * found["loss/entropy"]
    return found


def hardest_triplets(embeddings: Tensor, labels: Tensor, margin: float) -> Tensor:
    """By how much the batch's hardest triplets, one an anchor, violate the margin of their
    distances, 0 if they do not: the mean over all of them.

    >>> points = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    >>> hardest_triplets(points, torch.tensor([0, 0, 1, 1]), 0.1).item()
    0.0
    >>> round(hardest_triplets(points, torch.tensor([0, 1, 0, 1]), 0.1).item(), 3)
    2.1
    """
    learning = library()
    triplets = learning.miners.BatchHardMiner()(embeddings, labels)
    mean = learning.reducers.MeanReducer()
    loss = learning.losses.TripletMarginLoss(margin=margin, reducer=mean)
    return loss(embeddings, labels, triplets)


def contrast(embeddings: Tensor, labels: Tensor, margin: float) -> Tensor:
    """The sum of 1 − cosine over an anchor's positives and of cosine − ``margin``, where that is
    above 0, over its negatives; the mean over the batch's anchors, as in IRT_R.

    >>> points = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
    >>> round(contrast(points, torch.tensor([0, 0, 1]), 0.5).item(), 3)  # 2 (0.2 + 0.1 + 0.46) / 3
    0.507
    """
    learning = library()
    loss = learning.losses.ContrastiveLoss(
        pos_margin=1,
        neg_margin=margin,
        distance=learning.distances.CosineSimilarity(),
        reducer=learning.reducers.SumReducer(),
    )
    return loss(embeddings, labels) / len(embeddings)


def koleo(embeddings: Tensor) -> Tensor:
    """The Kozachenko-Leonenko estimate of the batch's differential entropy, negated: the mean of
    −log of each vector's distance to its nearest neighbour in the batch. 0 of a lone vector.

    >>> round(koleo(torch.tensor([[1.0, 0.0], [0.8, 0.6], [-1.0, 0.0]])).item(), 3)
    0.092
    """
    if len(embeddings) < 2:
        return embeddings.sum() * 0
    with torch.no_grad():
        places = (embeddings @ embeddings.T).fill_diagonal_(-2).argmax(1)  # (B,)
    nearest = embeddings[places]
    return -(F.pairwise_distance(embeddings, nearest)).log().mean()
