"""Lets onnxscript's optimiser look at each node once; called by optimize.onnx_export around the translation.

The one invariant: the same rules match the same nodes, in less time.

Seen with onnxscript 0.7.2: for a rule whose pattern has several outputs, `SimplePatternMatcher.match` sorts all nodes
of the graph by operator before it looks whether the node in hand fits the pattern's first one: quadratic in nodes.
That took a third of the export of a tiny video transformer (22 s of 57 s for 1,564 nodes), and 5 s without.
"""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_matching() -> Iterator[None]:
    """Ask first whether a node fits the pattern's first node, and search for the others only then."""
    import onnx_ir as ir
    from onnxscript.rewriter import _basics, _matcher

    matcher = _matcher.SimplePatternMatcher
    whole = matcher.match

    def match(
        self: _matcher.SimplePatternMatcher,
        model: ir.Model,
        graph_or_function: ir.Graph | ir.Function,
        node: ir.Node,
        *,
        verbose: int = 0,
        remove_nodes: bool = True,
        tracer: _basics.MatchingTracer | None = None,
    ) -> _basics.MatchResult:
        if not self.pattern.has_single_output_node and tracer is None:
            # As the whole match begins.
            self._tracer = None
            self._graph = graph_or_function if isinstance(graph_or_function, ir.Graph) else graph_or_function.graph
            self._init_match(verbose)
            if not self._match_node(self.pattern.output_nodes[0], node):
                return self._match
        return whole(self, model, graph_or_function, node, verbose=verbose, remove_nodes=remove_nodes, tracer=tracer)

    matcher.match = match  # type: ignore[method-assign]
    try:
        yield
    finally:
        matcher.match = whole  # type: ignore[method-assign]
