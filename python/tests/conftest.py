"""What the tests share: one engine with the embedded model, and nothing from the network."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import tidegate

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def engine() -> Iterator[tidegate.Engine]:
    with tidegate.Engine(cache=False, threads=2) as opened:
        yield opened
