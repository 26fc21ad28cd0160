"""Reads text in other encodings than UTF-8.

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


def to_utf8(raw: bytes, charset: str | None) -> bytes:
    """Returns text of an encoding of `charset_of` as UTF-8. Raises UnicodeDecodeError."""
    return raw if charset is None or raw.isascii() else raw.decode(charset).encode()


class FromUtf16(ConvertedFile):
    """Reads a file of UTF-16 as UTF-8, with bytes that are no UTF-8 where it holds no characters.

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
        """Returns why there is nothing more, if that is an error."""
        return self._failure or str(getattr(self._file, "failure", ""))

    @property
    def garbage(self) -> bytes:
        """Returns the first bytes of what cannot be unpacked."""
        return bytes(getattr(self._file, "garbage", b""))

    def convert(self, count: int) -> bytes:
        while not self._ended:
            raw = self._file.read(_READ_BYTES)
            self._ended = not raw
            try:
                text = self._decoder.decode(raw, final=self._ended).encode("utf-8", "surrogatepass")
            except UnicodeError as error:
                # Python 3.13 has an error of decoding for a stream without a BOM too.
                if isinstance(error, UnicodeDecodeError) and "BOM" not in error.reason:
                    return _NOT_UTF8
                self._failure = "it has no BOM; set source.encoding to utf-16-le or utf-16-be, if it is UTF-16"
                return b""
            if text:
                return text
        return b""
