"""Makes Pub/Sub's client, and looks a name up before a run starts."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from pipelines.config.errors import ConfigError
from pipelines.connectors import preflight
from pipelines.connectors.preflight import ANSWER_WITHIN_S

_Answer = TypeVar("_Answer")


def make_client(kind: str = "SubscriberClient") -> Any:
    """Returns a client of Pub/Sub, or of the emulator that PUBSUB_EMULATOR_HOST names."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    import google.cloud.pubsub_v1 as pubsub_v1  # type: ignore[import-untyped]

    return getattr(pubsub_v1, kind)()


def looked_up(where: str, name: str, look_up: Callable[[], _Answer]) -> _Answer:
    """Returns what Pub/Sub answers.

    Args:
      where: the place in the config, for mistakes.
      name: of what is looked up.
      look_up: calls Pub/Sub.

    Raises:
      ConfigError: there is no such thing, or Pub/Sub does not answer, or not to us.
    """

    def found() -> _Answer:
        try:
            return look_up()
        except Exception as error:
            if type(error).__name__ != "NotFound":
                raise
            raise ConfigError([f"{where}: there is no {name}; check the project and the name, or create it"]) from None

    return preflight.answer_of(where, "Pub/Sub", "PUBSUB_EMULATOR_HOST", found)


def check_topic(where: str, name: str) -> None:
    """Checks that a topic is there. Raises ConfigError.

    Args:
      where: the place in the config, for mistakes.
      name: projects/<project>/topics/<name>.

    Raises:
      ConfigError: it is not, or Pub/Sub cannot be called.
    """

    def look() -> None:
        with make_client("PublisherClient") as client:
            try:
                client.get_topic(topic=name, retry=None, timeout=ANSWER_WITHIN_S)
            except Exception as error:
                # Who may publish to a topic may not always look at it.
                if type(error).__name__ != "PermissionDenied":
                    raise

    looked_up(where, name, look)
