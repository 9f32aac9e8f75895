"""What a key allows, and that only the edge's headers say it."""

import pytest

from serving.protocol.keys import CALLS, GRANT_HEADER, KEY_HEADER, Grant, call_of, grant_of, may
from serving.protocol.licences import NON_COMMERCIAL, USE_HEADER


@pytest.mark.parametrize(
    ("calls", "allowed"),
    [
        ("infer", {"infer"}),
        ("jobs", {"infer", "jobs"}),
        ("control", {"infer", "jobs", "control", "metrics"}),
        ("metrics", {"metrics"}),
    ],
)
def test_each_kind_of_key_makes_its_calls(calls, allowed):
    assert {call for call in CALLS if may(Grant("anna", calls), call)} == allowed


@pytest.mark.parametrize(
    ("models", "model", "expected"),
    [
        (("*",), "anything", True),
        (("*",), "", True),
        (("echo", "flux-*"), "echo", True),
        (("echo", "flux-*"), "echo2", False),
        (("echo", "flux-*"), "flux-", True),
        (("echo", "flux-*"), "flux", False),
        (("echo", "flux-*"), "", False),
        (("echo", "flux-*"), None, True),
        ((), "echo", False),
    ],
)
def test_a_key_uses_the_models_it_names(models, model, expected):
    assert may(Grant("anna", "infer", models), "infer", model) is expected


def test_where_no_keys_are_asked_for_everything_is_allowed():
    assert grant_of({"content-type": "application/json"}) is None
    assert may(None, "control", "echo")


@pytest.mark.parametrize(
    "grant",
    [
        Grant("anna", "infer"),
        Grant("ben", "control", ("echo", "flux-*")),
        Grant("lab", "jobs", use=NON_COMMERCIAL),
    ],
)
def test_a_grant_survives_the_headers(grant):
    assert grant_of({KEY_HEADER: grant.name, GRANT_HEADER: grant.text, USE_HEADER: grant.use}) == grant


@pytest.mark.parametrize(
    "headers", [{KEY_HEADER: "anna"}, {GRANT_HEADER: "control/*"}, {KEY_HEADER: "anna", GRANT_HEADER: "all/*"}]
)
def test_headers_that_the_edge_did_not_write_grant_nothing(headers):
    grant = grant_of(headers)
    assert not may(grant, "infer", "echo")
    assert not may(grant, "control", "echo")


def test_methods_that_change_the_mesh_are_control():
    assert call_of("RepositoryModelLoad") == "control"
    assert call_of("RepositoryIndex") == "infer"
    assert call_of("ModelStreamInfer") == "infer"
