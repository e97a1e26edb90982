"""What does each action do to the outside? Idempotent calls to drivers, one guest at a time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import assert_never

import msgspec

from stratus.decide.hostplan import (
    Action,
    AskShutdown,
    Halt,
    Remove,
    Reset,
    Start,
    absent_report,
    guest_report,
)
from stratus.drivers.failure import DriverFailed, EngineUnreachable
from stratus.drivers.hypervisor.contract import Hypervisor
from stratus.drivers.network.contract import NetworkDriver
from stratus.drivers.volume.contract import Grant, VolumeDriver
from stratus.hosts.parts import Workshop
from stratus.model.host import (
    GuestDisk,
    GuestFound,
    GuestNic,
    GuestReport,
    GuestSpec,
    GuestWish,
    WishedDisk,
)
from stratus.model.ids import InstanceId, NetworkId, PoolId, VolumeId
from stratus.model.instance import Nic, Observed
from stratus.model.network import NetworkSpec, PortSpec
from stratus.model.problem import Problem
from stratus.model.volume import VolumeKind
from stratus.store.hosts import LeasedHost


@dataclass(kw_only=True, slots=True)
class HostDrivers:
    """The open connections to one host."""

    hypervisor: Hypervisor
    network: NetworkDriver | None
    networks_up: set[NetworkId] = field(default_factory=set)

    def close(self) -> None:
        """Let go of the host; its guests run on."""
        self.hypervisor.close()
        if self.network is not None:
            self.network.close()


class Acted(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one action."""

    host: LeasedHost
    instance_id: InstanceId
    report: GuestReport | None = None
    failures: int = 0  # in a row, this one included
    asked: bool = False  # the guest was asked to shut down, and may take its time
    removed: tuple[tuple[InstanceId, int], ...] = ()  # placements confirmed gone
    silent: Problem | None = None


class GuestEffects:
    """Performs actions; remembers nothing that a restart would miss."""

    def __init__(
        self,
        shop: Workshop,
        *,
        pool: Callable[[PoolId], VolumeDriver],
        network: Callable[[NetworkId], NetworkSpec],
    ) -> None:
        self._shop = shop
        self._pool = pool
        self._network = network

    def perform(
        self,
        host: LeasedHost,
        drivers: HostDrivers,
        action: Action,
        doomed: frozenset[tuple[InstanceId, int]] = frozenset(),
    ) -> Acted:
        """Do it, and say what became of it; never raises."""
        wish = action.wish
        done = Acted(host=host, instance_id=wish.instance_id)
        try:
            report = self._do(host, drivers, action)
        except EngineUnreachable as error:
            return msgspec.structs.replace(done, silent=error.problem)
        except DriverFailed as error:
            # A network may be what failed: the next try makes sure of it anew.
            drivers.networks_up.clear()
            problem = error.problem
        except Exception as error:  # one guest's fault must not end the worker
            problem = self._shop.bug(error, f"acting on {wish.instance_id}")
        else:
            removed: tuple[tuple[InstanceId, int], ...] = ()
            if isinstance(action, Remove):
                pairs = ((wish.instance_id, number) for number in action.generations)
                removed = tuple(pair for pair in pairs if pair in doomed)
            asked = isinstance(action, AskShutdown)
            return msgspec.structs.replace(done, report=report, removed=removed, asked=asked)
        return msgspec.structs.replace(
            done, report=_failure_report(host, wish, problem), failures=wish.failures + 1
        )

    def _do(self, host: LeasedHost, drivers: HostDrivers, action: Action) -> GuestReport | None:
        wish = action.wish
        match action:
            case Start():
                return guest_report(host.id, wish, self._start(drivers, wish))
            case Reset():
                drivers.hypervisor.ensure_reset(
                    wish.instance_id, wish.generation, resets=wish.resets
                )
                return None
            case AskShutdown():
                drivers.hypervisor.shutdown_ask(wish.instance_id, wish.generation)
                return None
            case Halt():
                drivers.hypervisor.ensure_halted(wish.instance_id, wish.generation)
                return None
            case Remove(generations=generations):
                for generation in generations:
                    drivers.hypervisor.ensure_absent(wish.instance_id, generation)
                self._ports_remove(drivers, wish)
                return absent_report(host.id, wish)
            case other:
                assert_never(other)

    def _start(self, drivers: HostDrivers, wish: GuestWish) -> GuestFound:
        nics = tuple(self._plug(drivers, wish, nic) for nic in wish.nics)
        spec = GuestSpec(
            instance_id=wish.instance_id,
            generation=wish.generation,
            run=wish.run,
            resets=wish.resets,
            title=wish.title,
            vcpus=wish.vcpus,
            memory_mib=wish.memory_mib,
            disks=tuple(self._disk(wish, disk) for disk in wish.disks),
            nics=tuple(nic for nic in nics if nic is not None),
        )
        return drivers.hypervisor.ensure_running(spec)

    def _disk(self, wish: GuestWish, disk: WishedDisk) -> GuestDisk:
        read_only = disk.kind is VolumeKind.SEED
        grant = Grant(instance_id=wish.instance_id, epoch=disk.epoch, read_only=read_only)
        volume_id = VolumeId(disk.volume_id)
        return GuestDisk(
            kind=disk.kind,
            volume_id=volume_id,
            connection=self._pool(disk.pool_id).connect(volume_id, grant),
            read_only=read_only,
        )

    def _plug(self, drivers: HostDrivers, wish: GuestWish, nic: Nic) -> GuestNic | None:
        if drivers.network is None:
            return None
        network_id = NetworkId(nic.network_id)
        if network_id not in drivers.networks_up:
            drivers.network.ensure_network(self._network(network_id))
            drivers.networks_up.add(network_id)
        port = PortSpec(
            network_id=network_id,
            instance_id=wish.instance_id,
            mac=nic.mac,
            ipv4=nic.ipv4,
            ipv6=nic.ipv6,
            host_name=wish.title,
        )
        return GuestNic(nic=nic, attachment=drivers.network.ensure_port(port))

    def _ports_remove(self, drivers: HostDrivers, wish: GuestWish) -> None:
        if drivers.network is not None:
            for nic in wish.nics:
                drivers.network.ensure_port_absent(NetworkId(nic.network_id), nic.mac)


def _failure_report(host: LeasedHost, wish: GuestWish, problem: Problem) -> GuestReport:
    return msgspec.structs.replace(
        absent_report(host.id, wish), observed=Observed.UNKNOWN, failure=problem
    )
