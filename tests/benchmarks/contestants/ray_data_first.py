"""Ray Data on a cluster that has just started: the actors import TensorFlow within the time of the job."""

from __future__ import annotations

from tests.benchmarks.contestants import ray_data

if __name__ == "__main__":
    ray_data.main(first=True)
