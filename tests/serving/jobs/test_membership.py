import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from serving.jobs.membership import SILENT_S, Membership, new_worker_id
from serving.jobs.tables import workers
from tests.serving.jobs.office import Office


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "workers"


async def join(office: Office, folder: Path) -> tuple[str, Membership]:
    worker = new_worker_id()
    membership = Membership(office.database, worker, folder)
    await membership.join()
    return worker, membership


async def test_a_worker_of_this_machine_lives_while_it_holds_its_lock(office: Office, folder: Path) -> None:
    _, one = await join(office, folder)
    other, two = await join(office, folder)
    assert await one.dead() == []
    await two.leave()
    assert await one.dead() == [other]
    await one.forget(other)
    assert await one.dead() == []
    await one.leave()


async def test_a_worker_elsewhere_lives_while_it_is_heard(office: Office, folder: Path) -> None:
    _, one = await join(office, folder)
    now = time.time()
    rows = [
        {"id": "fresh", "host": "elsewhere", "seen_at": now},
        {"id": "silent", "host": "elsewhere", "seen_at": now - SILENT_S - 1},
    ]
    await office.database.run(lambda connection: connection.execute(sa.insert(workers), rows))
    assert await one.dead() == ["silent"]
    await one.leave()
