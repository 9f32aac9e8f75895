"""A real HAProxy keeps commercial work away from weights whose licence forbids it."""

import hashlib

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb

from serving.edge.key_file import Key, add_key
from serving.protocol.endpoint import Endpoint, Heartbeat
from serving.protocol.keys import Grant
from serving.protocol.licences import NON_COMMERCIAL, USE_HEADER, USES
from tests.serving.edge.conftest import until
from tests.serving.edge.guarded import Guarded

REASON = "the weights of 'echo' are under \"Früh & Spät\"; 100 % \\ not for sale"
FIX = "use 'other'; or, for other work, x-reelmesh-use: non_commercial"
INFER = "/v2/models/echo/infer"
FREE = {USE_HEADER: NON_COMMERCIAL}
MESSAGE = pb.ModelInferRequest(model_name="echo").SerializeToString()
OK, DENIED = grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED


async def tell(mesh, *, refuses=REASON, others=("other",), version=""):
    """The replica's next heartbeat: ``echo`` under a licence, and more models of its task."""
    known = next(each for each in await mesh.edge.replicas() if each.replica_id == "one")
    own = known.endpoints[0].model_copy(update={"task": "speech", "refuses": refuses, "version": version})
    more = [own.model_copy(update={"model": name, "refuses": ""}) for name in others]
    await mesh.edge.heartbeat(Heartbeat(replica_id="one", endpoints=[own, *more]))


@pytest.fixture
async def free_for_all(settings):
    mesh = Guarded(settings, None)
    async with mesh.running():
        await tell(mesh)
        yield mesh


@pytest.fixture
async def guarded(settings, tmp_path):
    (tmp_path / "keys").mkdir()
    mesh = Guarded(settings, tmp_path / "keys" / "keys.yaml")
    for use in USES:
        digest = hashlib.sha256(use.encode()).hexdigest()
        add_key(mesh.file, Key(digest, Grant(use, "infer", use=use)))
    async with mesh.running():
        await tell(mesh)
        yield mesh


async def test_commercial_work_is_refused_in_the_words_of_the_protocol_with_what_may_be_used_instead(free_for_all):
    for path in (INFER, "/v2/models/echo/versions/1/infer"):
        answer = await free_for_all.post(path)
        assert answer.status_code == 403, path
        assert answer.json() == {"error": f"model: {REASON}: {FIX}"}
    code, details, _ = await free_for_all.call("ModelInfer", None, MESSAGE)
    assert (code, details) == (DENIED, f"model: {REASON}: {FIX}")
    versioned = pb.ModelInferRequest(model_name="echo", model_version="1").SerializeToString()
    assert (await free_for_all.call("ModelInfer", None, versioned))[0] is DENIED


async def test_without_keys_a_request_says_itself_that_it_is_not_commercial(free_for_all):
    assert (await free_for_all.post(INFER, **FREE)).status_code == 200
    assert (await free_for_all.call("ModelInfer", None, MESSAGE, **FREE))[0] is OK
    for other in ("commercial", "noncommercial", "", "non_commercial x"):
        assert (await free_for_all.post(INFER, **{USE_HEADER: other})).status_code == 403, other


async def test_other_models_are_open_to_everybody(free_for_all):
    assert (await free_for_all.post("/v2/models/other/infer")).status_code == 200
    other = pb.ModelInferRequest(model_name="other").SerializeToString()
    assert (await free_for_all.call("ModelInfer", None, other))[0] is OK


async def test_with_keys_the_key_says_what_it_is_for_and_nobody_else(guarded):
    assert (await guarded.post(INFER, "commercial", **FREE)).status_code == 403
    assert (await guarded.call("ModelInfer", "commercial", MESSAGE, **FREE))[0] is DENIED
    answer = await guarded.post(INFER, "non_commercial", **{USE_HEADER: "commercial"})
    assert answer.status_code == 200
    assert answer.headers[f"got-{USE_HEADER}"] == NON_COMMERCIAL, "replicas and the gateway read it there"
    code, _, got = await guarded.call("ModelInfer", "non_commercial", MESSAGE)
    assert (code, got[f"got-{USE_HEADER}"]) == (OK, NON_COMMERCIAL)


async def test_what_clients_say_of_their_use_is_deleted_from_what_a_commercial_key_sends(guarded):
    answer = await guarded.get("/v2/models/echo", "commercial", **FREE)
    assert answer.status_code == 200
    assert f"got-{USE_HEADER}" not in answer.headers


async def test_the_refusal_follows_the_models_as_they_come_and_go(free_for_all):
    await tell(free_for_all, refuses="")
    assert (await free_for_all.post(INFER)).status_code == 200
    await tell(free_for_all, refuses="no", others=("a", "b"))
    assert (await free_for_all.post(INFER)).json() == {"error": "model: no: " + FIX.replace("'other'", "'a', 'b'")}
    await tell(free_for_all, refuses="no", others=())
    assert "no other model here does speech for commercial work" in (await free_for_all.post(INFER)).json()["error"]


async def test_a_pool_that_goes_to_another_model_refuses_for_neither_wrongly(free_for_all):
    known = next(each for each in await free_for_all.edge.replicas() if each.replica_id == "one")
    gone = [each for each in known.endpoints if each.model != "echo"]
    heir = gone[0].model_copy(update={"model": "heir"})
    await free_for_all.edge.heartbeat(known.model_copy(update={"endpoints": [*gone, heir]}))
    assert (await free_for_all.post("/v2/models/heir/infer")).status_code == 200


async def test_a_haproxy_that_died_refuses_again_once_it_is_back(free_for_all):
    child = free_for_all.edge._haproxy._child
    child.kill()
    await child.wait()
    await until(lambda: free_for_all.edge._haproxy._child is not child)
    assert (await free_for_all.post(INFER)).status_code == 403


def test_an_endpoint_bounds_the_reason():
    with pytest.raises(ValueError, match="at most 600"):
        Endpoint(model="m", http="h:1", grpc="h:2", refuses="x" * 601)


async def test_the_longest_reason_in_a_script_that_takes_the_most_bytes_arrives_whole(free_for_all):
    reason = "न" * 600
    await tell(free_for_all, refuses=reason)
    assert (await free_for_all.post(INFER)).json() == {"error": f"model: {reason}: {FIX}"}
    code, details, _ = await free_for_all.call("ModelInfer", None, MESSAGE)
    assert (code, details) == (DENIED, f"model: {reason}: {FIX}")
