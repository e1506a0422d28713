"""docs/security.md: its examples load, its links lead somewhere. Its rights are tested on a broker."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streamgen.configfile import load_config

PATH = Path(__file__).parent.parent / "docs" / "security.md"
PAGE = PATH.read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
VARIABLES = re.findall(r"^    (STREAMGEN_\w+)=", PAGE, flags=re.MULTILINE)


def test_every_example_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("a password\n")
    for variable in VARIABLES:
        monkeypatch.setenv(variable, str(tmp_path / "secret"))
    assert (len(EXAMPLES), len(VARIABLES)) == (2, 2)
    for example in EXAMPLES:
        (tmp_path / "c.yaml").write_text(f"inputs: [{{topic: orders}}]\n{example}")
        kafka = load_config(tmp_path / "c.yaml", {}).kafka
        for secret in (kafka.sasl_password, kafka.ssl_password):
            assert secret is not None
            assert secret.get_secret_value() == "a password"


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", PAGE))
def test_links_lead_somewhere(link: str) -> None:
    assert (PATH.parent / link).exists()
