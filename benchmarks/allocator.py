"""Measure images a second of one backbone, with and without keeping freed memory.

    python benchmarks/allocator.py tf_efficientnet_lite0 --size 224 --batch 16

Each way runs in processes of its own, in turns, so that a machine whose speed drifts does so for
both; printed are all rates and the ratio of their medians.
"""

import argparse
import statistics
import subprocess
import sys
import time


def rate(name: str, size: int, batch: int, keep: bool) -> float:
    """Images a second through an untrained backbone, after one batch to warm up."""
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
    """Prints the rates of each way and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=["keep", "return"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(rate(options.name, options.size, options.batch, options.one == "keep"))
        return
    rates: dict[str, list[float]] = {"return": [], "keep": []}
    for _ in range(options.rounds):
        for way, values in rates.items():
            command = [sys.executable, *sys.argv, "--one", way]
            values.append(float(subprocess.check_output(command, text=True).split()[-1]))
    for way, values in rates.items():
        print(f"{way:>6} freed memory: {', '.join(f'{r:.1f}' for r in values)} images/s")
    ratio = statistics.median(rates["keep"]) / statistics.median(rates["return"])
    print(f"keeping it is {ratio:.2f} times as fast ({options.name}, {options.size} px)")


if __name__ == "__main__":
    main()
