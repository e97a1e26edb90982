"""What happens to the outside and to the people? The steps of a seed, drawn from its mix."""

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from stratus.drivers.hypervisor.fake import Faults
from stratus.drivers.volume.fake import PoolFaults
from stratus.model.ids import InstanceId
from stratus.model.instance import HaltCause
from stratus.model.problem import Problem
from stratus.model.tenancy import Quota
from stratus.model.units import MINUTE_MS, SECOND_MS
from stratus.sim.cloud import Cloud
from stratus.sim.outside import Place
from stratus.sim.people import People
from stratus.sim.site import QUOTA

REFUSAL: Final = Problem(
    code="host_refused", detail="It refuses everything today.", remedy="Wait for tomorrow."
)
STRANGERS_MAX: Final = 2
PAUSE_MS: Final = (100, 15 * SECOND_MS)  # between two steps
LONG_PAUSE_MS: Final = 5 * MINUTE_MS
TROUBLE_MS: Final = (500, 6 * MINUTE_MS)

Step = Callable[[], None]


class Weather:
    """Draws steps and carries them out."""

    def __init__(self, cloud: Cloud, people: People, chance: random.Random) -> None:
        self._cloud = cloud
        self._people = people
        self._chance = chance
        self._backup = b""
        users: Sequence[tuple[str, float, Step]] = (
            ("create", 5.0, people.create_some),
            ("stop", 3.0, self._of_one(people.stop)),
            ("stop_release", 2.0, self._of_one(partial(people.stop, release=True))),
            ("release", 1.0, self._of_one(people.release)),
            ("start", 4.0, self._of_one(people.start)),
            ("reboot", 1.5, self._of_one(people.reboot)),
            ("rename", 0.5, self._of_one(people.rename)),
            ("retry", 1.0, self._of_one(people.retry)),
            ("delete", 3.0, self._of_one(people.delete)),
        )
        faults: Sequence[tuple[str, float, Step]] = (
            ("guest_halts", 1.0, partial(self._guest_ends, HaltCause.GUEST)),
            ("guest_crashes", 0.7, partial(self._guest_ends, HaltCause.CRASHED)),
            ("guest_pauses", 0.3, self._guest_pauses),
            ("host_unreachable", 0.8, self._host_unreachable),
            ("host_reboots", 0.5, self._host_reboots),
            ("host_fence", 2.0, self._host_fence),
            ("host_drain", 0.4, lambda: people.host_drain(self._place())),
            ("host_enable", 1.2, lambda: people.host_enable(self._place())),
            ("host_remove", 0.3, self._host_remove),
            ("host_refuses", 0.4, self._host_refuses),
            ("failed_starts", 0.8, self._failed_starts),
            ("replies_lost", 0.6, self._replies_lost),
            ("deaf_guests", 0.4, self._deaf_guests),
            ("stranger", 0.3, self._stranger),
            ("pool_full", 0.4, partial(self._pool, "no_space")),
            ("pool_unreachable", 0.4, partial(self._pool, "unreachable")),
            ("pool_refuses", 0.3, partial(self._pool, "refuse")),
            ("pool_fails", 0.6, self._pool_fails),
            ("process_killed", 0.8, self._process_killed),
            ("process_stalled", 0.8, self._process_stalled),
            ("restore", 0.6, self._restore),
            ("policy_forbids", 1.2, lambda: people.policy(forbid=True)),
            ("policy_allows", 0.8, lambda: people.policy(forbid=False)),
            ("image", 0.5, self._image),
            ("quota", 0.3, self._quota),
        )
        drawn = [step for step in faults if chance.random() < 0.5]
        # A policy that forbids for ever would leave nothing to look at.
        if any(name == "policy_forbids" for name, _, _ in drawn):
            drawn = [*drawn, next(step for step in faults if step[0] == "policy_allows")]
        self._steps = [*users, *drawn]
        self._weights = [weight for _, weight, _ in self._steps]
        self._backing_up = any(name == "restore" for name, _, _ in drawn)

    @property
    def mix(self) -> list[str]:
        """The names of what this seed has besides users."""
        return [name for name, _, _ in self._steps]

    def step(self) -> None:
        """Do one thing, then let some time pass."""
        ((name, _, do),) = self._chance.choices(self._steps, self._weights)
        self._cloud.seen[name] += 1
        self._cloud.say(f"step: {name}")
        do()
        self._cloud.checker.after_event()
        if self._backing_up and (not self._backup or self._chance.random() < 0.05):
            self._backup = self._cloud.store.backup()
            self._cloud.say("a backup is made")
        low, high = PAUSE_MS
        long = self._chance.random() < 0.01
        pause_ms = LONG_PAUSE_MS if long else int(low + (high - low) * self._chance.random() ** 3)
        self._cloud.run_for(pause_ms)

    def heal(self) -> None:
        """End every trouble there is, for good."""
        for place in self._cloud.outside.places.values():
            place.machine.faults = Faults()
            place.off_until_ms = 0
        self._cloud.outside.pool.faults = PoolFaults()

    # -- choosing ------------------------------------------------------------------------------

    def _place(self) -> Place:
        return self._chance.choice(list(self._cloud.outside.places.values()))

    def _of_one(self, do: Callable[[InstanceId], None]) -> Step:
        def step() -> None:
            mine = self._people.mine()
            if mine:
                do(self._chance.choice(mine))

        return step

    def _later(self, do: Step) -> None:
        low, high = TROUBLE_MS
        self._cloud.timeline.after(int(low + (high - low) * self._chance.random() ** 2), do)

    # -- guests and machines -------------------------------------------------------------------

    def _guest_ends(self, cause: HaltCause) -> None:
        alive = sorted(self._cloud.outside.alive)
        if alive:
            uri, instance_id, _ = self._chance.choice(alive)
            place = self._cloud.outside.places[uri]
            self._cloud.outside.guest_ends(place, instance_id, cause)

    def _guest_pauses(self) -> None:
        alive = sorted(self._cloud.outside.alive)
        if alive:
            uri, instance_id, _ = self._chance.choice(alive)
            self._cloud.outside.places[uri].machine.guest_pauses(instance_id)

    def _host_unreachable(self) -> None:
        place = self._place()
        place.machine.faults.unreachable = True
        self._later(partial(self._host_back, place))

    def _host_back(self, place: Place) -> None:
        wait_ms = place.off_until_ms - self._cloud.timeline.now_ms
        if wait_ms > 0:
            self._cloud.timeline.after(wait_ms, partial(self._host_back, place))
        else:
            place.machine.faults.unreachable = False

    def _host_reboots(self) -> None:
        self._cloud.outside.machine_restarts(self._place())

    def _host_fence(self) -> None:
        places = list(self._cloud.outside.places.values())
        dead = [place for place in places if place.machine.faults.unreachable]
        self._people.host_fence(self._chance.choice(dead or places))

    def _host_remove(self) -> None:
        place = self._place()
        self._people.host_remove(place)
        self._later(partial(self._people.host_bring, place))

    def _host_refuses(self) -> None:
        faults = self._place().machine.faults
        faults.refuse = REFUSAL
        self._later(lambda: setattr(faults, "refuse", None))

    def _failed_starts(self) -> None:
        self._place().machine.faults.failed_starts += self._chance.choice((1, 2, 3, 12))

    def _replies_lost(self) -> None:
        self._place().machine.faults.lose_replies += self._chance.randint(1, 3)

    def _deaf_guests(self) -> None:
        faults = self._place().machine.faults
        faults.ignores_shutdown = not faults.ignores_shutdown

    def _stranger(self) -> None:
        place = self._place()
        if len(place.strangers) < STRANGERS_MAX:
            name = f"stranger-{len(place.strangers)}"
            place.strangers.add(name)
            place.machine.add_stranger(name)

    # -- the pool ------------------------------------------------------------------------------

    def _pool(self, fault: str) -> None:
        faults = self._cloud.outside.pool.faults
        before = getattr(PoolFaults(), fault)
        setattr(faults, fault, REFUSAL if fault == "refuse" else True)
        self._later(lambda: setattr(faults, fault, before))

    def _pool_fails(self) -> None:
        faults = self._cloud.outside.pool.faults
        faults.failed_makes += self._chance.randint(1, 4)
        faults.lose_replies += self._chance.randint(0, 2)

    # -- the control plane ---------------------------------------------------------------------

    def _process_killed(self) -> None:
        processes = self._cloud.processes
        if processes:
            self._cloud.process_end(self._chance.choice(processes))

    def _process_stalled(self) -> None:
        processes = self._cloud.processes
        if processes:
            self._cloud.stall(self._chance.choice(processes), self._chance.randint(20, 120) * 1000)

    def _restore(self) -> None:
        if self._backup:
            self._cloud.store_restore(self._backup)

    def _image(self) -> None:
        images = self._people.images
        if not images or self._chance.random() < 0.4:
            self._people.image_bring()
        else:
            self._people.image_tend(self._chance.choice(sorted(images)))

    def _quota(self) -> None:
        small = Quota(instances=self._chance.randint(2, 12), vcpus=self._chance.randint(4, 24))
        self._people.quota_set(self._chance.choice((small, QUOTA)))
