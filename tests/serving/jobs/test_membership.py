import asyncio
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from serving.jobs.line import Line
from serving.jobs.membership import Membership, new_worker_id
from serving.jobs.tables import workers
from tests.serving.jobs.office import Office

SILENT_S = 0.3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "workers"


async def join(office: Office, folder: Path) -> tuple[str, Membership]:
    worker = new_worker_id()
    membership = Membership(office.database, worker, folder, silent_s=SILENT_S)
    await membership.join()
    return worker, membership


async def says(office: Office, worker: str, seen_at: float) -> None:
    """A worker elsewhere, whose clock says that."""
    row = {"host": "elsewhere", "seen_at": seen_at}

    def write(connection: sa.Connection) -> None:
        if not connection.execute(sa.update(workers).where(workers.c.id == worker).values(**row)).rowcount:
            connection.execute(sa.insert(workers).values(id=worker, **row))

    await office.database.run(write)


async def test_a_worker_of_this_machine_lives_while_it_holds_its_lock(office: Office, folder: Path) -> None:
    _, one = await join(office, folder)
    other, two = await join(office, folder)
    assert await one.dead() == []
    await two.leave()
    assert await one.dead() == [other]
    await one.forget(other)
    assert await one.dead() == []
    await one.leave()


async def test_a_worker_elsewhere_lives_while_its_row_changes_whatever_its_clock_says(
    office: Office, folder: Path
) -> None:
    _, one = await join(office, folder)
    await says(office, "silent", time.time() + 3600)
    dead: set[str] = set()
    for look in range(12):
        await says(office, "slow clock", 1000.0 + look)
        dead |= set(await one.dead())
        assert look > 1 or not dead, "it was seen for the first time just now"
        await asyncio.sleep(SILENT_S / 6)
    assert dead == {"silent"}
    await one.leave()


async def test_nobody_is_silent_while_nobody_can_be_heard(
    office: Office, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, one = await join(office, folder)
    await says(office, "elsewhere", time.time())
    assert await one.dead() == []
    with monkeypatch.context() as outage:
        outage.setattr(office.database, "_run", lambda work: work(None))
        for _ in range(3):
            await asyncio.sleep(SILENT_S / 2)
            with pytest.raises(AttributeError):
                await one.beat()
    assert await one.dead() == []
    await asyncio.sleep(SILENT_S * 2)  # this machine stood still
    assert await one.dead() == []
    await one.leave()


async def test_a_worker_that_was_given_up_and_lives_on_joins_again_and_is_missed_again(
    office: Office, folder: Path
) -> None:
    _, one = await join(office, folder)
    other, two = await join(office, folder)
    await one.forget(other)
    await two.beat()
    assert await one.dead() == [], "no lock file, but a row that was just seen for the first time"
    await asyncio.sleep(SILENT_S / 2)
    await one.dead()
    await asyncio.sleep(SILENT_S / 2)
    assert await one.dead() == [other]
    await one.leave()
    await two.leave()


async def test_whoever_owns_jobs_and_has_no_row_is_dead(office: Office, folder: Path) -> None:
    _, one = await join(office, folder)
    await office.submit()
    assert await Line(office.database, "forgotten").claim() is not None
    assert await one.dead() == ["forgotten"]
    await one.leave()
