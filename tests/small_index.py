"""An index of forty small images in tests: their names, and its calibration."""

from irgen.search.calibration import Bin, Calibration

NAMES = [f"{'dogs' if n % 4 else 'cats'}/{n:02d}.png" for n in range(40)]
CALIBRATION = Calibration(
    cosines=(-1.0, 1.0),
    probabilities=(0.0, 0.9),
    queries=9,
    pairs=90,
    error=0.05,
    reliability=(Bin(predicted=0.5, observed=0.45, pairs=90),),
)
