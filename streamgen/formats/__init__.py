"""Record formats: bytes to columns. Adding one is a file here and a line in `FORMATS`."""

from __future__ import annotations

from streamgen.formats.format import ABSENT, MAX_DEPTH, Format
from streamgen.formats.json import JsonFormat
from streamgen.formats.number import NumberFormat

FORMATS: dict[str, type[Format]] = {
    "json": JsonFormat,
    "number": NumberFormat,
}

__all__ = ["ABSENT", "FORMATS", "MAX_DEPTH", "Format"]
