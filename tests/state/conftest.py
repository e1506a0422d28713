from __future__ import annotations

from pathlib import Path

import pytest
from stored import SOURCE

from streamgen.state.files import FileStore, FileTaskStore


@pytest.fixture
def owner(tmp_path: Path) -> FileTaskStore:
    return FileStore(tmp_path).claim(SOURCE)
