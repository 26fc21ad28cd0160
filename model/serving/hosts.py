"""Decides which hosts requests may be addressed to.

A web page may have its own name resolved to this machine's address (DNS rebinding), so that a browser sends its
requests here and lets it read the answers. Such requests still name the page's host.
"""

import functools
import ipaddress
import re
from collections.abc import Iterable

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from model.serving.errors import brief

_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\[\]:@/\\\s]+))(?::[0-9]*)?", re.ASCII)
_REMEMBERED = 256


class AllowedHosts:
    """Refuses requests for other hosts than this machine's: loopback, the address that was connected to, and some.

    Ports do not matter. A request without the header Host, which no browser sends, is served.

    Args:
      app: what is asked otherwise.
      hosts: further names and addresses.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self._app = app
        self._hosts = {_name(host) for host in hosts}
        self._allowed = functools.lru_cache(_REMEMBERED)(self._is_allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by the server."""
        if scope["type"] == "http":
            here = (scope.get("server") or ("",))[0]
            for name, value in scope["headers"]:
                if name == b"host" and not self._allowed(value, here):
                    await _refusal(value)(scope, receive, send)
                    return
        await self._app(scope, receive, send)

    def _is_allowed(self, value: bytes, here: str) -> bool:
        match = _HOST.fullmatch(value.decode("latin-1").strip().lower())
        if match is None:
            return False
        name = _name(match[1] or match[2])
        if name == "localhost" or name.endswith(".localhost") or name in self._hosts:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        plain = getattr(address, "ipv4_mapped", None) or address
        return bool(plain.is_loopback) or name == _name(here)


def _name(host: str) -> str:
    """A host as it is compared: an address in its shortest form, a name without the root's dot."""
    name = host.strip().lower().strip("[]").removesuffix(".")
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


def _refusal(value: bytes) -> JSONResponse:
    message = (
        f"requests for host {value.decode('latin-1')!r} are not taken; ask by localhost or by the address that the "
        "server is bound to, or start it with --allowed-host and the name"
    )
    # The body has not been read.
    return JSONResponse({"error": brief(message)}, 403, {"connection": "close"})
