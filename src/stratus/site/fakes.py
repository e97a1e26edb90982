"""Machines and storage in memory, for tests of scale: a URI names one of them."""

import threading

from stratus.drivers.hypervisor.fake import FakeHypervisor, FakeMachine
from stratus.drivers.network.fake import FakeNetworkDriver
from stratus.drivers.volume.fake import FakePool, FakePoolState


class Fakes:
    """The fakes of one process; they live as long as it does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._machines: dict[str, FakeMachine] = {}
        self._states: dict[str, FakePoolState] = {}

    def hypervisor(self, uri: str) -> FakeHypervisor:
        """Open a connection to the fake machine of this name."""
        return FakeHypervisor(self._machine(uri))

    def network(self, uri: str) -> FakeNetworkDriver:
        """Open the networks of the fake machine of this name."""
        return FakeNetworkDriver(self._machine(uri))

    def pool(self, location: str) -> FakePool:
        """Open the fake pool of this name."""
        with self._lock:
            return FakePool(self._states.setdefault(location, FakePoolState()))

    def _machine(self, uri: str) -> FakeMachine:
        with self._lock:
            return self._machines.setdefault(uri, FakeMachine())
