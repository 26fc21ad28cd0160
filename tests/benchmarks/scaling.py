"""From rates that were measured to vCPU-hours and dollars on Dataflow: `python -m tests.benchmarks.scaling`.

Reads the rates of docs/benchmarks.md and the prices of configs/prices.json, and prints the tables of docs/scaling.md.
"""

from __future__ import annotations

import argparse
import heapq
import random
import re
from dataclasses import dataclass
from pathlib import Path

from pipelines.cost.prices import Prices, load

ROOT = Path(__file__).resolve().parents[2]
MEASURED_CORES = 2
ARTICLE = {10_000_000: 7.878}
"""Rows -> vCPU-hours of the article's direct approach."""


@dataclass(frozen=True)
class Assumptions:
    """What is not measured.

    Attributes:
      slower: how many times slower a vCPU (half a core) of a cloud is than a core of the measured machine.
      overhead: share of a worker's time that Dataflow takes: shuffle of the pieces, reports, waiting.
      start_s: seconds that a worker is paid for before it works: starting, installing, loading.
      vcpus: vCPUs of a worker.
      memory_gb: memory of a worker.
      disk_gb: disk of a worker.
      longest_s: how long the work should take at most; more workers are added until it does.
    """

    slower: float = 3.0
    overhead: float = 0.3
    start_s: float = 180.0
    vcpus: int = 4
    memory_gb: float = 16.0
    disk_gb: float = 30.0
    longest_s: float = 1_800.0


@dataclass(frozen=True)
class Estimate:
    """What a run needs."""

    rows: int
    workers: int
    seconds: float
    vcpu_hours: float
    dollars: float


def measured_rate() -> float:
    """Rows a second and core, of the longest run in docs/benchmarks.md."""
    text = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    found = re.search(r"^\| this project on 10,000,000 rows \| [\d,]+ \| [\d.]+ \| ([\d,]+) \|", text, re.MULTILINE)
    assert found, "docs/benchmarks.md has no rate for 10,000,000 rows"
    return int(found[1].replace(",", "")) / MEASURED_CORES


def estimate(rows: int, rate: float, prices: Prices, given: Assumptions) -> Estimate:
    """Estimates a batch run of as many rows; `rate` is rows a second and core of the measured machine."""
    busy_s = rows / (rate / given.slower) / (1 - given.overhead)
    workers = max(1, -(-int(busy_s) // int(given.vcpus * given.longest_s)))
    seconds = given.start_s + busy_s / (workers * given.vcpus)
    vcpu_hours = workers * given.vcpus * seconds / 3600
    used = {
        "dataflow_batch_vcpu_hour": vcpu_hours,
        "dataflow_batch_memory_gb_hour": workers * given.memory_gb * seconds / 3600,
        "dataflow_disk_gb_hour": workers * given.disk_gb * seconds / 3600,
    }
    dollars, missing = prices.of(used)
    assert not missing
    return Estimate(rows, workers, seconds, vcpu_hours, dollars)


def finished_after(sizes: list[float], workers: list[float]) -> float:
    """When the last piece is done, if each worker (its speed) takes the next piece as soon as it is free."""
    free = [(0.0, index) for index in range(len(workers))]
    heapq.heapify(free)
    end = 0.0
    for size in sizes:
        at, index = heapq.heappop(free)
        at += size / workers[index]
        end = max(end, at)
        heapq.heappush(free, (at, index))
    return end


def split(sizes: list[float], most: float) -> list[float]:
    """Cuts every piece that has more than `most` into equal ones that have not."""
    pieces: list[float] = []
    for size in sizes:
        parts = max(1, -(-size // most))
        pieces += [size / parts] * int(parts)
    return pieces


def simulate(workers: int, streams: int, spread: float, slow: int, seed: int) -> tuple[float, float]:
    """How many times longer than with even pieces a read of uneven streams takes: as they are, and split.

    Args:
      workers: how many there are.
      streams: how many streams there are.
      spread: standard deviation of the logarithm of a stream's size.
      slow: how many workers are three times slower than the others.
      seed: of the sizes.
    """
    rng = random.Random(seed)
    sizes = [rng.lognormvariate(0, spread) for _ in range(streams)]
    speeds = [1 / 3] * slow + [1.0] * (workers - slow)
    even = sum(sizes) / sum(speeds)
    whole = finished_after(sizes, speeds)
    cut = finished_after(split(sizes, 2 * sum(sizes) / streams), speeds)
    return whole / even, cut / even


def main() -> None:
    """Prints the tables."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    rate, prices, given = measured_rate(), load(), Assumptions()
    print(f"{rate:,.0f} rows a second and core\n")
    print("| rows | workers | minutes | vCPU-h | USD | the article, vCPU-h |\n|---|---|---|---|---|---|")
    for rows in (10_000_000, 1_000_000_000, 100_000_000_000):
        found = estimate(rows, rate, prices, given)
        theirs = f"{ARTICLE[rows]:g}" if rows in ARTICLE else ""
        print(
            f"| {rows:,} | {found.workers:,} | {found.seconds / 60:.1f} | {found.vcpu_hours:,.2f} "
            f"| {found.dollars:,.2f} | {theirs} |"
        )
    print("\n| workers | streams | sizes | slow workers | as they are | split |\n|---|---|---|---|---|---|")
    for workers, streams, spread, slow in ((20, 80, 0.5, 0), (20, 80, 1.5, 0), (20, 80, 1.5, 2), (100, 1_000, 2.0, 5)):
        runs = [simulate(workers, streams, spread, slow, seed) for seed in range(200)]
        whole, cut = (sorted(each)[len(runs) // 2] for each in zip(*runs, strict=True))
        print(f"| {workers} | {streams:,} | sigma {spread:g} | {slow} | {whole:.2f} | {cut:.2f} |")


if __name__ == "__main__":
    main()
