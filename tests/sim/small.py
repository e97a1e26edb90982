"""A small site under a chosen fate: the same short story, told to the same end."""

from collections.abc import Callable, Sequence

from stratus.model.ids import InstanceId
from stratus.model.instance import Desired, InstanceCreate, OnHalt, Phase, phase_of
from stratus.model.units import SECOND_MS
from stratus.sim.cloud import Cloud
from stratus.sim.mishaps import Calm, Fate
from stratus.sim.outside import Place
from stratus.sim.people import People
from stratus.sim.settling import unsettled
from stratus.sim.site import IMAGE, site

PATIENCE = 100  # how often people look again
LOOK_MS = 3 * SECOND_MS  # between two looks
SEED = 11


class Small:
    """Two hosts, one process, and people who ask again until they are answered."""

    def __init__(self, fate: Fate, *, processes: int = 1) -> None:
        self.cloud = Cloud(SEED, site=site(), fate=fate)
        self.cloud.processes_wanted = processes
        self.people = People(self.cloud, self.cloud.chance)
        for _ in range(processes):
            self.cloud.process_start()
        for name in ("host-1", "host-2"):
            place = self.cloud.outside.place_add(name, self.cloud.chance)
            place.machine.delays.shutdown = 1.0
            self.until(lambda place=place: self._brought(place))

    def until(self, done: Callable[[], bool]) -> None:
        """Let time pass until it is so."""
        for _ in range(PATIENCE):
            if done():
                return
            self.cloud.run_for(LOOK_MS)
        raise AssertionError("it never came true")

    def _brought(self, place: Place) -> bool:
        self.people.host_bring(place)
        return place.host_id is not None

    def made(self) -> list[InstanceId]:
        """Return every instance there ever was, the oldest first."""
        return sorted(row[0] for row in self.cloud.store.rows("SELECT id FROM instances"))

    def create(self, count: int) -> Sequence[InstanceId]:
        """Ask for instances until somebody has said yes, then have all of them."""
        wish = InstanceCreate(
            project_id=self.cloud.site.project_id,
            image=IMAGE,
            type="t1.micro",
            swap_mib=0,
            count=count,
            on_halt=OnHalt.KEEP,
        )
        self.until(lambda: bool(self.made() or self.people.create(wish)))
        assert len(self.made()) == count, "all or none of a request"
        return self.made()

    def wish(self, instance_id: InstanceId, desired: Desired) -> None:
        """Ask until the wish is on record."""
        ask = {
            Desired.STOPPED: self.people.stop,
            Desired.RUNNING: self.people.start,
            Desired.ABSENT: self.people.delete,
        }[desired]

        def recorded() -> bool:
            found = self.people.show(instance_id)
            if found is None or found.desired is not desired:
                ask(instance_id)
                found = self.people.show(instance_id)
            return found is not None and found.desired is desired

        self.until(recorded)

    def are(self, phase: Phase, *instance_ids: InstanceId) -> None:
        """Wait until the instances have come so far."""

        def so_far() -> bool:
            found = [self.people.show(instance_id) for instance_id in instance_ids]
            return all(facts is not None and phase_of(facts) is phase for facts in found)

        self.until(so_far)

    def image_asked(self) -> bool:
        """Ask for one more image, unless that was done."""
        if len(self.cloud.store.rows("SELECT id FROM images")) == 1:
            self.people.image_bring()
        return len(self.cloud.store.rows("SELECT id FROM images")) > 1

    def tell(self) -> None:
        """Bring an image; make two, stop one, start it again, delete both; then rest."""
        self.until(self.image_asked)
        first, *_ = made = self.create(2)
        self.are(Phase.RUNNING, *made)
        self.wish(first, Desired.STOPPED)
        self.are(Phase.STOPPED, first)
        self.wish(first, Desired.RUNNING)
        self.are(Phase.RUNNING, *made)
        for instance_id in made:
            self.wish(instance_id, Desired.ABSENT)
        self.are(Phase.DELETED, *made)
        self.cloud.fate = Calm()
        self.until(lambda: not list(unsettled(self.cloud)))
        self.cloud.checker.events_check()

    def end(self) -> dict[str, object]:
        """Return what must be the same however the story went."""
        store = self.cloud.store
        return {
            "instances": {row[0] for row in store.rows("SELECT gone_ms > 0 FROM instances")},
            "images": store.rows("SELECT DISTINCT presence FROM images"),
            "leases": store.rows("SELECT id FROM leases WHERE released_ms = 0"),
            "volumes": self.cloud.outside.pool.volume_ids(),
            "guests": [self.cloud.outside.guests(p) for p in self.cloud.outside.places.values()],
            "work": store.rows("SELECT subject FROM work"),
        }
