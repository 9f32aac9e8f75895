"""A program that owns a HAProxy: ``owner.py HOME`` prints HAProxy's process id and waits to be killed."""

import asyncio
import sys
from pathlib import Path

from serving.edge.haproxy import Haproxy
from serving.settings import EdgeSettings, Settings
from serving.telemetry import set_up_logs


async def main():
    set_up_logs()
    edge = EdgeSettings(http_port=0, grpc_port=0, metrics_port=0)
    haproxy = Haproxy(Settings(home=Path(sys.argv[1]), edge=edge).resolved())
    await haproxy.start()
    print(haproxy._child.pid, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
