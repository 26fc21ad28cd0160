"""Text in other encodings than UTF-8.

| encoding | read |
|---|---|
| one with ASCII's bytes for its characters (latin-1, cp1252, ...) | as UTF-8 is, and made UTF-8 when it is parsed |
| UTF-16 | in one piece, made UTF-8 before all else; so positions and payloads are those of UTF-8 |
"""

from __future__ import annotations

import codecs
from typing import IO

from pipelines.formats.unpacking import ConvertedFile

UTF_16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_READ_BYTES = 1 << 20
_NOT_UTF8 = b"\xff"
"""Makes of a row what is refused as no UTF-8."""


def problem_of(name: str) -> str | None:
    """What is wrong with the name of an encoding; None if text in it can be read."""
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
    """Whether the byte of a character is a part of longer characters of an encoding."""
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
    """Whether an encoding is UTF-16, of any order of bytes."""
    return isinstance(name, str) and codecs.lookup(name).name.startswith("utf-16")


def charset_of(name: object) -> str | None:
    """An encoding, if its text is made UTF-8 only when it is parsed; None for UTF-8, and for UTF-16."""
    if not isinstance(name, str) or is_utf16(name):
        return None
    found = codecs.lookup(name).name
    return None if found in ("utf-8", "utf-8-sig", "ascii") else found


def to_utf8(raw: bytes, charset: str | None) -> bytes:
    """Text of an encoding of `charset_of` as UTF-8. Raises UnicodeDecodeError."""
    return raw if charset is None or raw.isascii() else raw.decode(charset).encode()


class FromUtf16(ConvertedFile):
    """The UTF-8 of a file of UTF-16, with bytes that are no UTF-8 where it holds no characters.

    Args:
      file: the file, at its beginning; closed with this.
      name: of the encoding; with utf-16 its BOM tells the order of the bytes.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        super().__init__(file)
        # A half of a surrogate pair stays one, and makes its row no UTF-8.
        self._decoder = codecs.getincrementaldecoder(name)("surrogatepass")
        self._ended = False
        self._failure = ""

    @property
    def failure(self) -> str:
        """Why there is nothing more, if that is an error."""
        return self._failure or str(getattr(self._file, "failure", ""))

    @property
    def garbage(self) -> bytes:
        """The first bytes of what cannot be unpacked."""
        return bytes(getattr(self._file, "garbage", b""))

    def convert(self, count: int) -> bytes:
        while not self._ended:
            raw = self._file.read(_READ_BYTES)
            self._ended = not raw
            try:
                text = self._decoder.decode(raw, final=self._ended).encode("utf-8", "surrogatepass")
            except UnicodeDecodeError:
                text = _NOT_UTF8
            except UnicodeError:
                self._failure = "it has no BOM; set source.encoding to utf-16-le or utf-16-be, if it is UTF-16"
                return b""
            if text:
                return text
        return b""
