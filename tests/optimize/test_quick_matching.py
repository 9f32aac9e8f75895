import onnx_ir
import pytest
from onnxscript.rewriter import RewriteRule, RewriteRuleSet, _matcher

from optimize.quick_matching import quick_matching

PAIRS = 3


def model() -> onnx_ir.Model:
    """Sines and cosines of three values, of which the second has no cosine, and a row of other nodes."""
    lines = []
    for index in range(PAIRS):
        lines += [f"s{index} = Sin(x{index})", f"n{index} = Neg(s{index})"]
        lines += [f"c{index} = Cos(x{index})"] if index != 1 else [f"c{index} = Abs(x{index})"]
    inputs = ", ".join(f"float[2] x{index}" for index in range(PAIRS))
    outputs = ", ".join(f"float[2] n{index}, float[2] c{index}" for index in range(PAIRS))
    text = f'<ir_version: 10, opset_import: ["" : 20]> g ({inputs}) => ({outputs}) {{' + "\n".join(lines) + "}"
    return onnx_ir.from_onnx_text(text)


def rule() -> RewriteRule:
    def pair(op, x):
        return op.Sin(x), op.Cos(x)

    def both(op, x):
        return op.SinCos(x, _domain="test", _outputs=2)

    return RewriteRule(pair, both)


def rewritten() -> tuple[int, str]:
    graph = model()
    count = RewriteRuleSet([rule()]).apply_to_model(graph)
    return count, "\n".join(f"{node.op_type} {[each.name for each in node.inputs]}" for node in graph.graph)


def test_a_rule_with_two_outputs_matches_the_same_nodes() -> None:
    expected = rewritten()
    with quick_matching():
        found = rewritten()
    assert found == expected
    assert found[0] == 2


def test_nodes_that_do_not_fit_are_not_searched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    searched = []
    whole = _matcher.SimplePatternMatcher.match

    def match(self, model, graph, node, **options):
        searched.append(node.op_type)
        return whole(self, model, graph, node, **options)

    monkeypatch.setattr(_matcher.SimplePatternMatcher, "match", match)
    with quick_matching():
        rewritten()
    assert set(searched) == {"Sin"}
    assert _matcher.SimplePatternMatcher.match is match
