"""Addresses and ports, found before anything slow is imported."""

import contextlib
import socket


def bind(host: str, port: int) -> socket.socket:
    """Returns a socket bound to a port, not listening yet: who connects too early is refused instead of kept waiting.

    Args:
      host: the address to bind.
      port: the port; 0 for any free one.

    Raises:
      OSError: the host is unknown, or the port is taken or not allowed.
    """
    family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        # A port whose last connections have just been closed is free.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(place)
    except OSError:
        bound.close()
        raise
    return bound


def choose_grpc_port(host: str, asked: int | None, rest: int, rest_chosen: bool) -> int:
    """Returns the port for gRPC.

    Args:
      host: the address to bind.
      asked: the port asked for; None for the one below REST's, as TensorFlow Serving has it.
      rest: REST's port.
      rest_chosen: whether it was asked for: below a random one there is no point in looking.

    Returns:
      The port; 0 for any free one.

    Raises:
      OSError: the port asked for is taken.
    """
    if asked == 0 or (asked is None and not rest_chosen):
        return 0
    port = rest - 1 if asked is None else asked
    try:
        with contextlib.closing(bind(host, port)):
            return port
    except OSError:
        if asked is not None:
            raise
        return 0


def address(host: str, port: int) -> str:
    """Returns host:port, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
