"""The mesh as one server: whom it finds for a request."""

import pytest

from serving.errors import BadInput, NotFound, Unavailable
from serving.gateway.oip_mesh import EXTENSIONS, OipMesh, serving_version
from serving.protocol.control import ModelState
from serving.protocol.endpoint import Endpoint, Heartbeat
from tests.serving.gateway.oip_site import MemoryEdge


def endpoints(*versions):
    return [Endpoint(model="m", version=version, http="h:1", grpc=f"h:{n}") for n, version in enumerate(versions, 1)]


@pytest.mark.parametrize(
    ("versions", "wanted", "found"),
    [
        (("", ""), "", ["", ""]),
        (("1", "2", "10"), "", ["10"]),
        (("1", "2", ""), "1", ["1", ""]),
        (("1", "2"), "7", ["1", "2"]),
    ],
    ids=["replicas-decide", "newest", "named", "nobody-serves-it"],
)
def test_a_version_picks_the_replicas_that_serve_it(versions, wanted, found):
    assert [each.version for each in serving_version(endpoints(*versions), wanted)] == found


def mesh(*beats, requested=()):
    edge = MemoryEdge()
    edge.beats = {beat.replica_id: beat for beat in beats}
    return OipMesh(edge, requested)


async def test_a_requested_model_without_replica_is_retryable_and_an_unknown_one_is_not():
    with pytest.raises(Unavailable, match="no replica answers"):
        await mesh(requested=["m"]).find("m")
    with pytest.raises(NotFound, match="Request for unknown model: 'n' version 3 is not found"):
        await mesh(requested=["m"]).find("n", "3")


async def test_a_model_that_failed_to_load_says_why_and_an_unloaded_one_that_it_is_gone():
    failed = ModelState(name="m", state="UNAVAILABLE", reason="no memory")
    with pytest.raises(Unavailable, match="no memory"):
        await mesh(Heartbeat(replica_id="one", endpoints=[], models=[failed])).find("m")
    gone = failed.model_copy(update={"reason": "unloaded"})
    with pytest.raises(NotFound, match="'m' has no available versions"):
        await mesh(Heartbeat(replica_id="one", endpoints=[], models=[gone])).find("m")


async def test_an_avoided_replica_is_taken_only_where_there_is_no_other():
    found = mesh(Heartbeat(replica_id="one", endpoints=endpoints("", "")))
    assert {(await found.find("m", avoid={"h:1"})).grpc for _ in range(20)} == {"h:2"}
    assert (await found.find("m", avoid={"h:1", "h:2"})).grpc in {"h:1", "h:2"}


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\\b", "a\nb", "a\x00b", "x" * 257])
async def test_names_that_could_be_paths_are_refused(name):
    with pytest.raises(BadInput, match="model name"):
        await mesh().find(name)


def test_the_extensions_have_tritons_names():
    assert {"sequence", "system_shared_memory", "model_repository(unload_dependents)"} <= set(EXTENSIONS)
    assert mesh().metadata()["extensions"] == list(EXTENSIONS)
