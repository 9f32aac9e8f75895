"""Lets onnxscript's optimiser look at each node once; called by optimize.onnx_export around the translation.

The one invariant: the same rules match the same nodes, in less time.

Seen with onnxscript 0.7.2: for a rule whose pattern has several outputs, `SimplePatternMatcher.match` sorts all nodes
of the graph by operator before it looks whether the node in hand fits the pattern's first one: quadratic in nodes.
That took a third of the export of a tiny video transformer (22 s of 57 s for 1,564 nodes), and 5 s without.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quick_matching() -> Iterator[None]:
    """Ask first whether a node fits the pattern's first node, and search for the others only then."""
    from onnxscript.rewriter import _matcher

    matcher = _matcher.SimplePatternMatcher
    whole = matcher.match

    def match(self: Any, model: Any, graph: Any, node: Any, **options: Any) -> Any:  # noqa: ANN401  foreign types
        if not self.pattern.has_single_output_node and not options.get("tracer"):
            self._tracer, self._graph = None, getattr(graph, "graph", graph)  # as the whole match begins
            self._init_match(options.get("verbose", 0))
            if not self._match_node(self.pattern.output_nodes[0], node):
                return self._match
        return whole(self, model, graph, node, **options)

    matcher.match = match  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        matcher.match = whole  # type: ignore[method-assign]
