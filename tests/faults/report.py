"""The report of a campaign, in Markdown."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

KINDS = ("lost", "doubled", "different", "reordered", "states")


def write_report(path: Path, seed: int, faults: int, played: Sequence[dict[str, Any]]) -> bool:
    """Write it; returns whether nothing was found."""
    counts: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for one in played:
        counts.update(one["faults"])
        ended.update(one.get("ended", {}))
        found.update({kind: len(one.get(kind, ())) for kind in KINDS})
    failed = [one for one in played if "failed" in one]
    total = {
        name: sum(one.get(name, 0) for one in played) for name in ("records", "scores", "dead", "episodes")
    }
    seconds = sum(one["seconds"] for one in played)
    lines = [
        "# Fault campaign",
        "",
        f"`make faults N={faults} SEED={seed}`: {counts.total()} faults in {len(played)} episodes, "
        f"{seconds / 60:.1f} minutes ({seconds / max(counts.total(), 1):.1f} s a fault), "
        f"on {_cpu()}, {os.cpu_count()} cores.",
        "",
        "Each episode is a live stream on 4 partitions with 20 keys, missing values, late and bad records, "
        "and two or three workers. At its end all outputs and states are held against those of an "
        "uninterrupted run over the same input, byte for byte (`tests/faults/checker.py`).",
        "",
        "| | |",
        "|---|---|",
        f"| records in | {total['records']:,} |",
        f"| scores out | {total['scores']:,} |",
        f"| dead letters out | {total['dead']:,} |",
        f"| openings and closings of episodes out | {total['episodes']:,} |",
        "| **lost / doubled / different** | "
        f"**{found['lost']} / {found['doubled']} / {found['different']}** |",
        f"| out of order | {found['reordered']} |",
        f"| parts of final states that differ | {found['states']} |",
        f"| episodes that did not end | {len(failed)} |",
        "",
        "| faults | |",
        "|---|--:|",
        *(f"| {name.rstrip('.')} | {many} |" for name, many in counts.most_common()),
        "",
    ]
    if ended:
        lines += [
            "Workers that ended by themselves, and were started again as an orchestrator would:",
            "",
            *(f"- {why}: {many}" for why, many in ended.most_common()),
            "",
        ]
    for one in played:
        what = [text for kind in KINDS for text in one.get(kind, ())][:5]
        what += [one["failed"]] if "failed" in one else []
        if what:
            lines += [f"## Found in episode {one['episode']}", "", *(f"- {text}" for text in what)]
            lines += ["", "```", *one["story"], "```", ""]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))
    return not failed and not found.total()


def _cpu() -> str:
    with Path("/proc/cpuinfo").open() as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.processor()
