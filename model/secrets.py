"""Masks the secrets that this process knows in texts: the one place that decides what is masked.

Whatever learns a secret says so with `keep` (a `Secret` does when it is made, and when it arrives in a worker);
whatever shows or stores a text that others wrote puts it through `masked` first. A secret is recognised as it is, and
percent-encoded, escaped as in JSON or HTML, in hexadecimal and in base64.
"""

from __future__ import annotations

import base64
import binascii
import re
import threading
from collections import deque
from urllib.parse import parse_qsl, urlsplit

MASK = "***"

_SHORTEST = 4
"""Characters of a secret; what is shorter would be found in every text."""
_SHORTEST_CODED = 8
"""Characters of its base64 or hexadecimal form."""
_RECENT = 8
_SCHEME = re.compile(r"(basic|bearer|digest|negotiate|token|apikey|key) *", re.IGNORECASE)
"""What stands before credentials."""
_NAMES = re.compile(
    r"(^|[^a-z])(passw(or)?d|passphrase|pass|pwd|tokens?|secrets?|credentials?|auth|authorization|cookie|jwt|bearer|"
    r"sig|signature|api[_-]?keys?|private[_-]?key)([^a-z]|$)|(password|token|secret|^key|[_-]keys?)$",
    re.IGNORECASE,
)


class Secret:
    """Keeps a text from being shown by accident, and has it masked wherever others show it."""

    def __init__(self, text: str) -> None:
        self._text = text
        keep(text)

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        # Made anew where it arrives, so that it is known there.
        return Secret, (self._text,)

    def reveal(self) -> str:
        """Returns the text itself."""
        return self._text

    def __repr__(self) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


class _Known:
    """What is masked, and the patterns that find it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lasting: set[str] = set()
        self._recent: deque[str] = deque(maxlen=_RECENT)
        self._patterns: tuple[re.Pattern[str], re.Pattern[bytes]] | None = None

    def add(self, texts: set[str], *, recent: bool) -> None:
        with self._lock:
            new = texts - self._lasting - set(self._recent)
            if new:
                (self._recent.extend if recent else self._lasting.update)(new)
                self._patterns = None

    def texts(self) -> set[str]:
        return self._lasting | set(self._recent)

    def patterns(self) -> tuple[re.Pattern[str], re.Pattern[bytes]] | None:
        if self._patterns is None and (self._lasting or self._recent):
            with self._lock:
                longest_first = sorted(self.texts(), key=lambda text: (-len(text), text))
                forms = "|".join(dict.fromkeys(form for text in longest_first for form in _forms(text)))
                self._patterns = re.compile(forms), re.compile(forms.encode())
        return self._patterns


_known = _Known()


def keep(text: str, *, recent: bool = False) -> None:
    """Masks a text from now on, and what follows a word such as Bearer in it.

    Args:
      text: the secret; ignored if it has fewer than 4 characters.
      recent: it replaces an earlier one, as tokens do: the last 8 of these are masked.
    """
    last = text.rpartition(" ")[2]
    found = {text, text.strip(), last, *(_in_basic(last) if text[:6].lower() == "basic " else ())}
    _known.add({each for each in found if len(each) >= _SHORTEST and not _SCHEME.fullmatch(each)}, recent=recent)


def forget() -> None:
    """Masks nothing any more that was kept before."""
    global _known
    _known = _Known()


def keep_in_url(url: str) -> list[str]:
    """Masks the query of an address, and in it the values that are or look secret; returns what is masked."""
    try:
        query = urlsplit(url if "://" in url else f"//{url}").query
    except ValueError:
        query = url.partition("?")[2]
    values = parse_qsl(query, keep_blank_values=True)
    found = [query, *(value for name, value in values if is_secret_name(name) or len(value) > 2 * _SHORTEST)]
    for text in found:
        keep(text)
    return found


def known_in(text: str) -> list[str]:
    """Returns the secrets that stand in a text as they are."""
    return [secret for secret in _known.texts() if secret in text]


def is_secret_name(name: str) -> bool:
    """Tells whether a variable, header or parameter of this name is likely to hold a secret."""
    return bool(_NAMES.search(name))


def masked(text: str) -> str:
    """Returns the text, with *** in place of all secrets that this process knows."""
    patterns = _known.patterns()
    return patterns[0].sub(MASK, text) if patterns else text


def masked_bytes(body: bytes) -> bytes:
    """Returns the same for bytes. To be done before a text is cut: half a secret would not be recognised."""
    patterns = _known.patterns()
    return patterns[1].sub(MASK.encode(), body) if patterns else body


def _in_basic(coded: str) -> list[str]:
    """The user and password in the credentials of HTTP's Basic scheme, together, and the password."""
    try:
        both = base64.b64decode(coded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return []
    return [both, both.partition(":")[2]]


def _forms(text: str) -> list[str]:
    """Patterns of a secret: as it is or escaped, in hexadecimal, in base64."""
    found = ["".join(map(_letter, text))]
    raw = text.encode("utf-8", "surrogatepass")
    if len(text) >= _SHORTEST_CODED:
        found.append("".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in raw.hex()))
    for before in range(3):
        # Where it begins in a longer text decides how it is cut into groups of six bits.
        coded = base64.b64encode(bytes(before) + raw).decode()
        whole = coded[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
        if len(whole) >= _SHORTEST_CODED:
            found.append("".join(_CODED.get(letter, letter) for letter in whole))
    return found


_CODED = {"+": r"(?:[+\-]|%2[bB]|\\u002[bB])", "/": r"(?:\\?[/_]|%2[fF]|\\u002[fF])"}
_NAMED = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;", " ": r"\+"}


def _letter(letter: str) -> str:
    """Pattern of a character as it is, percent-encoded (once or more), or escaped as in JSON or HTML."""
    if letter.isascii() and letter.isalnum():
        return letter
    raw = letter.encode("utf-8", "surrogatepass")
    number = ord(letter)
    forms = [
        re.escape(letter),
        "".join(f"%(?:25)*{_hexadecimal(byte, 2)}" for byte in raw),
        rf"\\{re.escape(letter)}",
        rf"\\u{_hexadecimal(number, 4)}",
        f"&#0*{number};",
        f"&#[xX]0*{_hexadecimal(number, 1)};",
        *([_NAMED[letter]] if letter in _NAMED else []),
    ]
    return f"(?:{'|'.join(forms)})"


def _hexadecimal(number: int, digits: int) -> str:
    return "".join(f"[{each}{each.upper()}]" if each.isalpha() else each for each in f"{number:0{digits}x}")
