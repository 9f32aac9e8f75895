"""Heartbeats become routes, and routes become steps."""

from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.edge.registry import (
    SLOTS,
    Changes,
    EndpointTable,
    Routes,
    Server,
    changes,
    endpoint_counts,
    routes_of,
)
from serving.protocol.control import Control
from serving.protocol.endpoint import Endpoint, Heartbeat


def endpoint(model, port=1, version="", refuses="", task=""):
    http, grpc = f"127.0.0.1:{port}", f"127.0.0.1:{port + 1000}"
    return Endpoint(model=model, version=version, http=http, grpc=grpc, refuses=refuses, task=task)


def beat(replica, *endpoints):
    return Heartbeat(replica_id=replica, endpoints=list(endpoints), metrics_url=f"http://{replica}/metrics")


def table(**replicas):
    made = EndpointTable()
    for name, endpoints in replicas.items():
        made = made.heartbeat(beat(name, *endpoints), 0.0)
    return made


def addresses(routes, key, wire="http"):
    pool = routes.pools[key]
    return {server.address for server in routes.servers if (server.pool, server.wire) == (pool, wire)}


def test_a_silent_replica_expires_and_one_that_speaks_stays():
    both = table(a=[endpoint("m", 1)], b=[endpoint("m", 2)]).heartbeat(beat("b", endpoint("m", 2)), 4.0)
    left, silent = both.expire(5.5, ttl_s=5.0)
    assert silent == ("a",)
    assert [each.http for each in left.endpoints()] == ["127.0.0.1:2"]


def test_a_heartbeat_without_endpoints_says_good_bye():
    left = table(a=[endpoint("m")]).heartbeat(beat("a"), 1.0)
    assert left.endpoints() == []
    assert left.metrics_urls() == {}


def test_a_replica_without_models_stays_as_long_as_it_takes_control_calls():
    control = Control(address="127.0.0.1:7", token="t")
    empty = Heartbeat(replica_id="a", kind="triton", endpoints=[], control=control)
    kept = table(a=[endpoint("m")]).heartbeat(empty, 1.0)
    assert kept.heartbeats() == [empty]
    assert routes_of(kept, Routes()) == Routes()
    assert kept.expire(6.5, ttl_s=5.0)[1] == ("a",)
    assert kept.heartbeat(beat("a"), 2.0).heartbeats() == []


def test_heartbeats_are_told_in_order_of_the_replicas_ids():
    both = table(b=[endpoint("m", 1)], a=[endpoint("m", 2)])
    assert [each.replica_id for each in both.heartbeats()] == ["a", "b"]


def test_version_0_is_a_version_like_others():
    routes = routes_of(table(a=[endpoint("m", 1, "0"), endpoint("m", 1, "2")], b=[endpoint("m", 2, "0")]), Routes())
    assert addresses(routes, "m") == {"127.0.0.1:1"}
    assert addresses(routes, "m/0") == {"127.0.0.1:1", "127.0.0.1:2"}
    assert addresses(routes_of(table(b=[endpoint("m", 2, "0")]), Routes()), "m") == {"127.0.0.1:2"}


def test_a_model_whose_requests_belong_together_is_left_to_the_gateway():
    picked = endpoint("chat").model_copy(update={"straight": False})
    routes = routes_of(table(a=[picked, endpoint("m")]), Routes())
    assert set(routes.pools) == {"m"}
    assert addresses(routes, "m") == {"127.0.0.1:1"}
    assert {server.pool for server in routes.servers} == {routes.pools["m"]}


def test_replicas_of_a_model_share_its_pool_on_both_wires():
    routes = routes_of(table(a=[endpoint("m", 1)], b=[endpoint("m", 2)]), Routes())
    assert addresses(routes, "m") == {"127.0.0.1:1", "127.0.0.1:2"}
    assert addresses(routes, "m", "grpc") == {"127.0.0.1:1001", "127.0.0.1:1002"}


def test_a_replica_on_the_same_machine_is_reached_by_its_sockets():
    near = endpoint("m").model_copy(update={"http_socket": "/tmp/x/http", "grpc_socket": "/tmp/x/grpc:1"})
    routes = routes_of(table(a=[near]), Routes())
    assert addresses(routes, "m") == {"unix@/tmp/x/http"}
    assert addresses(routes, "m", "grpc") == {"unix@/tmp/x/grpc:1"}
    assert {server.name for server in routes.servers} == {"unix__tmp_x_http", "unix__tmp_x_grpc_1"}


def test_the_gateway_is_a_pool_without_a_key():
    routes = routes_of(table(g=[endpoint("*", 9)]), Routes())
    assert routes.pools == {}
    assert {server.backend for server in routes.servers} == {"http_gateway", "grpc_gateway"}


def test_a_bare_name_leads_to_the_newest_version():
    routes = routes_of(table(a=[endpoint("m", 1, "2"), endpoint("m", 2, "10")]), Routes())
    assert set(routes.pools) == {"m", "m/2", "m/10"}
    assert addresses(routes, "m") == addresses(routes, "m/10") == {"127.0.0.1:2"}
    assert addresses(routes, "m/2") == {"127.0.0.1:1"}


def test_a_key_keeps_its_pool_when_others_come_and_go():
    first = routes_of(table(a=[endpoint("b", 1)]), Routes())
    second = routes_of(table(a=[endpoint("b", 1)], c=[endpoint("a", 2)]), first)
    third = routes_of(table(a=[endpoint("b", 1)], d=[endpoint("0", 3)]), second)
    assert first.pools["b"] == second.pools["b"] == third.pools["b"]
    assert len(set(third.pools.values())) == 2


@pytest.mark.parametrize("name", ["a b", "a;shutdown", "a/b", "a\\b", "a\nb", "नाम", "a#b"])
def test_a_name_that_could_harm_a_command_is_left_to_the_gateway(name):
    assert routes_of(table(a=[endpoint(name)]), Routes()) == Routes()


def test_models_beyond_the_pools_are_left_to_the_gateway():
    routes = routes_of(table(a=[endpoint(f"m{index}") for index in range(SLOTS + 5)]), Routes())
    assert len(routes.pools) == SLOTS


def test_servers_come_before_keys_and_go_after_them():
    old = routes_of(table(a=[endpoint("m", 1)]), Routes())
    new = routes_of(table(b=[endpoint("n", 2)]), old)
    steps = changes(old, new)
    assert [server.address for server in steps.add] == ["127.0.0.1:1002", "127.0.0.1:2"]
    assert [key for key, _ in steps.map] == ["n"]
    assert steps.unmap == ("m",)
    assert [server.address for server in steps.remove] == ["127.0.0.1:1001", "127.0.0.1:1"]
    assert len(steps) == 6


def test_the_pools_of_every_version_are_refused_with_what_may_be_used_instead():
    models = [
        endpoint("m", 1, "1", "no", "speech"),
        endpoint("m", 1, "2", "no", "speech"),
        endpoint("free", 2, "", "", "speech"),
    ]
    routes = routes_of(table(a=models), Routes())
    refused = {routes.pools[key] for key in ("m", "m/1", "m/2")}
    assert set(routes.terms) == refused
    assert all(text.startswith("model: no: use 'free'") for text in routes.terms.values())


def test_a_pool_is_refused_before_a_key_leads_to_it_and_permitted_once_none_that_was_refused_does():
    old = routes_of(table(a=[endpoint("m", 1, refuses="no")]), Routes())
    new = routes_of(table(a=[endpoint("n", 1)], b=[endpoint("o", 2, refuses="no")]), old)
    steps = changes(old, new)
    names = [field.name for field in fields(Changes)]
    assert names.index("refuse") < names.index("map") and names.index("unmap") < names.index("permit")
    assert names.index("permit") < names.index("map"), "the heir of a pool is never refused"
    assert (old.terms.keys(), {pool for pool, _ in steps.refuse}) == ({old.pools["m"]}, {new.pools["o"]})
    assert new.pools["n"] == old.pools["m"] and steps.permit == (old.pools["m"],)


def test_nothing_new_is_no_step():
    routes = routes_of(table(a=[endpoint("m", 1)]), Routes())
    assert changes(routes, routes) == Changes()
    assert not changes(routes, routes)


def test_endpoints_are_counted_by_model():
    assert endpoint_counts(table(a=[endpoint("m", 1), endpoint("n", 1)], b=[endpoint("m", 2)])) == {"m": 2, "n": 1}


def test_a_server_is_named_after_its_address():
    assert Server("grpc", "3", "[::1]:80").name == "___1__80"
    assert Server("grpc", "3", "[::1]:80").backend == "grpc_3"


TABLES = st.dictionaries(
    st.sampled_from("abcd"),
    st.lists(
        st.builds(
            endpoint,
            st.sampled_from(["m", "n", "*"]),
            st.integers(1, 4),
            st.sampled_from(["", "1", "3"]),
            st.sampled_from(["", "", "no", "never"]),
        ),
        max_size=4,
    ),
    max_size=4,
).map(lambda replicas: table(**replicas))


@settings(max_examples=150, deadline=None)
@given(st.lists(TABLES, min_size=1, max_size=5))
def test_the_steps_always_lead_from_one_state_to_the_next(tables):
    known = Routes()
    for wanted in (routes_of(each, known) for each in tables):
        steps = changes(known, wanted)
        pools = {key: pool for key, pool in known.pools.items() if key not in steps.unmap} | dict(steps.map)
        servers = (known.servers | set(steps.add)) - set(steps.remove)
        terms = {pool: text for pool, text in known.terms.items() if pool not in steps.permit} | dict(steps.refuse)
        known = Routes(pools, frozenset(servers), terms)
        assert known == wanted
        assert len(set(pools.values())) == len(pools)
