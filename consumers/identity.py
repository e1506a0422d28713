"""A worker's name: the same one whenever it comes back, another one for each live worker.

The name is part of the transactional id. A worker that comes back with the name that it had ends at once
the transaction that it left open when it was killed; two live workers of one name would fence each other.
"""

from __future__ import annotations

import fcntl
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from itertools import count
from pathlib import Path

from streamgen.errors import ConfigError, StateError


@contextmanager
def worker_name(directory: Path, asked: str | None) -> Iterator[str]:
    """`asked`, or the first name of this machine and state directory that no live worker holds.

    The name is held by a lock on a file of `directory`, which the system gives up when the process ends,
    however it ends. Raises `ConfigError` when `asked` is held or not a name, and `StateError` when the
    directory cannot be written.
    """
    if asked is not None and not re.fullmatch(r"[A-Za-z0-9._-]+", asked):
        raise ConfigError(
            f"The worker id {asked!r} may hold letters, digits, dots, dashes and underscores only."
        )
    # Two workers of one machine with a state directory each must not both be the first.
    place = sha256(str(directory.resolve()).encode()).hexdigest()[:6]
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())
    for number in count():
        name = asked or f"{host}-{place}-{number}"
        path = directory / f".{name}.lock"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            file = path.open("a")
        except OSError as error:
            raise StateError(
                f"The state directory {directory} cannot be written ({error.strerror}): give rights to it, "
                "or set state.directory elsewhere."
            ) from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if asked is None:
                    continue
                raise ConfigError(
                    f"A worker named {asked} is running with the state directory {directory} already: choose "
                    "another --worker-id, or leave it out."
                ) from None
            yield name
            return
