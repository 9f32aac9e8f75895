"""HAProxy's text and commands follow from settings and routes."""

import pytest

from serving.edge.config import (
    EdgeConfig,
    add_server,
    config_text,
    infer_path,
    map_key,
    map_texts,
    permit_pool,
    refuse_pool,
    server_options,
    unmap_key,
)
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
    routes = Routes({"m": "0", "m/2": "1"}, frozenset({server}), {"1": "no"})
    text = config_text(CONFIG, routes)
    declared = next(line.strip() for line in text.splitlines() if line.strip().startswith("server "))
    added = add_server(server, CONFIG.limits)[0]
    assert declared.split()[2:] == added.split()[3:]
    assert map_texts(routes) == {
        "models.map": "m 0\nm/2 1\n",
        "paths.map": "/v2/models/m/infer 0\n/v2/models/m/versions/2/infer 1\n",
        "licences.map": "1 no\n",
    }


def test_a_key_is_mapped_whether_or_not_it_was_before():
    gone = ("del map models.map m", "del map paths.map /v2/models/m/infer")
    assert unmap_key("m") == gone
    assert map_key("m", "3") == (*gone, "add map models.map m 3", "add map paths.map /v2/models/m/infer 3")


def test_a_version_has_a_path_of_its_own():
    assert infer_path("m/7") == "/v2/models/m/versions/7/infer"


def test_replicas_of_models_hold_a_bounded_number_of_requests_and_the_gateway_bounds_itself():
    limits = LimitSettings(open_per_replica=77)
    assert "maxconn 77" in server_options(Server("http", "0", "127.0.0.1:9"), limits)
    assert "maxconn" not in server_options(Server("http", "gateway", "127.0.0.1:9"), limits)


@pytest.mark.parametrize(("allowed", "buffer"), [(15 << 10, 64 << 10), (100_000, 101_024)])
def test_a_header_that_is_allowed_fits_the_buffer_without_its_reserve(allowed, buffer):
    text = config_text(EdgeConfig(5, 6, 7, LimitSettings(header_bytes=allowed)), Routes())
    assert f"tune.bufsize {buffer}\n" in text
    assert "tune.maxrewrite 1024\n" in text


@pytest.mark.parametrize(("files", "connections"), [(1024, 100), (20_000, 14_250), (1 << 20, 20_000)])
def test_connections_fit_the_files_a_process_may_open(files, connections):
    assert EdgeConfig(1, 2, 3, LimitSettings(), descriptors=files).max_connections == connections


@pytest.mark.parametrize(("cpus", "threads"), [(1, 1), (2, 1), (4, 2), (64, 4)])
def test_haproxy_leaves_half_the_machine_to_replicas(cpus, threads):
    assert EdgeConfig(1, 2, 3, LimitSettings(), cpus=cpus).threads == threads


def test_requests_in_flight_are_those_in_pools_and_queues():
    statistics = "# pxname,svname,qcur,qmax,scur,smax,\nhttp_0,BACKEND,1,9,2,9,\ngrpc_0,BACKEND,0,9,,9,\n"
    assert requests_in_flight(statistics) == 3


def test_a_pool_is_refused_by_a_line_that_may_say_anything():
    text = "'m' is under a \"licence\"; of 5 % \\ more: ü"
    gone = "del map licences.map 7"
    assert permit_pool("7") == (gone,)
    assert refuse_pool("7", text) == (gone, f"add map licences.map <<\n7 {text}\n")
