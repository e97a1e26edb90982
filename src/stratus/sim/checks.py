"""Is the cloud still safe? Looked at after every event: what must never be, whatever goes wrong."""

from typing import Final

from stratus.model.host import GuestSpec
from stratus.model.ids import HostId
from stratus.sim.broken import Broken
from stratus.sim.ledger import Ledger
from stratus.sim.outside import Outside, Place
from stratus.sim.stores import SimStore
from stratus.sim.timeline import Timeline

_BOOKED: Final = """
SELECT h.id, h.name, sum(i.vcpus), sum(i.memory_mib),
       json_extract(h.capacity, '$.cpus') * h.cpu_ratio,
       (json_extract(h.capacity, '$.memory_mib') - h.memory_reserved_mib) * h.memory_ratio
FROM instances AS i JOIN hosts AS h ON h.id = i.host_id
WHERE h.capacity <> '' GROUP BY h.id
"""
_LEASED: Final = """
SELECT network_id, ipv4 FROM leases WHERE released_ms = 0 AND ipv4 <> ''
GROUP BY network_id, ipv4 HAVING count(*) > 1
"""
_UNNAMED: Final = """
SELECT id FROM instances
WHERE NOT EXISTS (SELECT 1 FROM events WHERE subject = instances.id AND kind = 'instance.created')
   OR gone_ms > 0 AND NOT EXISTS
      (SELECT 1 FROM events WHERE subject = instances.id AND kind = 'instance.deleted')
"""
_WISHED: Final = """
SELECT max(at_ms) FROM events WHERE subject = ? AND kind IN ('instance.created', 'instance.start',
'instance.retry', 'instance.started_again', 'instance.placed', 'instance.adopted')
"""
DECIDING_MS_MAX: Final = 100_000  # from the time that a decision bears to its commit, with a stall


class Checker:
    """Watches one cloud."""

    def __init__(
        self, store: SimStore, timeline: Timeline, outside: Outside, ledger: Ledger
    ) -> None:
        self._store = store
        self._timeline = timeline
        self._outside = outside
        self._ledger = ledger
        self._commits = 0
        # When the policy forbade, as (from, until).
        self.forbidden_ms: list[tuple[int, int]] = []
        self.forbids_since_ms = 0

    def policy_unknown(self) -> None:
        """An older policy holds again, and nobody knows which."""
        if self.forbids_since_ms:
            self.forbidden_ms.append((self.forbids_since_ms, self._timeline.now_ms))
            self.forbids_since_ms = 0

    def after_event(self) -> None:
        """Raise Broken if anything is as it must never be."""
        outside = self._outside
        if self._store.commits != self._commits:
            self._commits = self._store.commits
            self._ledger.learn(self._store)
            self._rows_check()
        if not outside.changed:
            return
        outside.look()
        started, outside.started = outside.started, []
        for place, spec in started:
            self._guest_check(place, spec)

    # -- rows ----------------------------------------------------------------------------------

    def _rows_check(self) -> None:
        for host_id, name, vcpus, memory_mib, vcpus_all, memory_all in self._store.rows(_BOOKED):
            if HostId(host_id) in self._ledger.adopted_on:
                continue  # what a restored store had forgotten is booked when it is found
            if vcpus > vcpus_all or memory_mib > memory_all:
                raise Broken(
                    f"host {name} is overcommitted: {vcpus} of {vcpus_all} vCPUs,"
                    f" {memory_mib} of {memory_all} MiB"
                )
        twice = self._store.rows(_LEASED)
        if twice:
            raise Broken(f"an address is leased twice: {twice}")

    def events_check(self) -> None:
        """Every instance that was made or deleted has the event that says so."""
        unnamed = self._store.rows(_UNNAMED)
        if unnamed:
            raise Broken(f"instances without their events: {unnamed}")

    # -- guests --------------------------------------------------------------------------------

    def _guest_check(self, place: Place, spec: GuestSpec) -> None:
        self._twice_check(place, spec)
        self._policy_check(spec)

    def _twice_check(self, place: Place, spec: GuestSpec) -> None:
        mine = (place.uri, spec.instance_id, spec.generation)
        macs = {nic.nic.mac for nic in spec.nics}
        ipv4s = {(nic.nic.network_id, nic.nic.ipv4) for nic in spec.nics if nic.nic.ipv4}
        for key, other in self._outside.alive.items():
            if key == mine:
                continue
            if other.instance_id == spec.instance_id:
                raise Broken(f"{spec.instance_id} runs twice: {mine} and {key}")
            if {d.volume_id for d in other.disks} & {d.volume_id for d in spec.disks}:
                raise Broken(f"{mine} and {key} share a disk")
            if other.instance_id in self._ledger.lost or spec.instance_id in self._ledger.lost:
                # A guest that a restored store never heard of keeps its address, which the store
                # cannot know to be in use; nothing short of the guest itself could tell.
                continue
            if macs & {n.nic.mac for n in other.nics} or ipv4s & {
                (n.nic.network_id, n.nic.ipv4) for n in other.nics if n.nic.ipv4
            }:
                raise Broken(f"{mine} and {key} have the same address")

    def _policy_check(self, spec: GuestSpec) -> None:
        if not self.forbidden_ms and not self.forbids_since_ms:
            return
        ((wished_ms,),) = self._store.rows(_WISHED, (spec.instance_id,))
        if wished_ms is None:
            return
        spans = [*self.forbidden_ms]
        if self.forbids_since_ms:
            spans.append((self.forbids_since_ms, self._timeline.now_ms))
        decided_ms = min(self._timeline.now_ms, wished_ms + DECIDING_MS_MAX)
        if any(begin_ms <= wished_ms and end_ms >= decided_ms for begin_ms, end_ms in spans):
            raise Broken(
                f"{spec.domain_name} was started in run {spec.run} although the policy forbade it"
                " all the time from the wish on"
            )
