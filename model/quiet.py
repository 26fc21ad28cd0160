"""Keeps off the terminal what C++ libraries print while they are imported."""

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def swallowed_stderr() -> Iterator[None]:
    """Swallows what is written to standard error, by whatever code; gives it back if the block fails."""
    import tempfile

    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            said.seek(0)
            os.write(saved, said.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
