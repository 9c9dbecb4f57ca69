"""The programs in ``examples`` and the code of the documentation run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["framework.py", "inference_engine.py", "parallel_queries.py"])
def test_examples_run(name: str) -> None:
    ran = subprocess.run([sys.executable, PACKAGE / "examples" / name], capture_output=True, text=True)
    assert ran.returncode == 0 and ran.stdout, ran.stderr


@pytest.mark.parametrize("page", ["README.md", "../docs/python.md"])
def test_pages_run(page: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (PACKAGE / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        ran = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True)
        assert ran.returncode == 0 and ran.stdout, ran.stderr
