"""Ports are checked before anything starts."""

import socket

import pytest

from serving.edge.ports import authority, check_ports, free_ports, reach
from serving.errors import BadInput, Unavailable
from serving.settings import EdgeSettings, Settings

EVERYWHERE = "0.0.0.0"  # noqa: S104  what is tested


def settings(**edge):
    return Settings(edge=EdgeSettings(**{"http_port": 0, "grpc_port": 0, "metrics_port": 0, **edge}))


@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("field", ["http_port", "grpc_port", "metrics_port"])
def test_a_taken_port_is_named_with_its_setting_and_the_fix(taken, field):
    with pytest.raises(Unavailable) as caught:
        check_ports(settings(**{field: taken}))
    text = str(caught.value)
    assert f"edge.{field}: port {taken} of 127.0.0.1 is taken" in text
    assert f"--{field.replace('_', '-')}" in text
    assert f"REELMESH_EDGE__{field.upper()}" in text


def test_two_equal_ports_are_refused(taken):
    free = free_ports(settings()).edge.http_port
    with pytest.raises(BadInput, match=f"port {free} is also edge.http_port"):
        check_ports(settings(http_port=free, grpc_port=free))


@pytest.mark.parametrize("host", ["203.0.113.7", "no such host"], ids=["foreign", "spaces"])
def test_a_host_that_is_not_this_machine_is_refused(host):
    with pytest.raises(BadInput, match=r"edge\.host"):
        check_ports(settings(host=host))


def test_zeros_become_different_free_ports_and_the_rest_stays():
    first = free_ports(settings()).edge
    ports = {first.http_port, first.grpc_port, first.metrics_port}
    assert len(ports) == 3
    assert 0 not in ports
    check_ports(settings(http_port=first.http_port))
    assert free_ports(settings(http_port=first.http_port)).edge.http_port == first.http_port


@pytest.mark.parametrize("host", [EVERYWHERE, "::", ""])
def test_without_keys_an_address_that_others_reach_is_refused_with_both_ways_out(host):
    with pytest.raises(BadInput) as caught:
        check_ports(settings(host=host))
    text = str(caught.value)
    assert f"edge.host: {host!r} can be reached from other machines, and no key is asked for" in text
    assert "reelmesh keys new NAME" in text
    assert "REELMESH_EDGE__ALLOW_ANONYMOUS=true" in text


@pytest.mark.parametrize(
    "edge",
    [
        {"host": EVERYWHERE, "allow_anonymous": True},
        {"host": "localhost"},
        {"host": "127.0.0.2"},
    ],
    ids=["anonymous", "localhost", "loopback"],
)
def test_where_it_is_wanted_or_on_the_loopback_it_listens_without_keys(edge):
    check_ports(settings(**edge))


def test_with_a_key_file_that_is_right_it_listens_everywhere(tmp_path):
    file = tmp_path / "keys.yaml"
    with pytest.raises(BadInput, match=r"keys\.yaml: cannot be read"):
        check_ports(settings(host=EVERYWHERE, keys_file=file))
    file.write_text("[]")
    check_ports(settings(host=EVERYWHERE, keys_file=file))


@pytest.mark.parametrize(
    ("edge", "words"),
    [
        ({}, "no key file: only this machine can reach the mesh"),
        ({"host": EVERYWHERE, "allow_anonymous": True}, "no key file: whoever reaches 0.0.0.0 may do everything"),
        ({"host": EVERYWHERE, "keys_file": "k.yaml"}, "clients bring one of k.yaml"),
    ],
    ids=["loopback", "anonymous", "keys"],
)
def test_who_reaches_the_mesh_is_said(edge, words):
    assert reach(EdgeSettings(**edge)) == words


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", "127.0.0.1:80"), ("studio", "studio:80"), ("::1", "[::1]:80")]
)
def test_an_address_has_brackets_around_ipv6(host, expected):
    assert authority(host, 80) == expected
