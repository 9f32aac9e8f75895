"""Parameters that are refused before they reach an engine."""

import pytest

from serving.errors import BadInput
from serving.protocol.oip_parameters import MAX_SEQUENCE_ID_BYTES, check_parameters


@pytest.mark.parametrize("longest", ["x" * MAX_SEQUENCE_ID_BYTES, "\u00e9" * (MAX_SEQUENCE_ID_BYTES // 2)], ids=ascii)
def test_a_sequences_id_is_no_longer_than_tritons(longest):
    assert check_parameters({"sequence_id": longest}, "parameters") == {"sequence_id": longest}
    with pytest.raises(BadInput, match=r"parameters\.sequence_id: must have at most 128 bytes"):
        check_parameters({"sequence_id": longest + "x"}, "parameters")
