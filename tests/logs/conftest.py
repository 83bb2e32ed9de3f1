from collections.abc import Iterator

import pytest

from longshore.logs.pump import LogPump


@pytest.fixture
def pump() -> Iterator[LogPump]:
    pump = LogPump(patience=0.5)
    yield pump
    pump.close()
