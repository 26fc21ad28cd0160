"""`python -m tests.benchmarks.soak`: what a stream costs while nothing comes, and whether it grows while much does.

Idle: a message every 1,000 seconds. Soak: 20,000 a second. Each is `python -m pipelines.stream` with the packaged model
in a process of its own (with Prism, that process and Prism's), looked at every second; the first minute does not count.

exit codes: 0 everything was measured, whether or not the targets are met; 1 a stream failed
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from tests.benchmarks.contest import ContestError
from tests.benchmarks.report import Table, check_target, print_tables, write_markdown

_SETTLES_S = 60
_IDLE_RATE, _SOAK_RATE = 0.001, 20_000
_SECTION = "soak"
HEADER = ("stream", "runner", "seconds", "messages", "share of a core", "growth MB", "MB a minute", "target", "met")


@dataclass(frozen=True)
class Sample:
    """What a stream's processes have used.

    Attributes:
      at: seconds since the beginning.
      cpu_s: of all of them.
      rss_mb: the same.
    """

    at: float
    cpu_s: float
    rss_mb: float


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--idle", type=float, default=180, metavar="SECONDS", help="0: not at all (%(default)s)")
    parser.add_argument("--soak", type=float, default=600, metavar="SECONDS", help="0: not at all (%(default)s)")
    parser.add_argument("--runners", nargs="+", default=["FnApiRunner"], help="(%(default)s)")
    parser.add_argument("--markdown", metavar="FILE", help="put the results between the marks of a file, - to print")
    options = parser.parse_args(argv)
    rows: list[tuple[str, ...]] = []
    try:
        check_target([Table("soak", [], HEADER, section=_SECTION)], options.markdown)
        for runner in options.runners:
            if options.idle:
                rows.append(_idle(runner, options.idle))
                print("  ".join(rows[-1]), file=sys.stderr)
            if options.soak:
                rows.append(_soak(runner, options.soak))
                print("  ".join(rows[-1]), file=sys.stderr)
    except ContestError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    met = [{"yes": True, "NO": False}.get(row[-1]) for row in rows]
    table = Table("streams for long", rows, HEADER, met, _SECTION)
    if options.markdown:
        write_markdown([table], options.markdown)
    else:
        print_tables([table])
    return 0


def _idle(runner: str, seconds: float) -> tuple[str, ...]:
    samples, messages = _watch(runner, _IDLE_RATE, seconds)
    share, growth = _share(samples), _growth(samples)
    minutes = (samples[-1].at - samples[0].at) / 60
    met = share < 0.05 and growth / minutes <= 1
    return _cells("idle", runner, samples, messages, "< 5%, <= 1 MB a minute", met)


def _soak(runner: str, seconds: float) -> tuple[str, ...]:
    samples, messages = _watch(runner, _SOAK_RATE, seconds)
    in_process = runner == "FnApiRunner"
    most = 100 if in_process else 20
    target = "growth < 100 MB" if in_process else "no growth (< 20 MB)"
    return _cells(f"{_SOAK_RATE:,} messages/s", runner, samples, messages, target, _growth(samples) < most)


def _watch(runner: str, rate: float, seconds: float) -> tuple[list[Sample], int]:
    """Samples of a stream after its first minute, and how many messages it read in all."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as err:
        settings = {
            "source": json.dumps({"type": "simulated", "rate": rate, "key": "source_id"}),
            "output.path": f"{folder}/p",
            "output.show": "0",
            "dead_letters.path": f"{folder}/d",
        }
        parts = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
        command = [sys.executable, "-m", "pipelines.stream", "--json", "--runner", runner, *parts]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True)
        begun, samples = time.monotonic(), []
        try:
            while (at := time.monotonic() - begun) < seconds + _SETTLES_S and process.poll() is None:
                if at >= _SETTLES_S:
                    samples.append(_sample(process.pid, at))
                time.sleep(1)
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
        if process.returncode:
            err.seek(0)
            raise ContestError(f"{runner} ended with {process.returncode}:\n{err.read()[-3000:]}")
    return samples, int(json.loads(out)["rows_read"])


def _sample(pid: int, at: float) -> Sample:
    root = psutil.Process(pid)
    cpu, rss = 0.0, 0
    for process in (root, *root.children(recursive=True)):
        try:
            times, memory = process.cpu_times(), process.memory_info()
        except psutil.NoSuchProcess:
            continue
        cpu += times.user + times.system
        rss += memory.rss
    return Sample(at, cpu, rss / 1e6)


def _share(samples: list[Sample]) -> float:
    return (samples[-1].cpu_s - samples[0].cpu_s) / (samples[-1].at - samples[0].at)


def _growth(samples: list[Sample]) -> float:
    """Of the resident memory: the end's median against the beginning's, so that one sample does not decide."""
    tenth = max(1, len(samples) // 10)

    def median(some: list[Sample]) -> float:
        return sorted(sample.rss_mb for sample in some)[len(some) // 2]

    return median(samples[-tenth:]) - median(samples[:tenth])


def _cells(name: str, runner: str, samples: list[Sample], messages: int, target: str, met: bool) -> tuple[str, ...]:
    seconds = samples[-1].at - samples[0].at
    growth = _growth(samples)
    return (
        name,
        runner,
        f"{seconds:.0f}",
        f"{messages:,}",
        f"{_share(samples):.1%}",
        f"{growth:+.1f}",
        f"{growth / seconds * 60:+.2f}",
        target,
        "yes" if met else "NO",
    )


if __name__ == "__main__":
    sys.exit(main())
