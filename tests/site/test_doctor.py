"""The doctor's judgements, from made-up machines."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stratus.site.doctor import Finding, Health, SiteNeeds, examine, unfit
from stratus.site.kvm import KvmAnswer, KvmFacts
from stratus.site.machine import (
    Init,
    Ipv6Facts,
    MachineFacts,
    PortFacts,
    SpaceFacts,
    machine_facts_read,
    routes_parse,
)

GOOD = MachineFacts(
    python=(3, 11),
    architecture="x86_64",
    is_root=True,
    init=Init.NONE,
    tools_missing=(),
    packages_missing=(),
    qemu_user_exists=True,
    libvirtd_answers=False,
    bridge=True,
    tun=True,
    packet_filter=True,
    bridge_packets_filtered=True,
    ipv4_forwarding_possible=True,
    ipv6=Ipv6Facts(
        present=True, default_route_by_announcement=False, announcements_kept_when_forwarding=True
    ),
    kvm=KvmFacts(
        architecture="x86_64",
        cpu_flags=frozenset({"svm"}),
        device_exists=True,
        device_opens=True,
        qemu_exists=True,
    ),
    cpus=2,
    memory_free_mib=8192,
    ports=(PortFacts(address="127.0.0.1", port=8443, taken=False),),
    space=(SpaceFacts(path=Path("/var/lib/stratus"), free_mib=50_000, writable=True),),
    routes=("192.0.2.0/24",),
)
NEEDS = SiteNeeds(network="10.77.0.0/24")
WORKS = KvmAnswer(works=True, reason="A probe guest ran well.")


def found(facts: MachineFacts, what: str, needs: SiteNeeds = NEEDS) -> Finding:
    return next(one for one in examine(facts, needs, kvm=WORKS) if one.what.startswith(what))


def test_a_good_machine_has_nothing_to_mend() -> None:
    findings = examine(GOOD, NEEDS, kvm=WORKS)
    assert {finding.health for finding in findings} == {Health.OK}
    assert unfit(findings) is None


@pytest.mark.parametrize(
    ("change", "what", "words"),
    [
        ({"python": (3, 10)}, "python", "3.11"),
        ({"is_root": False}, "permission", "sudo"),
        ({"tools_missing": ("dnsmasq",)}, "packages", "apt-get install"),
        ({"packages_missing": ("postgresql",)}, "packages", "postgresql"),
        ({"bridge": False}, "bridge", "modprobe bridge"),
        ({"tun": False}, "tun", "/dev/net/tun"),
        ({"packet_filter": False}, "packet filter", "nftables"),
        ({"ipv4_forwarding_possible": False}, "forwarding", "container"),
        ({"memory_free_mib": 100}, "memory", "Free"),
        ({"ports": (PortFacts(address="::1", port=8443, taken=True),)}, "port 8443", "ss -ltnp"),
        ({"routes": ("10.0.0.0/8",)}, "guest network", "another network"),
        (
            {"space": (SpaceFacts(path=Path("/srv"), free_mib=10, writable=True),)},
            "space in /srv",
            "Free",
        ),
        (
            {"space": (SpaceFacts(path=Path("/srv"), free_mib=9999, writable=False),)},
            "space in /srv",
            "another folder",
        ),
    ],
)
def test_what_is_lacking_fails_with_its_remedy(
    change: dict[str, Any], what: str, words: str
) -> None:
    facts = replace(GOOD, **change)
    finding = found(facts, what)
    assert finding.health is Health.FAIL
    assert words in finding.remedy
    refusal = unfit(examine(facts, NEEDS, kvm=WORKS))
    assert refusal is not None
    assert finding.detail in refusal.problem.detail
    assert finding.remedy in refusal.problem.remedy


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"qemu_user_exists": False}, "guest user"),
        ({"bridge_packets_filtered": False}, "bridged packets"),
        ({"memory_free_mib": 1000}, "memory"),
        ({"ipv6": replace(GOOD.ipv6, present=False)}, "ipv6"),
        (
            {"space": (SpaceFacts(path=Path("/srv"), free_mib=5000, writable=True),)},
            "space in /srv",
        ),
    ],
)
def test_what_only_limits_warns_and_does_not_refuse(change: dict[str, Any], what: str) -> None:
    facts = replace(GOOD, **change)
    finding = found(facts, what)
    assert finding.health is Health.WARN
    assert finding.remedy
    assert unfit(examine(facts, NEEDS, kvm=WORKS)) is None


def test_a_machine_without_kvm_is_fit_and_is_told_why_it_is_slow() -> None:
    answer = KvmAnswer(works=False, reason="The processor offers no virtualisation.")
    findings = examine(GOOD, NEEDS, kvm=answer)
    finding = next(one for one in findings if one.what == "accelerator")
    assert finding.health is Health.WARN
    assert answer.reason in finding.detail
    assert unfit(findings) is None


def test_a_foreign_libvirtd_that_sees_a_broken_kvm_is_pointed_out() -> None:
    answer = KvmAnswer(works=False, reason="It hangs.")
    facts = replace(GOOD, libvirtd_answers=True)
    finding = next(one for one in examine(facts, NEEDS, kvm=answer) if one.what == "accelerator")
    assert "every definition" in finding.detail


def test_our_own_port_and_network_are_no_conflict() -> None:
    facts = replace(
        GOOD,
        ports=(PortFacts(address="127.0.0.1", port=8443, taken=True),),
        routes=("10.77.0.0/24",),
    )
    needs = replace(NEEDS, ports_already_ours=frozenset({8443}), network_already_ours=True)
    assert unfit(examine(facts, needs, kvm=WORKS)) is None


def test_forwarding_must_not_cost_the_machine_its_own_ipv6_route() -> None:
    announced = Ipv6Facts(
        present=True, default_route_by_announcement=True, announcements_kept_when_forwarding=False
    )
    assert not announced.usable
    assert replace(announced, announcements_kept_when_forwarding=True).usable
    finding = found(replace(GOOD, ipv6=announced), "ipv6")
    assert finding.health is Health.WARN
    assert "accept_ra=2" in finding.remedy


def test_routes_are_read_as_networks_without_the_default() -> None:
    table = (
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    assert routes_parse(table) == ("192.0.2.0/24",)


def test_the_facts_of_this_machine_can_be_read() -> None:
    facts = machine_facts_read(ports=[("127.0.0.1", 1)], folders=[Path("/nowhere/at/all")])
    assert facts.cpus >= 1
    assert facts.memory_free_mib > 0
    assert facts.space[0].free_mib > 0
    assert examine(facts, NEEDS)
