"""docs/generation.md is kept by hand; this keeps it true."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from streamgen.config import Config
from streamgen.learners import values
from streamgen.models.online import KINDS
from streamgen.publishing import following, requests
from streamgen.publishing.notation import LOOKBACK
from streamgen.yamlfile import read_yaml

PATH = Path(__file__).parent.parent / "docs" / "generation.md"
PAGE = PATH.read_text(encoding="utf-8")


def rows(heading: str) -> list[str]:
    """What the first cells of the table under a header name."""
    table = PAGE.split(heading, 1)[1].split("\n\n", 1)[0]
    return [name for cell in re.findall(r"^\| (`[^|]+`) \|", table, flags=re.MULTILINE)
            for name in re.findall(r"`(\w[\w-]*)`", cell)]  # fmt: skip


def test_every_field_kind_and_reason_is_documented_and_no_other() -> None:
    assert sorted(rows("| field | default |")) == sorted(requests.Request.__struct_fields__)
    assert rows("| kind | what one gets |") == ["continue", "prior", "what-if", "impute"]
    assert sorted(rows("| kind | what one gets |")) == sorted(KINDS)
    assert sorted(rows("| reason | why |")) == sorted(map(str, requests.Refusal))


@pytest.mark.parametrize(
    "number",
    [
        requests.LONGEST,
        requests.MOST,
        requests.MOST_RECORDS,
        requests.MOST_VALUES,
        following.MOST_BEHIND,
        LOOKBACK,
        values.ENOUGH,
    ],
)
def test_the_limits_are_those_of_the_code(number: int) -> None:
    assert re.search(rf"\b{number:,}\b", PAGE)


def test_every_request_on_the_page_is_one(tmp_path: Path) -> None:
    found = re.findall(r'\{"kind".*\}', PAGE)
    assert len(found) == 4
    assert {requests.parse(json.dumps(json.loads(one)).encode()).kind for one in found} == {
        "continue", "what-if", "impute",
    }  # fmt: skip
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "c.yaml").write_text(example)
    assert Config.model_validate(read_yaml(tmp_path / "c.yaml")).inputs[0].generate.count == 5
