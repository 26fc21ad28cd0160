"""Spark in a session that has just started: the Python workers import TensorFlow within the time of the job."""

from __future__ import annotations

from tests.benchmarks.contestants import spark

if __name__ == "__main__":
    spark.main(first=True)
