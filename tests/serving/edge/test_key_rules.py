"""A real HAProxy asks for keys: who may do what, over HTTP and gRPC."""

import asyncio
import base64

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb

from serving.edge.key_rules import OPEN_PATHS
from serving.protocol.keys import CONTROL_METHODS
from tests.serving.edge.conftest import HOST
from tests.serving.edge.guarded import Guarded

INFER = "/v2/models/echo/infer"
OK = grpc.StatusCode.OK
DENIED = grpc.StatusCode.PERMISSION_DENIED


def message(model):
    return pb.ModelInferRequest(model_name=model).SerializeToString()


@pytest.fixture
async def guarded(settings, tmp_path):
    (tmp_path / "keys").mkdir()
    mesh = Guarded(settings, tmp_path / "keys" / "keys.yaml")
    mesh.anna = mesh.add("anna")
    mesh.ben = mesh.add("ben", models=("echo", "flux-*"))
    mesh.jobs = mesh.add("jobs", "jobs")
    mesh.root = mesh.add("root", "control")
    mesh.half = mesh.add("half", "control", models=("echo",))
    mesh.scraper = mesh.add("scraper", "metrics")
    mesh.slow = mesh.add("slow", rate=3)
    async with mesh.running():
        yield mesh


async def test_without_a_key_nothing_but_health_is_answered(guarded):
    for path in OPEN_PATHS:
        assert (await guarded.get(path)).status_code == 200
    answer = await guarded.post(INFER)
    assert answer.status_code == 401
    assert answer.json() == {"error": "the request has no key: send the header Authorization: Bearer KEY"}
    assert answer.headers.get_list("www-authenticate") == ['Bearer realm="reelmesh"', 'Basic realm="reelmesh"']
    for path in ("/", "/v2", "/v1/jobs", "/metrics", "/static/x", "//v2/health/live", "/v2/health/live/../../models"):
        assert (await guarded.get(path)).status_code == 401, path


async def test_under_v1_a_refusal_has_the_shape_of_openai(guarded):
    answer = await guarded.post("/v1/jobs", "nonsense")
    assert answer.status_code == 401
    assert answer.json()["error"] == {
        "message": "the mesh does not know the key of this request",
        "type": "invalid_request_error",
        "param": None,
        "code": "unauthenticated",
    }


async def test_a_wrong_key_is_refused(guarded):
    wrong = [
        "Bearer",
        "Bearer KEY-OF-ANNA",
        "Bearer key-of-",
        "Bearer key-of-anna2",
        "key-of-anna",
        "Basic",
        "Basic !!",
    ]
    for value in [*wrong, "Digest key-of-anna", f"Bearer {'a' * 8000}", "Bearer \xe9", "Bearer key-of-anna\tx"]:
        answer = await guarded.http.post(INFER, content=b"{}", headers={b"authorization": value.encode("latin1")})
        assert answer.status_code == 401, value


async def test_a_key_is_named_behind_the_edge_and_never_shown(guarded):
    for path in (INFER, "/v2/models/echo"):
        answer = await guarded.post(path, guarded.ben, **{"x-reelmesh-key": "root", "X-Reelmesh-Grant": "control/*"})
        assert answer.status_code == 200
        assert answer.headers["got-x-reelmesh-key"] == "ben"
        assert answer.headers["got-x-reelmesh-grant"] == "infer/echo,flux-*"
        assert "got-authorization" not in answer.headers
    forged = await guarded.get("/v2/health/live", **{"x-reelmesh-key": "root", "x-reelmesh-grant": "control/*"})
    assert not [name for name in forged.headers if name.startswith("got-")]


async def test_a_mesh_without_keys_deletes_what_clients_say_of_themselves(settings):
    open_mesh = Guarded(settings, None)
    async with open_mesh.running():
        answer = await open_mesh.post(INFER, **{"x-reelmesh-key": "root", "x-reelmesh-grant": "control/*"})
        assert answer.status_code == 200
        assert "got-x-reelmesh-key" not in answer.headers
        _, _, got = await open_mesh.call("ModelInfer", None, message("echo"), **{"x-reelmesh-key": "root"})
        assert "got-x-reelmesh-key" not in got


async def test_a_browser_may_give_the_key_as_a_password(guarded):
    basic = base64.b64encode(f"whoever:{guarded.jobs}".encode()).decode()
    answer = await guarded.get("/", authorization=f"Basic {basic}")
    assert answer.headers["got-x-reelmesh-key"] == "jobs"
    basic = base64.b64encode(b"jobs:jobs").decode()
    assert (await guarded.get("/", authorization=f"Basic {basic}")).status_code == 401


CALLS = [
    ("GET", "/v2", "anna ben jobs root half"),
    ("POST", "/v2/repository/index", "anna ben jobs root half"),
    ("POST", "/v2/models/other/infer", "anna jobs root"),
    ("POST", "/v2/models/flux-dev/versions/1/infer", "anna ben jobs root"),
    ("POST", "/v2/models/%66lux-dev/generate", "anna ben jobs root"),
    ("GET", "/v2/models/flux/config", "anna jobs root"),
    ("GET", "/v2/models/stats", "anna jobs root"),
    ("GET", "/v2/models%2Fother/config", "anna jobs root"),
    ("GET", "/v2/models/echo%2F..%2Fother/config", "anna ben jobs root half"),
    ("GET", "/v2/models//config", "anna jobs root"),
    ("POST", "/v2/repository/models/echo/load", "root half"),
    ("POST", "/v2/repository/models/other/load", "root"),
    ("POST", "/v2/repository/models/other/unload", "root"),
    ("POST", "/v2/%72epository/models/other/unload", "root"),
    ("GET", "/v2/logging", "root half"),
    ("POST", "/v2/trace/setting", "root half"),
    ("POST", "/v2/models/echo/trace/setting", "root half"),
    ("GET", "/v2/systemsharedmemory/status", "root half"),
    ("POST", "/v2/cudasharedmemory/region/x/register", "root half"),
    ("GET", "/v1/jobs", "jobs root half"),
    ("POST", "/v1/artifacts", "jobs root half"),
    ("GET", "/", "jobs root half"),
    ("GET", "/metrics", "root half scraper"),
]


async def test_each_key_may_do_what_its_entry_says(guarded):
    for method, path, allowed in CALLS:
        for name in ("anna", "ben", "jobs", "root", "half", "scraper"):
            answer = await (guarded.get if method == "GET" else guarded.post)(path, getattr(guarded, name))
            assert answer.status_code == (200 if name in allowed.split() else 403), (path, name)
            assert answer.is_success or name in str(answer.json()["error"])


async def test_a_path_that_cannot_be_decoded_is_refused(guarded):
    reader, writer = await asyncio.open_connection(HOST, guarded.ports.http)
    writer.write(b"GET /v2/models/%zz HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key-of-root\r\n\r\n")
    assert b" 400 " in await asyncio.wait_for(reader.readline(), 5)
    writer.close()


async def test_grpc_answers_with_its_own_codes(guarded):
    code, details, _ = await guarded.call("ModelInfer", None, message("echo"))
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert details == "the request has no key: send the header Authorization: Bearer KEY"
    code, details, _ = await guarded.call("ModelInfer", "nonsense", message("echo"))
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert (await guarded.call("ModelInfer", guarded.scraper, message("echo")))[0] is DENIED
    assert (await guarded.call("ModelInfer", guarded.anna, b"x" * 200_000))[0] is OK


async def test_grpc_control_needs_a_key_for_it(guarded):
    for method in sorted(CONTROL_METHODS):
        code, details, _ = await guarded.call(method, guarded.anna)
        assert (code, details) == (DENIED, "the key anna may not make control calls")
        assert (await guarded.call(method, guarded.root))[0] is OK


async def test_grpc_health_needs_no_key(guarded):
    assert (await guarded.call("ServerLive"))[0] is OK
    assert (await guarded.call("ServerReady"))[0] is OK
    assert (await guarded.call("Check", service="grpc.health.v1.Health"))[0] is OK
    assert (await guarded.call("ServerMetadata"))[0] is grpc.StatusCode.UNAUTHENTICATED


async def test_a_grpc_key_is_named_behind_the_edge_and_never_shown(guarded):
    code, _, got = await guarded.call("ModelInfer", guarded.anna, message("echo"), **{"x-reelmesh-key": "root"})
    assert code is OK
    assert got == got | {"got-x-reelmesh-key": "anna", "got-x-reelmesh-grant": "infer/*"}
    assert "got-authorization" not in got


async def test_inference_by_a_key_of_some_models_goes_by_the_gateway_which_reads_all_of_the_message(guarded):
    """A later field of the same number wins, so the beginning of a message tells nothing to rely on."""
    await guarded.edge.heartbeat((await guarded.edge.replicas())[0].model_copy(update={"endpoints": []}))
    assert (await guarded.call("ModelInfer", guarded.anna, message("echo")))[0] is OK
    assert (await guarded.call("ModelInfer", guarded.ben, message("echo")))[0] is grpc.StatusCode.UNAVAILABLE


async def test_over_its_rate_a_key_waits_and_others_do_not(guarded):
    answers = [await guarded.post(INFER, guarded.slow) for _ in range(5)]
    assert [answer.status_code for answer in answers][:3] == [200] * 3
    late = answers[-1]
    assert late.status_code == 429
    assert late.headers["retry-after"] == "1"
    assert late.json() == {"error": "the key slow may make 3 requests a second"}
    code, details, _ = await guarded.call("ModelInfer", guarded.slow, message("echo"))
    assert (code, details) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "the key slow may make 3 requests a second")
    assert (await guarded.post(INFER, guarded.anna)).status_code == 200
    assert (await guarded.get("/v2/health/live", guarded.slow)).status_code == 200
    await asyncio.sleep(2.1)
    assert (await guarded.post(INFER, guarded.slow)).status_code == 200


async def test_this_machine_reads_metrics_without_a_key(guarded):
    url = f"http://{HOST}:{guarded.ports.metrics}"
    assert (await guarded.http.get(f"{url}/metrics")).status_code == 200
    assert (await guarded.http.get(f"{url}/haproxy")).status_code == 200
