"""The gateway's HTTP server; started by its deployment.

The one invariant: it is the mesh's one HttpServer, which replicas use too.
"""

from serving.backends.http_server import DRAIN_S, HttpServer

__all__ = ["DRAIN_S", "HttpServer"]
