"""Tells whether names of hosts are this machine's."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Tells whether `host` or `host:port` is this machine."""
    name = host.rpartition(":")[0].strip("[]") if host.count(":") == 1 or "]:" in host else host.strip("[]")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
