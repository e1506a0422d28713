"""The rights that docs/security.md lists, as a broker's ACLs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from kafka.admin import ACL

from tests.integration.secured import acl

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")


class Right(NamedTuple):
    """One operation on one resource, as the page writes it."""

    resource: str
    name: str
    pattern: str
    operation: str

    def granted_to(self, user: str) -> ACL:
        return acl(user, *self)

    def __str__(self) -> str:
        return f"{self.operation} on {self.resource} {self.name}"


def rights(who: str, topic: str, application: str) -> list[Right]:
    """Those of a command or process, with the names that the page leaves open."""
    rows = re.findall(
        r"^\| ([^|]+) \| (\w+) \| `([^`]+)` \| (\w+) \| ([\w, ]+) \| ", PAGE, flags=re.MULTILINE
    )
    found = [
        Right(resource, name.replace("<input>", topic).replace("<app>", application), pattern, operation)
        for by, resource, name, pattern, operations in rows
        if who in by.split(", ")
        for operation in operations.split(", ")
    ]
    assert found, f"the page lists no rights of {who}"
    return found
