"""Does the cloud hold under this seed? Runs seeds, says what broke and how to see it again."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from stratus.model.units import MINUTE_MS
from stratus.sim.broken import Broken
from stratus.sim.cloud import Cloud
from stratus.sim.mishaps import Swarm, mix_draw
from stratus.sim.people import People
from stratus.sim.settling import settle
from stratus.sim.site import site
from stratus.sim.weather import Weather

STEPS: Final = 300
PLACES_MAX: Final = 4
EXPLAINED_LINES: Final = 120


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one seed."""

    seed: int
    steps: int
    broken: str = ""  # what must never be, and was
    step: int = 0  # at which it broke
    events: int = 0
    seen: dict[str, int] = {}  # how often each fault happened
    trace: tuple[str, ...] = ()

    @property
    def replay(self) -> str:
        """The command that shows this outcome again."""
        return f"stratus sim --seed {self.seed} --steps {self.steps}"


def seed_run(seed: int, *, steps: int = STEPS) -> Outcome:
    """Run one seed to its end, and tell what became of it."""
    chance = random.Random(seed)  # noqa: S311  # a seed must replay; nothing is secret
    mix = mix_draw(chance)
    scaled_out = chance.random() < 0.5
    cloud = Cloud(
        seed,
        site=site(),
        disorder=mix.disorder,
        hints_lost=chance.choice((0.0, 0.0, 0.2)),
        hosts_max=2 if scaled_out and chance.random() < 0.5 else 10_000,
    )
    swarm = Swarm(mix, random.Random(chance.getrandbits(64)), cloud.seen)  # noqa: S311  # as above
    cloud.fate = swarm
    cloud.processes_wanted = 2 if scaled_out else 1
    people = People(cloud, chance)
    done = 0
    broken = ""
    try:
        for _ in range(cloud.processes_wanted):
            cloud.process_start()
        for number in range(chance.randint(1, PLACES_MAX)):
            people.host_bring(cloud.outside.place_add(f"host-{number + 1}", chance))
        cloud.run_for(MINUTE_MS)
        weather = Weather(cloud, people, chance)
        cloud.say(f"mix: {mix.rates} {weather.mix}")
        while done < steps:
            done += 1
            weather.step()
        swarm.resting = True
        cloud.quiet()
        settle(cloud, people, weather)
    except Broken as error:
        broken = str(error)
    cloud.seen["lock_saved"] += cloud.outside.lock_saved
    return Outcome(
        seed=seed,
        steps=steps,
        broken=broken,
        step=done,
        events=cloud.events,
        seen=dict(cloud.seen),
        trace=tuple(cloud.trace),
    )


def seeds_run(
    seeds: Sequence[int],
    *,
    steps: int = STEPS,
    say: Callable[[str], None],
    explain: bool = False,
) -> list[int]:
    """Run these seeds and return those that failed; say how to replay each, and what was met."""
    failed: list[int] = []
    seen: Counter[str] = Counter()
    events = 0
    for seed in seeds:
        outcome = seed_run(seed, steps=steps)
        seen.update(outcome.seen)
        events += outcome.events
        if outcome.broken:
            failed.append(seed)
            say(f"seed {seed} broke at step {outcome.step}: {outcome.broken}")
            say(f"  see it again: {outcome.replay}")
        if explain:
            for line in outcome.trace[-EXPLAINED_LINES:]:
                say(f"  {line}")
    say(f"{events} events; met: " + ", ".join(f"{name} {seen[name]}" for name in sorted(seen)))
    return failed
