"""HAProxy's text and commands follow from settings and routes."""

import pytest

from serving.edge.config import EdgeConfig, add_server, config_text, map_key, map_text, unmap_key
from serving.edge.haproxy import requests_in_flight
from serving.edge.registry import Routes, Server
from serving.settings import LimitSettings

CONFIG = EdgeConfig(5, 6, 7, LimitSettings(infer_bytes=111, upload_bytes=222, body_bytes=333))


def test_listeners_are_the_descriptors_that_were_opened_before():
    text = config_text(CONFIG, Routes())
    assert [line.split()[1] for line in text.splitlines() if line.strip().startswith("bind ")] == [
        "fd@5",
        "fd@6",
        "fd@7",
    ]


def test_each_kind_of_body_has_its_own_bound():
    text = config_text(CONFIG, Routes())
    for size, name in ((111, "infer_bytes"), (222, "upload_bytes"), (333, "body_bytes")):
        assert f"req.body_size gt {size}" in text
        assert f"limits.{name}" in text


def test_a_start_knows_the_same_as_the_commands_would_have_told():
    server = Server("grpc", "0", "127.0.0.1:9")
    routes = Routes({"m": "0", "m/2": "1"}, frozenset({server}))
    text = config_text(CONFIG, routes)
    declared = next(line.strip() for line in text.splitlines() if line.strip().startswith("server "))
    added = add_server(server)[0]
    assert declared.split()[2:] == added.split()[3:]
    assert map_text(routes) == "m 0\nm/2 1\n"


def test_a_key_is_mapped_whether_or_not_it_was_before():
    assert map_key("m", "3") == ("del map models.map m", "add map models.map m 3")
    assert unmap_key("m") == ("del map models.map m",)


@pytest.mark.parametrize(("files", "connections"), [(1024, 100), (20_000, 9500), (1 << 20, 20_000)])
def test_connections_fit_the_files_a_process_may_open(files, connections):
    assert EdgeConfig(1, 2, 3, LimitSettings(), descriptors=files).max_connections == connections


@pytest.mark.parametrize(("cpus", "threads"), [(1, 1), (2, 1), (4, 2), (64, 4)])
def test_haproxy_leaves_half_the_machine_to_replicas(cpus, threads):
    assert EdgeConfig(1, 2, 3, LimitSettings(), cpus=cpus).threads == threads


def test_requests_in_flight_are_those_in_pools_and_queues():
    statistics = "# pxname,svname,qcur,qmax,scur,smax,\nhttp_0,BACKEND,1,9,2,9,\ngrpc_0,BACKEND,0,9,,9,\n"
    assert requests_in_flight(statistics) == 3
