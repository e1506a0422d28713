"""Ends a process when the one that started it is gone, however it went (also by SIGKILL).

Run as a script, with the standard library only: `watchdog.py OWNER_PID PID [DIRECTORY]`. The owner holds
the other end of standard input; its end, or a new parent, means that the owner is gone. Then PID is
killed and DIRECTORY, if given, removed. The line `done` on standard input means that nothing is to be done.

(PR_SET_PDEATHSIG is no substitute: it fires when the *thread* that forked ends, and only on Linux.)
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import time

# A child that the owner forked without exec also holds the other end, so its end is not enough.
PARENT_CHECK_S = 0.5


def owner_is_gone(owner: int) -> bool:
    """Wait until the owner ends (True) or says that nothing is to be done (False)."""
    while os.getppid() == owner:
        readable, _, _ = select.select([sys.stdin], [], [], PARENT_CHECK_S)
        if readable:
            return os.read(sys.stdin.fileno(), 16) == b""
    return True


def main() -> None:
    owner, pid = int(sys.argv[1]), int(sys.argv[2])
    if not owner_is_gone(owner):
        return
    with contextlib.suppress(ProcessLookupError):  # it may have ended on its own
        os.kill(pid, signal.SIGKILL)
    for directory in sys.argv[3:]:
        # The killed process may still be writing its last file.
        for _ in range(20):
            shutil.rmtree(directory, ignore_errors=True)
            if not os.path.exists(directory):
                break
            time.sleep(0.1)


if __name__ == "__main__":
    main()
