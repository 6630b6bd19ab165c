"""Every test works in a folder with the files of docs/extending.md."""

from pathlib import Path

import pytest

from tests.helpers.extensions import FILES


@pytest.fixture(autouse=True)
def _the_pages_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).write_text(text)
