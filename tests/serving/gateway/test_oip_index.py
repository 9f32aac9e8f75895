"""The index of the whole mesh from what replicas tell of their models."""

import pytest

from serving.gateway.oip_index import merge_index, missing_models
from serving.protocol.control import ModelState
from serving.protocol.endpoint import Endpoint, Heartbeat


def beat(name, *states, ready=()):
    models = [ModelState(name=m, version=v, state=s, reason=r) for m, v, s, r in states]
    endpoints = [Endpoint(model=model, version=version, http="h:1", grpc="h:2") for model, version in ready]
    return Heartbeat(replica_id=name, endpoints=endpoints, models=models)


READY, FAILED = ("m", "1", "READY", ""), ("m", "", "UNAVAILABLE", "no memory")
STALE = ("m", "1", "READY", "the new one has no memory")
LOADING, UNLOADED = ("m", "1", "LOADING", ""), ("m", "1", "UNAVAILABLE", "unloaded")

CASES = {
    "everywhere": ([READY], [READY], "READY", ""),
    "one-failed": ([READY], [FAILED], "READY", "1 of 2 replicas: no memory"),
    "an-older-one-serves": ([STALE], [READY], "READY", "1 of 2 replicas: the new one has no memory"),
    "one-loading": ([LOADING], [READY], "READY", "1 of 2 replicas: LOADING"),
    "other-version": ([READY], [("m", "2", "READY", "")], "READY", "1 of 2 replicas: has no such version"),
    "loading": ([LOADING], [FAILED], "LOADING", "no memory"),
    "unloaded": ([UNLOADED], [UNLOADED], "UNAVAILABLE", "unloaded"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_model_is_ready_when_one_replica_is_and_the_reason_says_what_is_missing(case):
    left, right, state, reason = case
    entries = merge_index([beat("one", *left), beat("two", *right)], ["m"])
    assert {"name": "m", "version": "1", "state": state, "reason": reason} in entries


def test_what_nobody_holds_is_unavailable_when_asked_for_and_a_bare_name_when_not():
    assert merge_index([], ["asked"], ["asked", "idle"]) == [
        {"name": "asked", "state": "UNAVAILABLE", "reason": "no replica answers"},
        {"name": "idle"},
    ]


def test_an_endpoint_is_ready_whether_or_not_its_replica_lists_it():
    entries = merge_index([beat("one", ready=[("b", "10"), ("b", "9"), ("a", "")])], [])
    assert [(entry["name"], entry["version"]) for entry in entries] == [("a", "1"), ("b", "10")]


MISSING = {
    "held-by-nobody": ([], ["m"], ["m"]),
    "ready-somewhere": ([beat("one", READY), beat("two", FAILED)], ["m"], []),
    "failed": ([beat("one", FAILED)], ["m"], ["m"]),
    "loading-though-not-requested": ([beat("one", LOADING)], [], ["m"]),
    "failed-though-not-requested": ([beat("one", FAILED)], [], ["m"]),
    "unloaded-on-purpose": ([beat("one", UNLOADED)], ["m"], []),
    "never-loaded": ([beat("one", ("m", "", "UNAVAILABLE", ""))], [], []),
    "not-loaded-yet": ([beat("one", ("m", "", "UNAVAILABLE", ""))], ["m"], ["m"]),
}


@pytest.mark.parametrize("case", MISSING.values(), ids=MISSING.keys())
def test_the_mesh_waits_for_what_was_asked_for_and_for_what_is_being_loaded(case):
    replicas, requested, missing = case
    assert missing_models(replicas, requested) == missing
