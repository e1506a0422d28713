"""What a figure was measured on: processor, load, and one process seen from outside through /proc."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGESIZE")
IDLE = 0.5  # a load average below this is a machine of one's own


def processor() -> str:
    """Model and number of cores."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "?")
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


def load() -> float:
    """Load average of the last minute."""
    return os.getloadavg()[0]


def under(before: float) -> str:
    """What a run was made on, and beside what, from the load `before` it and now."""
    return f"{processor()}; load average {before:.1f} before and {load():.1f} after."


def told(before: float) -> str:
    """Sentences about the machine, from its load `before` the run and now."""
    shared = "the machine was shared with other work" if before > IDLE else "nothing else ran"
    return (
        f"{processor()}; broker, producer, reader and worker on it. Load average {before:.1f} before the run "
        f"and {load():.1f} after it: {shared}."
    )


@dataclass(frozen=True, slots=True)
class Seen:
    """A process at one moment. CPU times are user and system, s."""

    cpu_s: float
    main_s: float  # of its first thread alone
    waited_s: float  # for which that thread could have run and had no core
    rss_mib: float
    threads: int
    files: int


def see(pid: int) -> Seen:
    """Raises `OSError` when the process is gone."""
    own = Path(f"/proc/{pid}")
    statm = (own / "statm").read_text().split()
    return Seen(
        _cpu_s(own / "stat"),
        _cpu_s(own / "task" / str(pid) / "stat"),
        int((own / "task" / str(pid) / "schedstat").read_text().split()[1]) / 1e9,
        int(statm[1]) * PAGE / 2**20,
        len(list((own / "task").iterdir())),
        len(list((own / "fd").iterdir())),
    )


def _cpu_s(stat: Path) -> float:
    # The name, in parentheses, may hold spaces.
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
