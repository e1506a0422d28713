"""The demo's processes: each the command line itself, none outlives the demo, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from streamgen.errors import StopError
from streamgen.kafka import watchdog

_STOP_TIMEOUT_S = 20.0


class Processes:
    """Runs `streamgen` commands as child processes; what they say goes to a file each in `directory`.

    They are one process group of their own: Ctrl-C in the terminal reaches the demo alone, which ends them
    in order, and one watchdog kills them all (and removes `directory`) when the demo itself is killed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._asked: set[str] = set()  # to end
        self._group = 0  # that of the first one
        self._watchdog: subprocess.Popen[bytes] | None = None

    def start(self, name: str, arguments: Sequence[str]) -> None:
        """Run `streamgen ARGUMENTS` under this name."""
        # The settings are the demo's own: an override that is meant for a real cluster must not reach them.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("STREAMGEN_")}
        with self._log(name).open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "streamgen", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                process_group=self._group,
            )
        self._running[name] = process
        if self._watchdog is None:
            self._group = process.pid
            # kill() takes a negative number for a group.
            script = [sys.executable, "-I", watchdog.__file__, str(os.getpid()), str(-self._group)]
            self._watchdog = subprocess.Popen(
                [*script, str(self._directory)], stdin=subprocess.PIPE, start_new_session=True
            )

    def lines(self, name: str) -> list[str]:
        """What this process has said so far."""
        return self._log(name).read_text(errors="replace").splitlines()

    def wait_for(self, name: str, found: Callable[[str], str | None], seconds: float) -> str:
        """What `found` makes of the first line that it knows. Raises `StopError` when none comes."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in self.lines(name):
                if (known := found(line)) is not None:
                    return known
            self.check()
            time.sleep(0.05)
        raise StopError(f"The {name} was not ready within {seconds:.0f} s: {self._last_line(name)}.")

    def ended(self, name: str) -> bool:
        """Whether this process ended, in order."""
        code = self._running[name].poll()
        if code:
            raise StopError(f"The {name} ended with exit code {code}: {self._last_line(name)}.")
        return code == 0

    def check(self) -> None:
        """Raises `StopError` when a process failed."""
        for name in self._running:
            self.ended(name)

    def terminate(self, name: str) -> None:
        """Ask this process to end in order; once, for a second signal would end it at once."""
        if name not in self._asked and self._running[name].poll() is None:
            self._asked.add(name)
            self._running[name].send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """End all in order. Raises `StopError` when one did not end so."""
        for name in self._running:
            self.terminate(name)
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        for name, process in self._running.items():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise StopError(
                    f"The {name} did not end within {_STOP_TIMEOUT_S:.0f} s and was killed: "
                    f"{self._last_line(name)}."
                ) from None
        self.check()

    def close(self) -> None:
        """Kill what still runs."""
        for process in self._running.values():
            if process.poll() is None:
                process.kill()
                process.wait()
        if self._watchdog is not None:
            self._watchdog.communicate(b"done\n")
            self._watchdog = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _log(self, name: str) -> Path:
        return self._directory / f"{name.replace(' ', '-')}.log"

    def _last_line(self, name: str) -> str:
        said = [line.strip() for line in self.lines(name) if line.strip()]
        return said[-1].rstrip(".")[:500] if said else "it said nothing"
