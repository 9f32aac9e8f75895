import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import tritonclient.grpc.aio
import tritonclient.http

from serving.backends.call import Call
from serving.backends.triton import doors
from serving.backends.triton.command import HOST, Options, Ports, free_ports
from serving.backends.triton.install import TritonInstall
from serving.backends.triton.process import TritonProcess
from serving.backends.triton.server import TritonServer, pending_requests, restart_pause_s
from serving.errors import BadInput, DeadlineExceeded, EngineFailed, NotFound, Unavailable
from serving.repository.model import Model

from .conftest import PLUS_ONE, MakeModel, add_graph

pytestmark = pytest.mark.asyncio(loop_scope="session")
ONES = {"X": np.ones((1, 4), np.float32)}


def ports_of(server: TritonServer) -> Ports:
    assert server.ports is not None
    return server.ports


def inside(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in other processes
            await asyncio.sleep(0.02)


async def test_a_client_infers_by_grpc_and_reads_metadata(server: TritonServer) -> None:
    client = tritonclient.grpc.aio.InferenceServerClient(f"{HOST}:{ports_of(server).grpc}")
    metadata = await client.get_model_metadata("plus_one")
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in metadata.inputs] == [
        ("X", "FP32", [-1, 4])
    ]
    await client.close()
    outputs = await server.infer("plus_one", {"X": np.arange(8, dtype=np.float32).reshape(2, 4)}, ["Y"], Call())
    np.testing.assert_array_equal(outputs["Y"], np.arange(1, 9, dtype=np.float32).reshape(2, 4))


async def test_a_client_infers_by_http(server: TritonServer) -> None:
    def infer() -> np.ndarray:
        client = tritonclient.http.InferenceServerClient(f"{HOST}:{ports_of(server).http}")
        tensor = tritonclient.http.InferInput("X", [1, 4], "FP32")
        tensor.set_data_from_numpy(ONES["X"])
        answer = client.infer("plus_one", [tensor]).as_numpy("Y")
        client.close()
        return answer

    np.testing.assert_array_equal(await asyncio.to_thread(infer), [[2, 2, 2, 2]])


async def test_requests_that_are_batched_together_each_get_their_own_answer(server: TritonServer) -> None:
    inputs = [np.full((1 + number % 3, 4), number, np.float32) for number in range(40)]
    answers = await asyncio.gather(*(server.infer("plus_one", {"X": x}, ["Y"], Call()) for x in inputs))
    for x, answer in zip(inputs, answers, strict=True):
        np.testing.assert_array_equal(answer["Y"], x + 1)
    async with httpx.AsyncClient() as client:
        url = f"http://{HOST}:{ports_of(server).http}/v2/models/plus_one/stats"
        stats = (await client.get(url)).json()["model_stats"][0]
    assert stats["execution_count"] < stats["inference_stats"]["success"]["count"]


async def test_an_optional_input_may_be_left_out(server: TritonServer) -> None:
    x = {"X": np.array([1, 2], np.float32)}
    alone = await server.infer("optional", x, ["Y"], Call())
    given = await server.infer("optional", {**x, "B": np.array([10], np.float32)}, ["Y"], Call())
    assert (alone["Y"].tolist(), given["Y"].tolist()) == ([2, 3], [11, 12])


async def test_strings_go_through_in_any_script(server: TritonServer) -> None:
    words = np.array(["naïve", "नमस्ते", "", "ok"], dtype=object)
    outputs = await server.infer("strings", {"X": words}, ["Y"], Call())
    assert [word.decode() for word in outputs["Y"]] == ["naïve!", "नमस्ते!", "!", "ok!"]


async def test_a_string_that_is_not_utf8_is_the_callers_fault(server: TritonServer) -> None:
    with pytest.raises(BadInput, match="not UTF-8"):
        await server.infer("strings", {"X": np.array([b"\xff\xfe"], dtype=object)}, ["Y"], Call())


async def test_a_bare_configuration_is_completed_from_the_file(server: TritonServer) -> None:
    async with httpx.AsyncClient() as client:
        config = (await client.get(f"http://{HOST}:{ports_of(server).http}/v2/models/bare/config")).json()
    assert config["max_batch_size"] == 4
    assert [(tensor["name"], tensor["dims"]) for tensor in config["input"]] == [("X", [4])]
    assert (await server.infer("bare", ONES, ["Y"], Call()))["Y"].tolist() == [[2, 2, 2, 2]]


@pytest.mark.parametrize(
    ("model", "inputs", "error", "says"),
    [
        ("nobody", ONES, NotFound, "unknown model"),
        ("plus_one", {"X": np.ones((1, 5), np.float32)}, BadInput, "unexpected shape"),
        ("plus_one", {"X": np.ones((1, 4), np.float64)}, BadInput, "data-type"),
        ("plus_one", {"X": np.ones((9, 4), np.float32)}, BadInput, "batch-size must be <= 8"),
        ("plus_one", {}, BadInput, "expected 1 inputs but got 0"),
    ],
    ids=["model", "shape", "datatype", "batch", "missing"],
)
async def test_a_wrong_request_is_the_callers_fault_and_says_why(
    server: TritonServer, model: str, inputs: dict[str, np.ndarray], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        await server.infer(model, inputs, ["Y"], Call())


async def test_a_call_whose_deadline_has_passed_is_not_sent(server: TritonServer) -> None:
    with pytest.raises(DeadlineExceeded):
        await server.infer("plus_one", ONES, ["Y"], Call(deadline_unix_s=time.time() - 1))


@pytest.mark.parametrize(
    "path",
    [
        "repository/index",
        "repository/models/plus_one/unload",
        "logging",
        "systemsharedmemory/region/stolen/register",
    ],
)
async def test_whoever_finds_the_port_can_control_neither_models_nor_memory(server: TritonServer, path: str) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"http://{HOST}:{ports_of(server).http}/v2/{path}", content=b"[" * 100_000)
    assert answer.status_code == 403
    assert (await server.infer("plus_one", ONES, ["Y"], Call()))["Y"].tolist() == [[2, 2, 2, 2]]


async def test_a_million_opening_brackets_do_not_end_it(server: TritonServer) -> None:
    async with httpx.AsyncClient() as client:
        url = f"http://{HOST}:{ports_of(server).http}/v2/models/plus_one/infer"
        answer = await client.post(url, content=b'{"inputs":' + b"[" * 1_000_000)
    assert "failed to parse" in answer.json()["error"]
    assert server.restarts == 0


async def test_it_comes_back_after_it_was_killed_and_tells_where(
    triton: TritonInstall, make_model: MakeModel, tmp_path: Path
) -> None:
    told: list[Ports | None] = []

    async def on_change(ports: Ports | None) -> None:
        told.append(ports)

    model = make_model("plus_one", PLUS_ONE, add_graph(4))
    server = TritonServer(triton, [model], tmp_path / "home", on_change=on_change)
    await server.start()
    try:
        before = ports_of(server)
        assert server._process is not None
        os.kill(server._process._child.pid, signal.SIGKILL)
        await until(lambda: server.ports is None)
        with pytest.raises(Unavailable, match="restarting"):
            await server.infer("plus_one", ONES, ["Y"], Call())
        await until(lambda: server.restarts == 1 and len(told) == 3)
        assert (await server.infer("plus_one", ONES, ["Y"], Call()))["Y"].tolist() == [[2, 2, 2, 2]]
        assert told == [before, None, server.ports]
        server.check()
    finally:
        await server.stop()
    assert inside(tmp_path / "home/triton") == []


async def test_a_model_whose_instance_was_killed_answers_again_within_seconds(
    triton: TritonInstall, make_model: MakeModel, tmp_path: Path
) -> None:
    server = TritonServer(triton, [make_model("plus_one", PLUS_ONE, add_graph(4))], tmp_path / "home")
    await server.start()
    try:
        assert server._process is not None
        (instance,) = psutil.Process(server._process._child.pid).children()
        instance.kill()
        await until(lambda: server.restarts == 1)
        assert (await server.infer("plus_one", ONES, ["Y"], Call()))["Y"].tolist() == [[2, 2, 2, 2]]
    finally:
        await server.stop()


@pytest.mark.parametrize("deaths", [1, 2])
async def test_a_first_start_that_dies_while_it_loads_is_tried_once_more(
    triton: TritonInstall, make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaths: int
) -> None:
    load, died = TritonProcess.load, 0

    async def dying(process: TritonProcess, model: Model) -> None:
        nonlocal died
        if died < deaths:
            died += 1
            process.kill()
        await load(process, model)

    monkeypatch.setattr(TritonProcess, "load", dying)
    server = TritonServer(triton, [make_model("plus_one", PLUS_ONE, add_graph(4))], tmp_path / "home")
    if deaths > 1:
        with pytest.raises(EngineFailed, match="tritonserver ended while it loaded plus_one"):
            await server.start()
        assert inside(tmp_path / "home/triton") == []
        return
    await server.start()
    try:
        assert (await server.infer("plus_one", ONES, ["Y"], Call()))["Y"].tolist() == [[2, 2, 2, 2]]
    finally:
        await server.stop()


async def test_it_gives_up_when_it_cannot_start_again(
    triton: TritonInstall, make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.backends.triton.server.LONGEST_PAUSE_S", 0.01)
    server = TritonServer(triton, [make_model("plus_one", PLUS_ONE, add_graph(4))], tmp_path / "home")
    await server.start()
    try:
        server._install = replace(triton, binary=Path("/bin/false"))
        assert server._process is not None
        server._process.kill()
        await until(lambda: server._gave_up is not None)
        with pytest.raises(EngineFailed, match=r"does not stay up: tritonserver ended while it started"):
            server.check()
    finally:
        await server.stop()


async def test_after_a_restart_a_model_damaged_meanwhile_is_told_of_and_the_others_serve(
    triton: TritonInstall, make_model: MakeModel, tmp_path: Path
) -> None:
    names = ("damaged", "gone", "sound")
    damaged, gone, sound = (make_model(name, PLUS_ONE, add_graph(4)) for name in names)
    server = TritonServer(triton, [damaged, gone, sound], tmp_path / "home")
    await server.start()
    try:
        (damaged.folder / "1/model.onnx").write_bytes(b"damaged meanwhile")
        shutil.rmtree(gone.folder)
        assert server._process is not None
        server._process.kill()
        await until(lambda: server.ports is None)
        assert {(state.name, state.reason) for state in await server.index()} == {
            (name, "tritonserver is restarting") for name in names
        }
        await until(lambda: server.restarts == 1)
        assert (await server.infer("sound", ONES, ["Y"], Call()))["Y"].tolist() == [[2, 2, 2, 2]]
        states = {state.name: state for state in await server.index()}
        assert {name: state.state for name, state in states.items()} == {
            "damaged": "UNAVAILABLE", "gone": "UNAVAILABLE", "sound": "READY",
        }  # fmt: skip
        assert "cannot load 'model.onnx'" in states["damaged"].reason
        assert states["gone"].reason == "its folder cannot be read: No such file or directory"
    finally:
        await server.stop()


async def test_it_serves_on_the_address_it_is_given_and_on_no_other(
    triton: TritonInstall, make_model: MakeModel, tmp_path: Path
) -> None:
    model = make_model("plus_one", PLUS_ONE, add_graph(4))
    server = TritonServer(triton, [model], tmp_path / "home", Options(host="127.0.0.2"))
    await server.start()
    try:
        answer = await server.infer("plus_one", ONES, ["Y"], Call())
        assert answer["Y"].tolist() == [[2, 2, 2, 2]]
        async with httpx.AsyncClient() as client:
            ready = await client.get(f"http://127.0.0.2:{ports_of(server).http}/v2/health/ready")
            assert ready.status_code == httpx.codes.OK
            with pytest.raises(httpx.ConnectError):
                await client.get(f"http://{HOST}:{ports_of(server).http}/v2/health/ready")
    finally:
        await server.stop()


@pytest.mark.parametrize(
    ("config", "graph", "says"),
    [
        (PLUS_ONE, b"not onnx", "onnx runtime cannot load 'model.onnx'"),
        (PLUS_ONE.replace('"X"', '"Z"'), add_graph(4), "unexpected inference input 'Z', allowed inputs are: X"),
        (PLUS_ONE.replace("TYPE_FP32", "TYPE_INT64", 1), add_graph(4), "config.pbtxt says TYPE_INT64"),
        (PLUS_ONE.replace("[ 4 ]", "[ 5 ]", 1), add_graph(4), r"expects 2 dimensions \(shape \[-1, 4\]\)"),
    ],
    ids=["file", "name", "datatype", "shape"],
)
async def test_a_broken_model_refuses_the_start_with_folder_problem_and_fix(
    triton: TritonInstall, make_model: MakeModel, tmp_path: Path, config: str, graph: bytes, says: str
) -> None:
    model = make_model("broken", config, graph)
    server = TritonServer(triton, [model], tmp_path / "home")
    with pytest.raises(BadInput, match=says) as caught:
        await server.start()
    assert str(caught.value).startswith(f"{model.folder}: Triton cannot load the model: ")
    assert "\n" not in str(caught.value)
    assert inside(tmp_path / "home/triton") == []


async def test_a_port_that_is_taken_meanwhile_is_replaced(
    triton: TritonInstall, make_model: MakeModel, server: TritonServer, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    offers = iter([free_ports()._replace(grpc=ports_of(server).grpc), free_ports()])
    monkeypatch.setattr(doors, "free_ports", lambda: next(offers))
    # On the loopback itself it listens on sockets, and its ports cannot be taken.
    options = Options(host="0.0.0.0")  # noqa: S104  nobody asks it anything
    other = TritonServer(triton, [make_model("plus_one", PLUS_ONE, add_graph(4))], tmp_path / "home", options)
    await other.start()
    try:
        assert (await other.infer("plus_one", ONES, ["Y"], Call()))["Y"].tolist() == [[2, 2, 2, 2]]
    finally:
        await other.stop(drain_s=0)


OWNER = """
import asyncio, sys
from pathlib import Path
from serving.backends.triton.install import find_tritonserver
from serving.backends.triton.process import TritonProcess
from serving.backends.triton.server import TritonServer
from serving.repository.load import load_repository
from serving.settings import Settings

async def main():
    models = load_repository([Path(sys.argv[1])]).triton()
    server = TritonServer(find_tritonserver(Settings()), models, Path(sys.argv[2]))
    await server.start()
    print(server._process._child.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_nothing_is_left_when_its_owner_is_killed(
    triton: TritonInstall, make_model: MakeModel, tmp_path: Path, repository_root: Path
) -> None:
    model = make_model("plus_one", PLUS_ONE, add_graph(4))
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, str(model.folder.parent), str(tmp_path / "home"),
        stdout=asyncio.subprocess.PIPE,
        cwd=repository_root,
    )  # fmt: skip
    assert owner.stdout is not None
    line = b""
    while not line.strip().isdigit():
        line = await owner.stdout.readline()
        assert line, "the owner did not start"
    child = psutil.Process(int(line))
    family = [child, *child.children(recursive=True)]
    assert len(family) == 2
    owner.kill()
    await owner.wait()

    def gone() -> bool:
        return not [each for each in family if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]

    await until(gone, timeout_s=5)


@pytest.mark.parametrize(
    ("deaths", "expected"),
    [([100.0], 0.1), ([99.0, 100.0], 0.4), ([0.0, 100.0], 0.1), ([96.0, 97.0, 98.0, 99.0, 100.0], 5.0)],
    ids=["first", "second", "long ago", "fifth"],
)
async def test_restarts_wait_longer_the_more_deaths_there_were(deaths: list[float], expected: float) -> None:
    assert restart_pause_s(deaths, 100.0) == pytest.approx(expected)


async def test_too_many_deaths_within_a_minute_are_the_end() -> None:
    assert restart_pause_s([95.0, 96.0, 97.0, 98.0, 99.0, 100.0], 100.0) is None


async def test_waiting_requests_are_summed_over_models() -> None:
    text = (
        "# TYPE nv_inference_pending_request_count gauge\n"
        'nv_inference_pending_request_count{model="a",version="1"} 3\n'
        'nv_inference_pending_request_count{model="b",version="1"} 4\n'
    )
    assert pending_requests(text) == 7
    assert pending_requests("") == 0
