"""An index of forty small images in tests: their names, its calibration and its ranking."""

from irgen.search.calibration import Bin, Calibration
from irgen.search.ranking import Ranking

NAMES = [f"{'dogs' if n % 4 else 'cats'}/{n:02d}.png" for n in range(40)]
CALIBRATION = Calibration(
    cosines=(-1.0, 1.0),
    probabilities=(0.0, 0.9),
    queries=9,
    pairs=90,
    error=0.05,
    reliability=(Bin(predicted=0.5, observed=0.45, pairs=90),),
)
RANKING = Ranking(
    label=1.2,
    votes=0.3,
    untaught_votes=1.7,
    untaught=-2.2,
    queries=100,
    pairs=500,
    error=0.01,
    reliability=(),
    recognised=0.7,
    mistaken=0.04,
)
