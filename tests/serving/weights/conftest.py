"""A hub for the tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.serving.weights.hub_server import Hub, running_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    with running_hub() as running:
        yield running
