"""Trains the babyweight model and exports it: `python -m model.train`.

A fifth of the births is held out to measure the model by; the exported one has seen them all. The same seed
gives the same weights.
"""

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model import packaged, terminal
from model.argument_types import whole_number
from model.errors import ModelError
from model.version import add_version

_HELD_OUT = 5
_EXPORTED = ("assets", "assets.extra", "fingerprint.pb", "saved_model.pb", "variables")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: the command line's arguments; those of the process by default.

    Returns:
      The exit code: 0, or 2 if the data cannot be used.
    """
    parser = terminal.ArgumentParser(prog="python -m model.train", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", default="data/births-nc-2001.csv", help="CSV file of births (%(default)s)")
    parser.add_argument("--output", default="model/trained/v1", help="folder to export to (%(default)s)")
    parser.add_argument("--seed", type=whole_number, default=2001, help="decides everything random (%(default)s)")
    parser.add_argument("--epochs", type=whole_number, default=20, help="passes over the data (%(default)s)")
    add_version(parser)
    options = parser.parse_args(arguments)
    if options.epochs < 1 or not 0 <= options.seed < 2**32:
        parser.error("--epochs must be 1 or more, --seed from 0 to 4294967295")
    try:
        train(packaged.located(options.data), options.output, seed=options.seed, epochs=options.epochs)
    except ModelError as error:
        terminal.print_error(str(error))
        return 2
    return 0


def train(data: str, output: str, *, seed: int, epochs: int) -> None:
    """Trains on all births, after measuring on held-out ones, and exports.

    Args:
      data: CSV file of births.
      output: folder for the SavedModel; an earlier export in it is replaced, nothing else is.
      seed: decides everything random.
      epochs: passes over the data.

    Raises:
      ModelError: the data cannot be used, or the output holds something else than an export.
    """
    from model.births import read_births

    _refuse_what_is_no_export(Path(output))
    births = read_births(data)
    if len(births) < 2 * _HELD_OUT:
        raise ModelError(f"{data} has {len(births)} births with a weight; at least {2 * _HELD_OUT} are needed")
    # A GPU sums in another order, and would give other weights for the same seed.
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import numpy as np
    import tensorflow as tf  # type: ignore[import-untyped, unused-ignore]

    from model.network import Network, Terms

    tf.config.experimental.enable_op_determinism()
    terms = Terms(births)
    order = np.random.default_rng(seed).permutation(len(births))
    held_out, rest = order[::_HELD_OUT], np.setdiff1d(order, order[::_HELD_OUT])
    measured = Network(terms, births.weight, rest, epochs=epochs, seed=seed)
    truth = births.weight[held_out]
    mean = np.full_like(truth, births.weight[rest].mean())
    terminal.print_line(f"{len(rest)} births to train on, {len(held_out)} held out; weights in pounds")
    for name, predicted in (("mean", mean), ("model", measured.predict(held_out))):
        errors = predicted - truth
        terminal.print_line(f"{name:6} RMSE {_rmse(errors):.3f}  MAE {abs(errors).mean():.3f}")
    network = Network(terms, births.weight, np.sort(order), epochs=epochs, seed=seed)
    _replace(network, Path(output))
    terminal.print_line(f"exported to {output}")


def _rmse(errors: Any) -> float:
    return float((errors**2).mean() ** 0.5)


def _refuse_what_is_no_export(output: Path) -> None:
    """Raises ModelError if the output is there and holds anything that an export does not consist of."""
    if output.is_dir():
        foreign = sorted(path.name for path in output.iterdir() if path.name not in _EXPORTED)
        if foreign:
            raise ModelError(f"{output} holds {foreign[0]}, which is no part of a model; choose another --output")
    elif output.exists() or output.is_symlink():
        raise ModelError(f"{output} is not a folder; choose another --output")


def _replace(network: Any, output: Path) -> None:
    """Exports beside the output first, so that a failure does not leave half a model there."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".export-") as folder:
        exported = Path(folder) / "new"
        network.export(str(exported))
        if output.exists():
            output.rename(Path(folder) / "old")
        exported.rename(output)


if __name__ == "__main__":
    sys.exit(main())
