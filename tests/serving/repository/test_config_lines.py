"""Every field of a config.pbtxt is found on its line, whatever the style."""

import pytest

from serving.repository.config_lines import line_of

TEXT = """\
backend: "x{y" # input {
input [
  { name: "A" dims: [ 1,
    2 ] },
  { name: 'B' dims: [ 3 ] reshape: { shape: [ 3 ] } }
]
output { name: "C" }
output <
  name: "D"
>
ensemble_scheduling { step [ { model_name: "m"
  input_map { key: "X" value: "A" } }, {
  model_name: "n" } ] }
max_batch_size: 8
"""


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("backend", 1),
        ("input[0].name", 3),
        ("input[0].dims[1]", 4),
        ("input[1].dims", 5),
        ("input[1].reshape.shape", 5),
        ("output[1].name", 9),
        ("ensemble_scheduling.step[0].input_map[0]", 12),
        ("ensemble_scheduling.step[1].model_name", 13),
        ("max_batch_size", 14),
        ("input[1].data_type", 5),
        ("output[1].dims", 8),
        ("version_policy.latest", 0),
    ],
)
def test_a_field_is_found_or_the_nearest_around_it(field: str, line: int) -> None:
    assert line_of(TEXT, field) == line


@pytest.mark.parametrize("text", ["", "}}}}", "[[[[", '"', "a: {" * 50_000, "\\" * 1000, ":::", "a" * 100_000])
def test_any_text_ends(text: str) -> None:
    assert line_of(text, "a.b[3]") in {0, 1}
