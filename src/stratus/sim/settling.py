"""Has every wish come true? Asked when all trouble has ended: names whatever is not as wished."""

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection

from stratus.decide.placement import HostTable, Placed, Request, placement_decide
from stratus.model.ids import InstanceId, VolumeId
from stratus.model.instance import (
    Desired,
    HaltCause,
    InstanceFacts,
    OnHalt,
    Phase,
    phase_of,
)
from stratus.model.units import MINUTE_MS
from stratus.sim.broken import Broken
from stratus.sim.cloud import Cloud
from stratus.sim.ledger import Wishes
from stratus.sim.outside import Place
from stratus.sim.people import People
from stratus.sim.site import QUOTA
from stratus.sim.weather import Weather
from stratus.store.check import INVARIANTS
from stratus.store.instances import instances_by_ids, instances_known
from stratus.store.placing import hosts_facts

SETTLE_MINUTES_MAX: Final = 40  # longer than any deadline of a wish that can come true
CALM_MINUTES: Final = 4
CALM_EVENTS_MAX: Final = 400  # per process and host; looks, leases and probes go on for ever
NAMED_MAX: Final = 8
UNSAID: Final = (HaltCause.NONE, HaltCause.ASKED)  # by a wish that a restored store forgot


def settle(cloud: Cloud, people: People, weather: Weather | None) -> None:
    """End all trouble, and demand that every wish comes true within a bounded time."""
    if weather is not None:
        weather.heal()
        cloud.run_for(2 * MINUTE_MS)
    people.policy(forbid=False)
    people.quota_set(QUOTA)
    for place in cloud.outside.places.values():
        people.host_bring(place)
        people.host_enable(place)
    left = _wait(cloud)
    if left:
        raise Broken("not settled: " + "; ".join(left[:NAMED_MAX]))
    # What was given up during the trouble comes true now, once somebody asks for it.
    parked = [facts for facts in _instances(cloud).values() if facts.parked and not facts.gone_ms]
    for facts in parked:
        assert facts.parked is not None
        people.retry(facts.id)
    left = _wait(cloud) if parked else []
    left += [
        f"{facts.id} is parked again: {facts.parked}"
        for facts in _instances(cloud).values()
        if facts.parked and not facts.gone_ms and not _excused(cloud, facts)
    ]
    if left:
        raise Broken("not settled after retry: " + "; ".join(left[:NAMED_MAX]))
    _calm_check(cloud)
    cloud.checker.events_check()


def _wait(cloud: Cloud) -> list[str]:
    left: list[str] = []
    for _ in range(SETTLE_MINUTES_MAX):
        cloud.run_for(MINUTE_MS)
        left = list(unsettled(cloud))
        if not left:
            break
    return left


def _calm_check(cloud: Cloud) -> None:
    """When nothing is left to do, nothing is done."""
    ((before,),) = cloud.store.rows("SELECT coalesce(max(seq), 0) FROM events")
    events = cloud.events
    cloud.run_for(CALM_MINUTES * MINUTE_MS)
    news = cloud.store.rows(
        "SELECT kind, subject FROM events WHERE seq > ? AND kind <> 'host.stray_seen'", (before,)
    )
    if news:
        raise Broken(f"something goes on happening: {news[:NAMED_MAX]}")
    done = cloud.events - events
    allowed = CALM_EVENTS_MAX * len(cloud.processes) * (1 + len(cloud.outside.places))
    if done > allowed:
        raise Broken(f"{done} events in {CALM_MINUTES} minutes of calm: somebody spins")


def _instances(cloud: Cloud) -> dict[InstanceId, InstanceFacts]:
    return cloud.store.read(lambda c: instances_by_ids(c, instances_known(c)))


def unsettled(cloud: Cloud) -> Iterator[str]:
    """Name everything that is not as it was wished, in the store and outside."""
    cloud.outside.changed.update(cloud.outside.places)
    cloud.checker.after_event()
    found = _instances(cloud)
    for facts in found.values():
        wishes = cloud.ledger.wishes(facts.id)
        said = _instance_said(cloud, facts)
        if said:
            yield f"{facts.id} ({facts.desired}, {phase_of(facts)}): {said}"
        elif wishes is not None and not _as_expected(facts, wishes):
            yield f"{facts.id}: {wishes.expected} was wished, {facts.desired} is on record"
    yield from _rows_left(cloud)
    for place in cloud.outside.places.values():
        yield from _place_left(cloud, place, found)
    yield from _volumes_left(cloud)


def _as_expected(facts: InstanceFacts, wishes: Wishes) -> bool:
    gone = facts.gone_ms > 0 or facts.desired is Desired.ABSENT
    if wishes.halted_itself and wishes.on_halt is not OnHalt.KEEP:
        return True
    match wishes.expected:
        case None:
            return True
        case Desired.ABSENT:
            return gone
        case desired:
            return facts.desired is desired


def _instance_said(cloud: Cloud, facts: InstanceFacts) -> str:
    """Say what is not in order with one instance; "" when everything is."""
    alive = [key for key in cloud.outside.alive if key[1] == facts.id]
    if facts.gone_ms:
        return f"it is gone, but runs: {alive}" if alive else ""
    if facts.parked is not None:
        return "" if facts.parked.remedy else "it is parked without a remedy"
    if facts.observed_generation > facts.generation:
        return "the host knows of a later placement"
    phase = phase_of(facts)
    match facts.desired:
        case Desired.ABSENT:
            return "it is not gone yet"
        case Desired.STOPPED:
            if phase is not Phase.STOPPED or (facts.release and facts.host_id is not None):
                return f"it is not stopped yet (observed {facts.observed})"
            return f"it is stopped, but runs: {alive}" if alive else ""
        case Desired.RUNNING:
            return _running_said(cloud, facts, phase, alive)


def _running_said(
    cloud: Cloud, facts: InstanceFacts, phase: Phase, alive: list[tuple[str, InstanceId, int]]
) -> str:
    match phase:
        case Phase.RUNNING:
            assert facts.host_id is not None
            uri = cloud.outside.place_of(facts.host_id).uri
            if alive != [(uri, facts.id, facts.generation)]:
                return f"it should run on {facts.host_name} and runs as {alive}"
            return ""
        case Phase.STOPPED if facts.on_halt is OnHalt.KEEP or facts.halt_cause in UNSAID:
            return f"it has halted, but runs: {alive}" if alive else ""
        case Phase.PENDING if facts.waiting is not None:
            placed = cloud.store.read(lambda c: _placeable(c, facts))
            return f"it waits ({facts.waiting.detail}) although there is room" if placed else ""
        case _:
            return (
                f"it does not run yet (observed {facts.observed}, run {facts.observed_run} of"
                f" {facts.run}, disks {facts.volumes_ready} of {facts.volumes_wanted},"
                f" failure {facts.failure}, stray on {facts.stray_host_id})"
            )


def _placeable(connection: Connection, facts: InstanceFacts) -> bool:
    request = Request(
        vcpus=facts.vcpus, memory_mib=facts.memory_mib, pool_id=facts.pool_id, ranking=facts.ranking
    )
    (answer,) = placement_decide(HostTable(hosts_facts(connection)[0]), [request])
    return isinstance(answer, Placed)


def _excused(cloud: Cloud, facts: InstanceFacts) -> bool:
    """No retry can help: the backup that came back knows less than the world.

    It brought an instance back whose disks were deleted with it, or does not know of guests
    that use what it takes to be free.
    """
    if facts.parked is not None and facts.parked.code == "host_refused" and cloud.ledger.lost:
        return True
    rows = cloud.store.rows(
        "SELECT id FROM volumes WHERE instance_id = ? AND gone_ms = 0 AND presence = 'ready'",
        (facts.id,),
    )
    missing = any(cloud.outside.pool.volume(VolumeId(row[0])) is None for row in rows)
    return missing and bool(cloud.ledger.restores)


def _rows_left(cloud: Cloud) -> Iterator[str]:
    now_ms = cloud.timeline.now_ms
    for subject, wake_ms in cloud.store.rows(
        "SELECT subject, wake_ms FROM work JOIN instances ON id = subject"
        " WHERE NOT (host_id IS NULL AND waiting <> '')"
    ):
        yield f"work is left for {subject}, due in {wake_ms - now_ms} ms"
    for (subject,) in cloud.store.rows(
        "SELECT subject FROM work LEFT JOIN instances ON id = subject WHERE id IS NULL"
    ):
        yield f"work is left for {subject}, which does not exist"
    for host, instance_id, generation in cloud.store.rows(
        "SELECT h.name, t.instance_id, t.generation FROM tombstones AS t"
        " JOIN hosts AS h ON h.id = t.host_id WHERE h.gone_ms = 0"
    ):
        yield f"a tombstone is left for {instance_id}.{generation} on {host}"
    for (name,) in cloud.store.rows(
        "SELECT name FROM hosts WHERE desired = 'absent' AND gone_ms = 0"
    ):
        yield f"host {name} was removed and is still there"
    for host, name, instance_id in cloud.store.rows(
        "SELECT h.name, s.name, s.instance_id FROM strays AS s JOIN hosts AS h"
        " ON h.id = s.host_id WHERE s.instance_id <> '' AND h.gone_ms = 0"
    ):
        if instance_id not in cloud.ledger.lost:
            yield f"{name} is a stray on {host}"
    for invariant in INVARIANTS:
        if invariant.name == "volume_without_parent" and cloud.ledger.restores:
            continue  # an image that was deleted after the backup comes back without its bytes
        broken = cloud.store.rows(invariant.query)
        if broken and broken[0][0] is not None:
            yield f"{invariant.name}: {broken[:NAMED_MAX]}"


def _place_left(
    cloud: Cloud, place: Place, found: dict[InstanceId, InstanceFacts]
) -> Iterator[str]:
    """Name guests and cards on a machine that are not of what has its place there."""
    lost = cloud.ledger.lost
    names = set()
    for guest in cloud.outside.guests(place):
        names.add(guest.name)
        facts = found.get(guest.instance_id) if guest.instance_id is not None else None
        if guest.instance_id is None or guest.instance_id in lost:
            continue
        if facts is None or (facts.host_id, facts.generation) != (
            place.host_id,
            guest.generation,
        ):
            yield f"guest {guest.name} ({guest.observed}) is left on {place.name}"
    if place.strangers - names:
        yield f"the strangers {place.strangers - names} on {place.name} are gone"
    if cloud.ledger.restores or cloud.outside.disorder:
        return  # a card made by a wish that is forgotten, or too late; it is used again with it
    for cards in place.machine.ports.values():
        for port in cards.values():
            facts = found.get(port.instance_id)
            if facts is None or facts.host_id != place.host_id:
                yield f"card {port.mac} of {port.instance_id} is left on {place.name}"


def _volumes_left(cloud: Cloud) -> Iterator[str]:
    live = {row[0] for row in cloud.store.rows("SELECT id FROM volumes WHERE gone_ms = 0")}
    for volume_id in cloud.outside.pool.volume_ids():
        owner = cloud.ledger.volumes.get(volume_id)
        if volume_id not in live and owner not in cloud.ledger.lost:
            yield f"volume {volume_id} of {owner} is left in the pool"
