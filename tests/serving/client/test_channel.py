import pytest

from serving.client.channel import CallFailed, Channel, parse_address
from serving.errors import BadInput, Unavailable


@pytest.mark.parametrize(
    ("address", "parsed"),
    [
        ("127.0.0.1:8001", ("127.0.0.1:8001", False)),
        ("grpc://mesh.local:8001", ("mesh.local:8001", False)),
        ("grpcs://mesh.example/", None),
        ("grpcs://mesh.example:443/", ("mesh.example:443", True)),
        ("[::1]:8001", ("[::1]:8001", False)),
        ("http://127.0.0.1:8000", None),
        (":8001", None),
        ("mesh", None),
    ],
)
def test_an_address_is_host_and_port_with_or_without_grpcs_scheme(
    address: str, parsed: tuple[str, bool] | None
) -> None:
    if parsed is not None:
        assert parse_address(address) == parsed
        return
    with pytest.raises(BadInput, match="use host:port"):
        parse_address(address)


async def test_a_call_to_nobody_says_that_it_was_not_sent(free_port: int) -> None:
    channel = Channel(f"127.0.0.1:{free_port}", {})
    with pytest.raises(CallFailed) as caught:
        await channel.unary("ServerLive", b"", 5)
    assert type(caught.value.how.error) is Unavailable
    assert not caught.value.how.ran
    await channel.close()


async def test_only_servers_on_this_machine_are_local() -> None:
    for address, local in (("localhost:1", True), ("127.8.0.1:1", True), ("[::1]:1", True), ("10.0.0.1:1", False)):
        channel = Channel(address, {})
        assert channel.local is local
        await channel.close()
