"""Which network of Coqui's a card names."""

from pathlib import Path

import pytest

from serving.backends.ray.engines.coqui.engine import coqui_engine
from serving.errors import BadInput
from tests.servers.tiny import changed, context_in, tiny_model


@pytest.mark.parametrize("options", [{}, {"network": "tacotron2"}])
def test_a_network_that_is_not_served_is_refused_with_those_that_are(options: dict, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no network .* use vits or xtts") as caught:
        coqui_engine(changed(tiny_model("vits_vctk"), options=options), context_in(tmp_path))
    assert caught.value.field == "vits_vctk/model.yaml:options.network"
