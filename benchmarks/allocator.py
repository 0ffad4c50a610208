"""Measure images a second of one backbone, with and without keeping freed memory.

    python benchmarks/allocator.py tf_efficientnet_lite0 --size 224 --batch 16

Both settings run in processes of their own, in turns, so that a machine whose speed drifts drifts
for both. Prints all rates and the ratio of their medians.
"""

import argparse
import statistics
import subprocess
import sys
import time


def measure_rate(name: str, size: int, batch: int, keep: bool) -> float:
    """Return images a second through an untrained backbone, after one batch to warm up."""
    import timm
    import torch

    from irgen.compute import machine

    if keep:
        machine.keep_freed_memory()
    model = timm.create_model(name, num_classes=0).eval()
    images, rounds = torch.randn(batch, 3, size, size), max(3, 96 // batch)
    with torch.inference_mode():
        model(images)
        started = time.perf_counter()
        for _ in range(rounds):
            model(images)
    return rounds * batch / (time.perf_counter() - started)


def main() -> None:
    """Print the rates with and without keeping freed memory, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=["keep", "return"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(measure_rate(options.name, options.size, options.batch, options.one == "keep"))
        return
    rates: dict[str, list[float]] = {"return": [], "keep": []}
    for _ in range(options.rounds):
        for setting, values in rates.items():
            command = [sys.executable, *sys.argv, "--one", setting]
            values.append(float(subprocess.check_output(command, text=True).split()[-1]))
    for setting, values in rates.items():
        print(f"{setting:>6} freed memory: {', '.join(f'{r:.1f}' for r in values)} images/s")
    ratio = statistics.median(rates["keep"]) / statistics.median(rates["return"])
    print(f"keeping it is {ratio:.2f} times as fast ({options.name}, {options.size} px)")


if __name__ == "__main__":
    main()
