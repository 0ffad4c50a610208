"""Result that every search method returns."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Result:
    """Best k images of each query, best first.

    ``ids`` (Q, k) int64 database rows, −1 where there are fewer than k; ``scores`` (Q, k) float32,
    −inf there. Scores compare within one query and one method only.
    """

    ids: Tensor
    scores: Tensor

    def __post_init__(self) -> None:
        assert self.ids.shape == self.scores.shape, "ids and scores must have one shape"
