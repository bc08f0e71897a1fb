from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from falcon.testing import ASGIConductor

from tests.http.fakes import FakeModels, fake_app


@pytest.fixture
def models(tmp_path: Path) -> FakeModels:
    return FakeModels(tmp_path)


@pytest.fixture
async def client(models: FakeModels) -> AsyncIterator[ASGIConductor]:
    """The app over fake models, in this process."""
    async with ASGIConductor(fake_app(models)) as conductor:
        yield conductor
