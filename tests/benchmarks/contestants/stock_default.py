"""The stock Beam pipeline with the runner that Beam takes when none is named."""

from __future__ import annotations

from tests.benchmarks.contestants import stock

if __name__ == "__main__":
    stock.main([])
