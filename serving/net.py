"""The way out to addresses that clients named: checked URLs, and a transport that connects to nothing else.

Used by webhooks, and by whoever fetches what a request points at. The one invariant: a connection goes to an address
that was checked just before, never to what a name resolves to a moment later; redirects are not followed.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import httpx

from serving.errors import BadInput, Unavailable, shown

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_URL_CHARS: Final = 2048
RESOLVE_S: Final = 5.0
"""How long a name may take to resolve."""
_MAX_ADDRESSES: Final = 8
"""Addresses of one name that are checked and tried; a name with more is refused."""
_PORTS: Final = {"http": 80, "https": 443}
_MAX_PORT: Final = 65535

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_METADATA: Final = frozenset(
    map(ipaddress.ip_address, ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254"))
)
"""Metadata services of clouds outside the link-local range: Alibaba's, Azure's, Oracle's, Amazon's by IPv6."""


@dataclass(frozen=True, slots=True)
class AddressRules:
    """Where the mesh may connect to on behalf of a client.

    Args:
        allow_private: also private networks and the loopback, but never link-local addresses (the clouds' metadata
            services) nor multicast.
        allowed_hosts: names, addresses and networks that are allowed whatever they are; a name allows what it
            resolves to.
    """

    allow_private: bool = False
    allowed_hosts: Sequence[str] = ()

    def names(self) -> frozenset[str]:
        """The allowed hosts that are names, in lower case."""
        return frozenset(host.lower().rstrip(".") for host in self.allowed_hosts if _network(host) is None)

    def networks(self) -> list[Network]:
        """The allowed hosts that are addresses or networks."""
        return [network for host in self.allowed_hosts if (network := _network(host)) is not None]


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def parse_url(text: str, field: str = "url") -> httpx.URL:
    """A URL of http or https with a host and without credentials.

    It is parsed by the very code that connects later, so that no two parsers can disagree about the host.

    Raises:
        BadInput: names ``field`` and the fix.
    """
    if len(text) > MAX_URL_CHARS:
        raise BadInput(f"has {len(text)} characters", field=field, fix=f"at most {MAX_URL_CHARS}")
    # What may hold a password is not repeated.
    told = "the address" if "@" in text else shown(text)
    if not text.isascii() or any(char <= " " or char in "\\\x7f" for char in text):
        raise BadInput(f"{told} has characters no URL has", field=field, fix="percent-encode them")
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError) as error:
        raise BadInput(f"{told} is no URL", field=field, fix="write https://host/path") from error
    if url.scheme not in _PORTS or not url.host:
        raise BadInput(f"{told} is not reached by http", field=field, fix="write https://host/path")
    if url.userinfo:
        raise BadInput("holds a user or a password", field=field, fix="leave them out")
    if url.port is not None and not 0 < url.port <= _MAX_PORT:
        raise BadInput(f"{told} names no port", field=field, fix=f"leave it out, or name one from 1 to {_MAX_PORT}")
    return url


def problem_of(address: Address, rules: AddressRules) -> str | None:
    """Why the mesh does not connect to an address; None if it may."""
    if any(address.version == network.version and address in network for network in rules.networks()):
        return None
    if (inner := _inner(address)) is not None:
        return problem_of(inner, rules)
    if address.is_link_local or address in _METADATA:
        return "link-local, where clouds keep their metadata"
    return None if _is_public(address) or (rules.allow_private and _is_local(address)) else "not public"


def _is_public(address: Address) -> bool:
    """Whether it is one machine's own address on the internet."""
    if isinstance(address, ipaddress.IPv6Address):
        tunnel = address.sixtofour is not None or address.teredo is not None
        return address in _GLOBAL_UNICAST and address.is_global and not tunnel
    return address.is_global and not (address.is_multicast or address.is_reserved)


def _inner(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one stands for, on the kernel's way (mapped) or a gateway's (NAT64)."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped


_LOCAL: Final = tuple(
    map(
        ipaddress.ip_network,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "100.64.0.0/10", "::1/128", "fc00::/7"),
    )
)


def _is_local(address: Address) -> bool:
    return any(address in network for network in _LOCAL if network.version == address.version)


async def check_public_url(text: str, rules: AddressRules, field: str = "url") -> list[str]:
    """The addresses a URL leads to now, each of them allowed.

    Raises:
        BadInput: not a URL, a name that does not exist, or one that leads to an address that is not allowed.
        Unavailable: the name cannot be resolved at present.
    """
    return await checked_addresses(parse_url(text, field), rules, field)


async def checked_addresses(url: httpx.URL, rules: AddressRules, field: str = "url") -> list[str]:
    """As :func:`check_public_url`, of a parsed URL."""
    # raw_host is what goes to the resolver: internationalised names in their ASCII form.
    host = url.raw_host.decode("ascii").strip("[]").rstrip(".").lower()
    addresses = await _resolve(host, url.port or _PORTS[url.scheme], field)
    if host not in rules.names():
        for address in addresses:
            if (problem := problem_of(address, rules)) is not None:
                raise BadInput(
                    f"{shown(host)} leads to {address}, which is {problem}",
                    field=field,
                    fix="name a public host, or have its operator allow it (webhooks.allowed_hosts)",
                )
    return [str(address) for address in addresses]


async def _resolve(host: str, port: int, field: str) -> list[Address]:
    try:
        async with asyncio.timeout(RESOLVE_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError as error:
        raise Unavailable(f"{shown(host)} takes long to resolve", field=field) from error
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise Unavailable(f"{shown(host)} cannot be resolved at present", field=field) from error
        raise BadInput(f"there is no host {shown(host)}", field=field, fix="check its spelling") from error
    except (UnicodeError, OSError, ValueError) as error:
        raise BadInput(f"{shown(host)} is no name of a host", field=field) from error
    # An address with a zone (fe80::1%eth0) names an interface of this machine.
    addresses = dict.fromkeys(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found)
    if not 0 < len(addresses) <= _MAX_ADDRESSES:
        raise BadInput(f"{shown(host)} has {len(addresses)} addresses", field=field, fix=f"at most {_MAX_ADDRESSES}")
    return list(addresses)


class GuardedTransport(httpx.AsyncBaseTransport):
    """Connects to checked addresses alone; give it to an ``httpx.AsyncClient`` as ``transport``.

    A name is resolved once for each request, and the connection goes to the address that was checked. TLS still
    verifies the certificate against the name. Connections are not kept, since one to an address that several names
    share must not serve another name.

    Args:
        rules: what is allowed.
        field: named by errors.
    """

    def __init__(self, rules: AddressRules, field: str = "url") -> None:
        self._rules = rules
        self._field = field
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._inner = httpx.AsyncHTTPTransport(trust_env=False, limits=limits)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Check, then send; errors as :func:`check_public_url` and httpx's own."""
        url = parse_url(str(request.url), self._field)
        addresses = await checked_addresses(url, self._rules, self._field)
        for address in addresses[:-1]:
            try:
                return await self._send(request, url, address)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await self._send(request, url, addresses[-1])

    async def _send(self, request: httpx.Request, url: httpx.URL, address: str) -> httpx.Response:
        # The Host header was set from the name already; a request whose body is a stream is never sent twice,
        # since only a connection that failed leads to the next address.
        name = url.raw_host.decode("ascii").strip("[]").rstrip(".")
        return await self._inner.handle_async_request(
            httpx.Request(
                request.method,
                url.copy_with(host=address),
                headers=request.headers,
                stream=request.stream,
                extensions={**request.extensions, "sni_hostname": name},
            )
        )

    async def aclose(self) -> None:
        """Close what is open."""
        await self._inner.aclose()
