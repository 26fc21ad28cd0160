"""Names text encodings that can be read, and decodes their bytes."""

from __future__ import annotations

import codecs


def problem_of(name: str) -> str | None:
    """Returns what is wrong with the name of an encoding; None if text in it can be read."""
    try:
        known = codecs.lookup(name)
        if known.name.startswith("utf-16"):
            return None
        ascii_bytes = bytes(range(128))
        if known._is_text_encoding and ascii_bytes.decode(known.name) == ascii_bytes.decode("ascii"):
            return None
    except (LookupError, UnicodeError, ValueError):
        pass
    return f"{name!r} is no encoding that can be read; give utf-8, utf-16, latin-1, cp1252, or another name of Python's"


def is_within(char: str, name: str) -> bool:
    """Tells whether the byte of a character is a part of longer characters of an encoding."""
    if is_utf16(name):
        return False
    for lead in range(0x80, 0x100):
        try:
            if len((bytes([lead]) + char.encode("ascii")).decode(name)) == 1:
                return True
        except UnicodeDecodeError:
            continue
    return False


def is_utf16(name: object) -> bool:
    """Tells whether an encoding is UTF-16, of any order of bytes."""
    return isinstance(name, str) and codecs.lookup(name).name.startswith("utf-16")


def charset_of(name: object) -> str | None:
    """Returns an encoding, if its text is made UTF-8 only when it is parsed; None for UTF-8, and for UTF-16."""
    if not isinstance(name, str) or is_utf16(name):
        return None
    found = codecs.lookup(name).name
    return None if found in ("utf-8", "utf-8-sig", "ascii") else found
