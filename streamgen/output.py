"""Output files that are whole or not there: written beside, renamed at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO

from streamgen.errors import InputError

STANDARD_OUTPUT = Path("-")


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write; it replaces `path` when the block ends, and leaves nothing when the block fails.

    `-` is standard output; a device or a pipe is written as it is. Raises `InputError` when it cannot be
    written.
    """
    if path == STANDARD_OUTPUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if path.is_dir():
        raise InputError(f"Cannot write {path}: it is a folder.")
    direct = path.exists() and not path.is_file()
    beside = path if direct else path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            yield file
        if not direct:
            beside.replace(path)
    except FileNotFoundError:
        raise InputError(f"Cannot write {path}: there is no folder {path.parent}; make it first.") from None
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror or error}.") from error
    finally:
        if not direct:
            beside.unlink(missing_ok=True)


@contextmanager
def as_text(file: BinaryIO) -> Iterator[TextIOWrapper]:
    """`file` for UTF-8 text with line ends as written; whoever opened it closes it."""
    text = TextIOWrapper(file, encoding="utf-8", newline="")
    try:
        yield text
    finally:
        text.detach()
