"""Which networks can instances be on? List, show and add networks."""

from dataclasses import dataclass
from typing import Annotated, Final

from cyclopts import Parameter

from stratus.cli.client import client_open, part
from stratus.cli.listing import Columns, list_say, one_say
from stratus.cli.options import Limit, Reference
from stratus.cli.output import HUMAN, Format, note
from stratus.model.network import NetworkClass
from stratus.wire.v1 import NetworkCreate, NetworkView


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Ranges:
    """The addresses of a network, and how it is made."""

    ipv4: Annotated[str, Parameter(metavar="CIDR", help="Such as 10.7.0.0/24.")] = ""
    ipv4_gateway: Annotated[str, Parameter(metavar="ADDRESS", help="Its IPv4 router.")] = ""
    ipv6: Annotated[str, Parameter(metavar="CIDR", help="A /64, such as fd00:7::/64.")] = ""
    ipv6_gateway: Annotated[str, Parameter(metavar="ADDRESS", help="Its IPv6 router.")] = ""
    domain: Annotated[str, Parameter(help="The DNS domain of its guests.")] = ""
    driver: Annotated[str, Parameter(help="What makes the network.")] = "libvirt"
    mtu: Annotated[int, Parameter(help="The largest packet, in bytes.")] = 1500


NO_RANGES: Final = Ranges()


def ls(*, limit: Limit = 0, output: Format = HUMAN) -> None:
    """List networks.

    $ stratus network ls
    """
    columns: Columns[NetworkView] = (
        ("NAME", lambda view: view.name),
        ("CLASS", lambda view: view.class_),
        ("IPV4", lambda view: view.ipv4_cidr),
        ("IPV6", lambda view: view.ipv6_cidr),
        ("USED", lambda view: f"{view.used}/{view.capacity}"),
        ("DRIVER", lambda view: view.driver),
    )
    list_say(
        client_open(note),
        "/v1/networks",
        NetworkView,
        columns,
        id_of=lambda view: view.id,
        output=output,
        limit=limit,
        empty="There are no networks; stratus network add NAME adds one.",
    )


def show(network: Reference, /, *, output: Format = HUMAN) -> None:
    """Show one network with its addresses.

    $ stratus network show public
    """
    answer = client_open(note).call("GET", f"/v1/networks/{part(network)}")
    one_say(answer, NetworkView, _facts, id_of=lambda view: view.id, output=output)


def add(
    name: Annotated[str, Parameter(help="Its name.")],
    /,
    *,
    class_: Annotated[
        NetworkClass, Parameter(name="--class", help="Who can reach its addresses.")
    ] = NetworkClass.PUBLIC,
    ranges: Ranges = NO_RANGES,
    output: Format = HUMAN,
) -> None:
    """Add a network.

    $ stratus network add lab --class local --ipv4 10.7.0.0/24 --ipv4-gateway 10.7.0.1
    """
    body = NetworkCreate(
        name=name,
        class_=class_,
        driver=ranges.driver,
        ipv4_cidr=ranges.ipv4,
        ipv4_gateway=ranges.ipv4_gateway,
        ipv6_cidr=ranges.ipv6,
        ipv6_gateway=ranges.ipv6_gateway,
        domain=ranges.domain,
        mtu=ranges.mtu,
    )
    answer = client_open(note).call("POST", "/v1/networks", body=body)
    one_say(answer, NetworkView, _facts, id_of=lambda view: view.id, output=output)


def _facts(view: NetworkView) -> list[tuple[str, object]]:
    return [
        ("id", view.id),
        ("name", view.name),
        ("class", view.class_),
        ("driver", view.driver),
        ("ipv4", view.ipv4_cidr),
        ("ipv4 gateway", view.ipv4_gateway),
        ("ipv6", view.ipv6_cidr),
        ("ipv6 gateway", view.ipv6_gateway),
        ("domain", view.domain),
        ("mtu", view.mtu),
        ("addresses", f"{view.used} of {view.capacity} used"),
        ("created", view.created_at),
    ]
