"""A folder of files that are whole or not there, on a local disk or at any URL that fsspec can open."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from streamgen.errors import ConfigError, Fenced, MissingDependency, RetryError, StateError, StreamgenError

_TEMPORARY = ".tmp"


class Folder(Protocol):
    """Files by name. Other processes change it at any time; what they did is seen.

    Every method raises `StateError` for what a person must mend (rights, a full disk), and `RetryError` when
    a remote store does not answer.
    """

    def inside(self, name: str) -> Folder:
        """A folder in this one; it need not be there."""

    def names(self) -> list[str]:
        """What is in it; nothing when it is not there."""

    def read(self, name: str) -> bytes:
        """A file's content. Raises `FileNotFoundError`."""

    def write(self, name: str, pieces: Sequence[bytes | bytearray]) -> None:
        """Make or replace a file: a reader sees all of it or nothing. It is durable on return."""

    def remove(self, name: str) -> None:
        """Remove a file, which need not be there."""

    def clean(self) -> None:
        """Remove what writers that died have left half written."""


def open_folder(url: str | Path) -> Folder:
    """The folder at a path or URL; nothing is made or asked yet.

    Raises `MissingDependency` for a URL whose package is not installed, `ConfigError` for an unknown scheme.
    """
    import fsspec.core
    from fsspec.implementations.local import LocalFileSystem

    text = os.fspath(url)
    scheme = text.partition("://")[0]
    try:
        # Other processes write there too, so nothing is remembered; an instance of its own keeps it so.
        system, path = fsspec.core.url_to_fs(text, use_listings_cache=False, skip_instance_cache=True)
    except ImportError as error:
        extra = " (pip install 'streamgen-kafka[s3]')" if scheme in ("s3", "s3a") else ""
        raise MissingDependency(f"{text} needs a package that is not installed{extra}: {error}.") from error
    except ValueError as error:
        raise ConfigError(f"{text} is no place for state: {error}; use a path, file:// or s3://.") from error
    return _Local(Path(path)) if isinstance(system, LocalFileSystem) else _Remote(system, path, scheme)


class _Local:
    """Written beside under a name of its own, synced, renamed, and the folder synced."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def inside(self, name: str) -> _Local:
        return _Local(self._path / name)

    def names(self) -> list[str]:
        with self._named("read"):
            try:
                return sorted(os.listdir(self._path))
            except (FileNotFoundError, NotADirectoryError):
                return []

    def read(self, name: str) -> bytes:
        with self._named("read", but=FileNotFoundError):
            return (self._path / name).read_bytes()

    def write(self, name: str, pieces: Sequence[bytes | bytearray]) -> None:
        temporary = self._path / f".{name}.{uuid4().hex}{_TEMPORARY}"
        with self._named("write"):
            self._path.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("xb") as file:
                    for piece in pieces:
                        file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())
                try:
                    temporary.replace(self._path / name)
                except FileNotFoundError as error:
                    raise Fenced(f"Another owner has cleaned {self._path} meanwhile.") from error
                _sync(self._path)
                _sync(self._path.parent)  # the folder itself may be new
            except BaseException:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)
                raise

    def remove(self, name: str) -> None:
        with self._named("remove from"):
            (self._path / name).unlink(missing_ok=True)

    def clean(self) -> None:
        for name in self.names():
            if name.startswith(".") and name.endswith(_TEMPORARY):
                self.remove(name)

    @contextmanager
    def _named(self, verb: str, but: type[OSError] | tuple[()] = ()) -> Iterator[None]:
        try:
            yield
        except but:
            raise
        except OSError as error:
            raise StateError(
                f"Cannot {verb} the state in {self._path}: {error.strerror or error}. Free space, give "
                "rights, or choose another place; the checkpoint before it is whole."
            ) from error


class _Remote:
    """A put replaces an object at once or not at all; its length is looked up again."""

    def __init__(self, system: Any, path: str, scheme: str) -> None:
        self._system, self._path, self._scheme = system, path.rstrip("/"), scheme

    def __str__(self) -> str:
        return f"{self._scheme}://{self._path.lstrip('/')}"

    def inside(self, name: str) -> _Remote:
        return _Remote(self._system, f"{self._path}/{name}", self._scheme)

    def names(self) -> list[str]:
        with self._named("read"):
            try:
                listed = self._system.ls(self._path, detail=False)
            except FileNotFoundError:
                return []
        return sorted(path.rstrip("/").rpartition("/")[2] for path in listed)

    def read(self, name: str) -> bytes:
        with self._named("read"):
            return bytes(self._system.cat_file(f"{self._path}/{name}"))

    def write(self, name: str, pieces: Sequence[bytes | bytearray]) -> None:
        path, data = f"{self._path}/{name}", b"".join(pieces)
        with self._named("write"):
            try:
                try:
                    self._system.pipe_file(path, data)
                except FileNotFoundError:
                    # A file system that has folders. No parents: that would make a bucket.
                    self._system.mkdir(self._path, create_parents=False)
                    self._system.pipe_file(path, data)
            except FileNotFoundError as error:
                raise StateError(f"Cannot write the state to {self}: make its bucket or folder.") from error
            try:
                size = self._system.info(path)["size"]
            except FileNotFoundError as error:
                raise Fenced(f"Another owner has removed {path} meanwhile.") from error
            if size != len(data):
                raise RetryError(f"{path} was not stored whole: {size} bytes of {len(data)}.")

    def remove(self, name: str) -> None:
        with self._named("remove from"), contextlib.suppress(FileNotFoundError):
            self._system.rm_file(f"{self._path}/{name}")

    def clean(self) -> None:
        """Nothing: a put that was not finished is not there."""

    @contextmanager
    def _named(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, StreamgenError):
            raise
        except PermissionError as error:
            raise StateError(
                f"Not allowed to {verb} the state in {self} ({error}): give the right."
            ) from error
        except Exception as error:  # each file system has errors of its own for a network that is away
            raise RetryError(f"Cannot {verb} the state in {self} ({error}).") from error


def _sync(folder: Path) -> None:
    """Make a rename durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
