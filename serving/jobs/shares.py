"""What the policy remembers of earlier starts, in the database; used by the line and its forecast.

The one invariant: it is written in the transaction of the start that it tells of.
"""

from collections.abc import Mapping

import sqlalchemy as sa

from serving.jobs.scheduling import CLOCK, Key
from serving.jobs.tables import lane_shares


def shares_of(connection: sa.Connection) -> dict[Key, float]:
    """All of it, as :data:`serving.jobs.scheduling.Shares`."""
    return {(row.lane, row.tenant): row.virtual_s for row in connection.execute(sa.select(lane_shares))}


def remember(connection: sa.Connection, changes: Mapping[Key, float]) -> None:
    """Write what :func:`serving.jobs.scheduling.charge` found."""
    for (lane, tenant), value in changes.items():
        here = (lane_shares.c.lane == lane, lane_shares.c.tenant == tenant)
        if not connection.execute(sa.update(lane_shares).where(*here).values(virtual_s=value)).rowcount:
            connection.execute(sa.insert(lane_shares).values(lane=lane, tenant=tenant, virtual_s=value))
        if lane == CLOCK:
            # A tenant behind the lane's clock starts from the clock: its row says nothing any more.
            behind = (lane_shares.c.lane == tenant, lane_shares.c.virtual_s <= value)
            connection.execute(sa.delete(lane_shares).where(*behind))
