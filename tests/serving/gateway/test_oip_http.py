"""The OIP over HTTP: what is merged, what is passed on, and what is refused in the protocol's shape."""

import asyncio
import gzip
import json
import time
import zlib

import httpx
import pytest

from serving.gateway import oip_http_body
from tests.serving.gateway.oip_site import open_oip

LOAD = "/v2/repository/models/echo/load"
INFER = "/v2/models/echo/infer"
EVENTS = "/v2/models/echo/generate_stream"
HEADER = "Inference-Header-Content-Length"
GOOD = b'{"inputs": []}'

STEADY = pytest.mark.asyncio(loop_scope="module")

CASES = {
    "unknown": ("GET", "/v2/models/nobody", b"", {}, 404, "Request for unknown model: 'nobody' is not found"),
    "unknown-version": ("GET", "/v2/models/nobody/versions/3/config", b"", {}, 404, "'nobody' version 3 is not found"),
    "unknown-infer": ("POST", "/v2/models/nobody/infer", GOOD, {}, 404, "Request for unknown model: 'nobody'"),
    "unknown-generate": ("POST", "/v2/models/nobody/generate_stream", GOOD, {}, 404, "Request for unknown model"),
    "unknown-stats": ("GET", "/v2/models/nobody/stats", b"", {}, 400, "requested model 'nobody' is not available"),
    "dots": ("GET", "/v2/models/%2e%2e/config", b"", {}, 400, "model name"),
    "control-character": ("GET", "/v2/models/a%0ab", b"", {}, 400, "model name"),
    "long-name": ("POST", f"/v2/models/{'x' * 300}/infer", GOOD, {}, 400, "model name: must be a string of 1 to 256"),
    "no-utf8": ("GET", "/v2/models/%ff%fe", b"", {}, 404, "Request for unknown model"),
    "load-dots": ("POST", "/v2/repository/models/%2e%2e/load", b"", {}, 400, "model name"),
    "slash": ("POST", "/v2/repository/models/a%2Fb/load", b"", {}, 404, "there is no POST"),
    "too-large": ("POST", INFER, bytes((1 << 20) + 1), {}, 413, "at most 1,048,576 bytes"),
    "json-too-large": ("POST", INFER, b" " * (1 << 20), {}, 413, "the JSON part may have at most 524,288 bytes"),
    "index-word": ("POST", "/v2/repository/index", b'{"ready": "yes"}', {}, 400, "ready: must be a boolean"),
    "index-large": ("POST", "/v2/repository/index", bytes(70_000), {}, 413, "at most 65,536 bytes"),
    "index-text": ("POST", "/v2/repository/index", b"\xff\xfe", {}, 400, "not valid JSON"),
    "path": ("GET", "/v2/nothing/here", b"", {}, 404, "there is no GET /v2/nothing/here"),
    "method": ("DELETE", "/v2/health/live", b"", {}, 404, "there is no DELETE"),
    "call": ("POST", "/v2/models/echo/nothing", b"", {}, 404, "there is no POST"),
    "parameters": ("POST", LOAD, b'{"parameters": []}', {}, 400, "parameters: must be an object"),
    "memory": ("GET", "/v2/gpusharedmemory/status", b"", {}, 404, "there is no 'gpu' shared memory"),
    "length-negative": ("POST", INFER, GOOD, {HEADER: "-1"}, 400, f"{HEADER}: must be a number"),
    "length-word": ("POST", INFER, GOOD, {HEADER: "many"}, 400, f"{HEADER}: must be a number"),
    "length-beyond": ("POST", INFER, GOOD, {HEADER: "15"}, 400, f"{HEADER}: is 15, past the end"),
    "length-huge": ("POST", INFER, GOOD, {HEADER: "9" * 30}, 400, f"{HEADER}: must be a number"),
    "encoding": ("POST", INFER, GOOD, {"Content-Encoding": "br"}, 501, "Content-Encoding: 'br' is not supported"),
    "no-gzip": ("POST", INFER, GOOD, {"Content-Encoding": "gzip"}, 400, "the body is not gzip"),
    "gzip-cut": ("POST", INFER, gzip.compress(GOOD)[:-9], {"Content-Encoding": "gzip"}, 400, "ends too early"),
    "bomb": ("POST", INFER, gzip.compress(bytes(9 << 20)), {"Content-Encoding": "gzip"}, 413, "when decompressed"),
    "sequence": ("POST", "/v2/models/together/infer", b"[]", {}, 400, "request body: must be a JSON object"),
}


@STEADY
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_every_refusal_is_an_error_in_the_protocols_shape(steady, case):
    method, path, body, headers, status, problem = case
    request = steady.http.build_request(method, path, content=body, headers=headers)
    answer = await steady.http.send(request)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert problem in answer.json()["error"]
    assert len(answer.json()["error"]) < 600
    assert (await steady.http.get("/v2/health/live")).status_code == 200


WRONG_METHODS = [
    ("GET", INFER, "POST"),
    ("GET", "/v2/models/nobody/versions/1/infer", "POST"),
    ("PUT", EVENTS, "POST"),
    ("POST", "/v2/models/echo/config", "GET"),
    ("DELETE", "/v2/models/echo/ready", "GET"),
]


@STEADY
@pytest.mark.parametrize(("method", "path", "allowed"), WRONG_METHODS)
async def test_a_call_by_the_wrong_method_is_told_the_right_one(steady, method, path, allowed):
    answer = await steady.http.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.json() == {"error": f"{method} {path}: the method is not allowed: use {allowed}"}


READS_JSON = [
    "/v2/repository/index", LOAD, "/v2/repository/models/echo/unload", "/v2/logging", "/v2/trace/setting",
    "/v2/models/echo/trace/setting", "/v2/systemsharedmemory/region/a/register",
    "/v2/cudasharedmemory/region/a/register", INFER, "/v2/models/echo/generate", "/v2/models/echo/generate_stream",
    "/v2/models/together/infer",
]  # fmt: skip


@STEADY
@pytest.mark.parametrize("path", READS_JSON)
@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"parameters":['], ids=["arrays", "objects", "inside"])
async def test_deep_json_is_refused_wherever_json_is_read(steady, path, opening):
    small = ("index", "unload", "logging", "setting", "register")
    deep = opening * (60_000 // len(opening) if path.endswith(small) else 100_000)
    answer = await steady.http.post(path, content=deep[: 1 << 19])
    assert answer.status_code == 400
    assert "nested more than 64 deep" in answer.json()["error"]


async def test_json_nested_three_million_deep_is_refused_at_once():
    async with open_oip(["one"], infer_bytes=4 << 20, infer_json_bytes=4 << 20) as oip:
        for path in (LOAD, INFER):
            answer = await oip.http.post(path, content=b"[" * 3_000_000)
            assert answer.status_code == 400
        assert not oip.replicas[0].bodies
        assert (await oip.http.post("/v2/logging", content=b"[" * 3_000_000)).status_code == 413


async def test_large_bodies_are_parsed_few_at_a_time_and_the_others_wait(monkeypatch):
    at_once, most, check = 0, 0, oip_http_body.check_body

    def counting(*args):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.05)
        at_once -= 1
        return check(*args)

    monkeypatch.setattr(oip_http_body, "check_body", counting)
    async with open_oip(["one"]) as oip:
        answers = await asyncio.gather(*(oip.http.post(INFER, content=GOOD + b" " * (300 << 10)) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert most == oip_http_body.LARGE_AT_ONCE


async def test_a_load_of_many_values_is_refused_before_they_take_memory():
    async with open_oip(["one"], infer_bytes=4 << 20) as oip:
        answer = await oip.http.post(LOAD, content=b'{"parameters":[' + b"{}," * 300_000 + b"{}]}")
        assert (answer.status_code, "at most 262,144 values" in answer.text) == (413, True)


WRONG = [b"1", b"null", b'"x"', b"[]", b"\xff", b"{", b'{"a": }', b"\x00", b'{"a": 1}{}']


@STEADY
@pytest.mark.parametrize("path", [p for p in READS_JSON if "generate" not in p and p != INFER])
@pytest.mark.parametrize("body", WRONG)
async def test_what_is_no_json_object_is_refused(steady, path, body):
    answer = await steady.http.post(path, content=body)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize("encoding", ["", "gzip", "deflate"])
async def test_inference_reaches_a_replica_plain_and_with_its_header_length(oip, encoding):
    body = GOOD + bytes(100)
    packed = {"": bytes, "gzip": gzip.compress, "deflate": zlib.compress}[encoding](body)
    headers = {HEADER: str(len(GOOD)), **({"Content-Encoding": encoding} if encoding else {})}
    answer = await oip.http.post(INFER, content=packed, headers=headers)
    assert answer.json()["replica"] in {"one", "two"}
    [(received, seen)] = [each for replica in oip.replicas for each in replica.bodies]
    assert received == body
    assert seen[HEADER.lower()] == str(len(GOOD))
    assert "content-encoding" not in seen


@STEADY
async def test_chunked_bodies_and_json_of_many_shallow_arrays_pass(steady):
    async def pieces():
        yield b'{"inputs": ['
        for _ in range(1000):
            yield b"[[1], [2]],"
        yield b"[]]}"

    assert (await steady.http.post(INFER, content=pieces())).status_code == 200


async def test_requests_of_a_sequence_go_to_one_replica(oip):
    for sequence in range(1, 21):
        body = json.dumps({"parameters": {"sequence_id": sequence}}).encode()
        answers = [(await oip.http.post("/v2/models/together/infer", content=body)).json() for _ in range(3)]
        assert len({answer["replica"] for answer in answers}) == 1
    assert all(replica.bodies for replica in oip.replicas)


async def test_events_are_passed_on_as_they_come_and_end_with_the_client(oip):
    async with oip.http.stream("POST", "/v2/models/echo/generate_stream", content=b"{}") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        async with asyncio.timeout(5):
            assert await anext(answer.aiter_raw()) == b'data: {"n": 1}\n\n'
    [streaming] = [replica for replica in oip.replicas if replica.bodies]
    async with asyncio.timeout(5):
        await streaming.cancelled.wait()


async def test_a_client_that_goes_away_cancels_its_inference(oip):
    with pytest.raises(httpx.ReadTimeout):
        await oip.http.post("/v2/models/silent/infer", content=GOOD, timeout=0.3)
    async with asyncio.timeout(5):
        while any("_answer" in repr(task) for task in asyncio.all_tasks()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_replica_that_is_gone_is_a_503_and_events_end_with_an_error(oip):
    async with oip.http.stream("POST", "/v2/models/echo/generate_stream", content=b"{}") as answer:
        pieces = answer.aiter_raw()
        await anext(pieces)
        for replica in oip.replicas:
            for connection in list(replica.http._server.server_state.connections):
                connection.transport.abort()
            await replica.http.stop()
        rest = b"".join([piece async for piece in pieces])
    assert rest.startswith(b'data: {"error":"the replica did not answer')
    answer = await oip.http.post(INFER, content=GOOD)
    assert answer.status_code == 503
    assert "the replica of the model 'echo' did not answer" in answer.json()["error"]
    assert answer.headers["retry-after"] == "1"


async def test_a_request_that_no_replica_has_seen_goes_to_another(oip):
    await oip.replicas[0].http.stop()
    answers = [await oip.http.post(INFER, content=GOOD) for _ in range(8)]
    assert [answer.json() for answer in answers] == [{"replica": "two"}] * 8


async def test_answers_are_compressed_only_for_clients_that_take_them(oip):
    for accepted in ("", "gzip"):
        asked = oip.http.build_request("POST", INFER, content=GOOD)
        del asked.headers["accept-encoding"]
        asked.headers.update({"accept-encoding": accepted} if accepted else {})
        await oip.http.send(asked)
    seen = [headers["accept-encoding"] for replica in oip.replicas for _, headers in replica.bodies]
    assert sorted(seen) == ["gzip", "identity"]


async def test_streams_without_end_leave_room_for_the_control_plane(monkeypatch):
    monkeypatch.setattr("serving.gateway.oip_parts._RELAYED", httpx.Limits(max_connections=1))
    async with open_oip(["one"]) as oip, oip.http.stream("POST", EVENTS, content=b"{}") as answer:
        pieces = answer.aiter_raw()
        await anext(pieces)
        refused = await oip.http.post(INFER, content=GOOD)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "no free connection" in refused.json()["error"]
        assert (await oip.http.get("/v2/logging")).status_code == 200
        assert (await oip.http.get("/v2/models/echo/stats")).status_code == 200


async def test_statistics_add_up_and_leave_out_a_replica_that_does_not_answer(oip):
    expected = {
        "name": "echo", "version": "1", "last_inference": 7, "inference_count": 4,
        "batch_stats": [{"batch_size": 1, "compute_infer": {"count": 2, "ns": 10}}],
    }  # fmt: skip
    assert (await oip.http.get("/v2/models/echo/stats")).json() == {"model_stats": [expected]}
    assert (await oip.http.get("/v2/models/stats")).json() == {"model_stats": [expected]}
    await oip.replicas[0].http.stop()
    [entry] = (await oip.http.get("/v2/models/stats")).json()["model_stats"]
    assert entry["inference_count"] == 2
    await oip.replicas[1].http.stop()
    assert (await oip.http.get("/v2/models/echo/stats")).status_code == 503


@STEADY
async def test_metadata_name_the_versions_of_all_replicas(steady):
    assert (await steady.http.get("/v2/models/echo")).json()["versions"] == ["1", "2"]


async def test_the_mesh_is_ready_when_every_requested_model_is(oip):
    assert (await oip.http.get("/v2/health/ready")).status_code == 200
    for control in oip.controls:
        control.loaded["echo"] = "LOADING"
        await control.beat()
    answer = await oip.http.get("/v2/health/ready")
    assert (answer.status_code, answer.json()) == (503, {"error": "models that are not ready: echo"})
    assert answer.headers["retry-after"] == "1"


@STEADY
async def test_the_mesh_names_itself_and_its_extensions(steady):
    document = (await steady.http.get("/v2")).json()
    assert document["name"] == "reelmesh"
    assert "model_repository(unload_dependents)" in document["extensions"]
