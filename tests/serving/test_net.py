"""Where the mesh connects to on behalf of a client."""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import BadInput, ReelmeshError
from serving.net import AddressRules, GuardedTransport, check_public_url, parse_url, problem_of

PUBLIC = AddressRules()
PRIVATE = AddressRules(allow_private=True)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0x7f.1", "localhost", "LOCALHOST.",
        "0.0.0", "0", "10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254", "2852039166", "0xA9FEA9FE",
        "100.64.0.1", "100.100.100.200", "192.0.2.1", "198.18.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1",
        "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:a9fe:a9fe]", "[fe80::1]", "[fd00:ec2::254]", "[fc00::1]",
        "[64:ff9b::7f00:1]", "[64:ff9b::a9fe:a9fe]", "[2002:7f00:1::]", "[2001::1]", "[ff02::1]", "[fec0::1]",
        "[::127.0.0.1]", "168.63.129.16", "192.0.0.192", "[::ffff:168.63.129.16]",
    ],
)  # fmt: skip
async def test_what_is_not_public_is_refused_in_every_way_of_writing_it(host: str) -> None:
    with pytest.raises(BadInput) as caught:
        await check_public_url(f"http://{host}/hook", PUBLIC, "webhook.url")
    assert caught.value.field == "webhook.url"


@pytest.mark.parametrize(
    "host", ["8.8.8.8", "[2606:4700::1111]", "[::ffff:8.8.8.8]", "[64:ff9b::808:808]", "134744072"]
)
async def test_public_addresses_pass(host: str) -> None:
    assert len(await check_public_url(f"https://{host}:8443/hook?x=1", PUBLIC)) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("ftp://example.com/", "not reached by http", id="scheme"),
        pytest.param("file:///etc/passwd", "not reached by http", id="file"),
        pytest.param("example.com/hook", "not reached by http", id="no scheme"),
        pytest.param("http:///hook", "not reached by http", id="no host"),
        pytest.param("https://user:word@example.com/", "holds a user or a password", id="credentials"),
        pytest.param("ftp://user:word@example.com/", "the address is not reached by http", id="credentials by ftp"),
        pytest.param("https://example.com:99999/", "names no port", id="port"),
        pytest.param("https://example.com:0/", "names no port", id="port 0"),
        pytest.param("https://example.com/\r\nHost: x", "characters no URL has", id="line break"),
        pytest.param("https://example.com\\@127.0.0.1/", "characters no URL has", id="backslash"),
        pytest.param("https://exämple.com/", "characters no URL has", id="not ASCII"),
        pytest.param("https://example.com/" + "x" * 2048, "characters", id="long"),
        pytest.param("", "not reached by http", id="empty"),
    ],
)
def test_what_is_no_address_of_a_web_server_is_refused_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        parse_url(text, "webhook.url")
    assert "word" not in str(caught.value).replace("password", "")


@given(st.text(max_size=200) | st.from_regex(r"https?://[^/]{0,40}(:[0-9]{0,6})?/?.{0,20}"))
def test_any_text_is_a_url_with_a_host_or_refused(text: str) -> None:
    try:
        url = parse_url(text)
    except BadInput:
        return
    assert url.scheme in {"http", "https"}
    assert url.host
    assert not url.userinfo


@given(st.ip_addresses(v=4))
def test_an_address_within_ipv6_is_judged_as_the_address_it_stands_for(address: ipaddress.IPv4Address) -> None:
    for rules in (PUBLIC, PRIVATE):
        plain = problem_of(address, rules)
        assert problem_of(ipaddress.IPv6Address(f"::ffff:{address}"), rules) == plain
        assert problem_of(ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) + int(address)), rules) == plain


@given(st.ip_addresses())
def test_nothing_passes_that_python_calls_private_multicast_or_local(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if problem_of(address, PUBLIC) is None:
        inner = getattr(address, "ipv4_mapped", None) or address
        assert not (inner.is_private or inner.is_loopback or inner.is_link_local or inner.is_multicast)
        assert problem_of(address, PRIVATE) is None


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("127.0.0.1", True), ("10.1.2.3", True), ("::1", True), ("fd12::1", True), ("100.64.1.1", True),
        ("169.254.169.254", False), ("fe80::1", False), ("fd00:ec2::254", False), ("100.100.100.200", False),
        ("168.63.129.16", False), ("192.0.0.192", False),
        ("224.0.0.1", False), ("0.1.2.3", False), ("::", False), ("255.255.255.255", False),
    ],
)  # fmt: skip
def test_private_networks_may_be_allowed_but_never_the_metadata_of_clouds(address: str, allowed: bool) -> None:
    assert (problem_of(ipaddress.ip_address(address), PRIVATE) is None) is allowed


async def test_hosts_may_be_allowed_by_name_address_or_network() -> None:
    named = AddressRules(allowed_hosts=["LocalHost", "10.0.0.0/8"])
    assert await check_public_url("http://localhost:1/", named)
    assert await check_public_url("http://10.2.3.4/", named)
    for host in ("127.0.0.1", "192.168.0.1"):
        with pytest.raises(BadInput, match="not public"):
            await check_public_url(f"http://{host}/", named)


@pytest.fixture
async def server() -> AsyncIterator[tuple[int, list[bytes]]]:
    """Tells what it was asked, and sends everybody on to another address."""
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as opened:
        yield opened.sockets[0].getsockname()[1], asked


async def test_the_transport_connects_to_the_address_that_was_checked_and_follows_nothing(
    server: tuple[int, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, asked = server
    looked_up: list[str] = []

    async def rebinding(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        # A hostile name server: the first answer is allowed, every later one leads elsewhere.
        looked_up.append(host)
        address = "127.0.0.1" if len(looked_up) == 1 else "127.0.0.99"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", rebinding)
    rules = AddressRules(allowed_hosts=["127.0.0.1"])
    async with httpx.AsyncClient(transport=GuardedTransport(rules)) as http:
        answer = await http.post(f"http://films.test:{port}/hook", content=b"")
        assert (answer.status_code, looked_up) == (302, ["films.test"])
        assert f"Host: films.test:{port}".encode() in asked[0]
        with pytest.raises(BadInput, match=r"leads to 127\.0\.0\.99"):
            await http.post(f"http://films.test:{port}/hook", content=b"")
    assert len(asked) == 1


async def test_the_transport_tries_the_next_address_of_a_name(
    server: tuple[int, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, asked = server

    async def two(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.98", "127.0.0.1")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", two)
    async with httpx.AsyncClient(transport=GuardedTransport(PRIVATE)) as http:
        assert (await http.get(f"http://films.test:{port}/")).status_code == 302
    assert len(asked) == 1


async def test_the_transport_refuses_before_it_connects(server: tuple[int, list[bytes]]) -> None:
    port, asked = server
    async with httpx.AsyncClient(transport=GuardedTransport(PUBLIC)) as http:
        with pytest.raises(ReelmeshError, match="not public"):
            await http.get(f"http://localhost:{port}/")
    assert asked == []
