"""Is there a short way to break it? Hypothesis owns all chance, and shrinks what it finds.

The macro rule matters: fine-grained rules alone seldom bring the cloud to a state worth breaking.
"""

import random
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from stratus.model.instance import Desired, HaltCause, InstanceCreate, OnHalt
from stratus.model.units import SECOND_MS
from stratus.sim.cloud import Cloud
from stratus.sim.mishaps import Calm, Cut, Mishap, Point
from stratus.sim.outside import Place
from stratus.sim.people import People
from stratus.sim.settling import settle
from stratus.sim.site import IMAGE, site

CALM_ROUND_MS = 6 * SECOND_MS  # everybody acts at least once
NUMBERS = st.integers(0, 7)


class Once:
    """One mishap at the next point of its sort, then calm."""

    def __init__(self) -> None:
        self.wanted: tuple[Point, Mishap] | None = None

    def at(self, point: Point, _what: str) -> Mishap | None:
        """Strike once."""
        if self.wanted is None or self.wanted[0] is not point:
            return None
        _, mishap = self.wanted
        self.wanted = None
        return mishap


class CloudMachine(RuleBasedStateMachine):
    """A cloud of two hosts and two processes, whose people and faults Hypothesis chooses."""

    @initialize(seed=st.integers(0, 3))
    def begin(self, seed: int) -> None:
        """Set up two hosts, and let everybody look once."""
        self.fate = Once()
        self.cloud = Cloud(seed, site=site(), fate=self.fate, disorder=True)
        self.cloud.processes_wanted = 2
        self.people = People(self.cloud, random.Random(seed))
        self.backup = b""
        for _ in range(2):
            self.cloud.process_start()
        self.places = [self.cloud.outside.place_add(f"host-{n}", random.Random(n)) for n in (1, 2)]
        for place in self.places:
            self.people.host_bring(place)
        self.a_calm_round()

    def one(self, number: int) -> Any:  # noqa: ANN401  # an id, or None
        """Return one of the instances that people know of."""
        mine = self.people.mine()
        return mine[number % len(mine)] if mine else None

    def place(self, number: int) -> Place:
        """Return one of the machines."""
        return self.places[number % len(self.places)]

    @rule()
    def a_calm_round(self) -> None:
        """Everybody acts, undisturbed."""
        self.cloud.run_for(CALM_ROUND_MS)

    @rule()
    def a_long_calm(self) -> None:
        """Leases lapse, graces end."""
        self.cloud.run_for(70 * SECOND_MS)

    @rule()
    def a_moment(self) -> None:
        """Somebody acts, perhaps."""
        self.cloud.run_for(40)

    @rule(on_halt=st.sampled_from(OnHalt), count=st.integers(1, 2))
    def create(self, on_halt: OnHalt, count: int) -> None:
        """Ask for one or two."""
        if len(self.people.mine()) < 4:
            wish = InstanceCreate(
                project_id=self.cloud.site.project_id,
                image=IMAGE,
                type="t1.micro",
                count=count,
                on_halt=on_halt,
            )
            self.people.create(wish)

    @rule(number=NUMBERS, desired=st.sampled_from(Desired), release=st.booleans())
    def wish(self, number: int, desired: Desired, release: bool) -> None:
        """Ask for a change of one."""
        instance_id = self.one(number)
        if instance_id is None:
            return
        match desired:
            case Desired.RUNNING:
                self.people.start(instance_id)
            case Desired.STOPPED:
                self.people.stop(instance_id, release=release)
            case Desired.ABSENT:
                self.people.delete(instance_id)

    @rule(number=NUMBERS)
    def reboot(self, number: int) -> None:
        """Ask for a restart of one."""
        if (instance_id := self.one(number)) is not None:
            self.people.reboot(instance_id)

    @rule(number=NUMBERS, cause=st.sampled_from((HaltCause.GUEST, HaltCause.CRASHED)))
    def a_guest_ends(self, number: int, cause: HaltCause) -> None:
        """A guest halts or panics."""
        alive = sorted(self.cloud.outside.alive)
        if alive:
            uri, instance_id, _ = alive[number % len(alive)]
            self.cloud.outside.guest_ends(self.cloud.outside.places[uri], instance_id, cause)

    @rule(number=NUMBERS, silent=st.booleans())
    def a_host_falls_silent_or_answers(self, number: int, silent: bool) -> None:
        """A host is cut off, or comes back."""
        self.place(number).machine.faults.unreachable = silent

    @rule(number=NUMBERS)
    def a_host_restarts(self, number: int) -> None:
        """A host loses power for a moment."""
        self.cloud.outside.machine_restarts(self.place(number))

    @rule(number=NUMBERS)
    def a_host_is_fenced(self, number: int) -> None:
        """The administrator declares a host dead."""
        self.people.host_fence(self.place(number))

    @rule(point=st.sampled_from((Point.COMMIT, Point.EFFECT)), mishap=st.sampled_from(Mishap))
    def a_mishap(self, point: Point, mishap: Mishap) -> None:
        """Something goes wrong at the next commit or effect."""
        commits = (Mishap.CRASH_BEFORE, Mishap.CRASH_AFTER, Mishap.STALL)
        if point is Point.EFFECT or mishap in commits:
            self.fate.wanted = (point, mishap)

    @rule()
    def a_backup(self) -> None:
        """The store is copied away."""
        self.backup = self.cloud.store.backup()

    @rule()
    def a_restore(self) -> None:
        """The copy comes back."""
        if self.backup:
            self.cloud.store_restore(self.backup)

    @invariant()
    def safe(self) -> None:
        """Nothing is as it must never be; raises Broken otherwise."""
        if hasattr(self, "cloud"):
            self.cloud.checker.after_event()

    def teardown(self) -> None:
        """Trouble ends, and every wish comes true."""
        if not hasattr(self, "cloud"):
            return
        self.fate.wanted = None
        for place in self.places:
            place.machine.faults.unreachable = False
        self.cloud.run_for(60 * SECOND_MS)
        settle(self.cloud, self.people, None)


CloudMachine.TestCase.settings = settings(
    max_examples=12,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestCloud = CloudMachine.TestCase


def test_the_fates_of_this_file_are_calm_until_told() -> None:
    assert Once().at(Point.EFFECT, "anything") is None
    assert Calm().at(Point.COMMIT, "anything") is None
    assert Cut().at(Point.READ, "anything") is None
