"""How do the parts make a whole cloud in one process? Store, outside, processes and their time."""

import random
import traceback
from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from stratus.control.world import World
from stratus.model.problem import Refused
from stratus.model.units import SECOND_MS
from stratus.sim.broken import Broken, Crash
from stratus.sim.checks import Checker
from stratus.sim.ledger import Ledger
from stratus.sim.mishaps import Calm, Fate
from stratus.sim.outside import Outside
from stratus.sim.processes import HINT_MS_MAX, Process
from stratus.sim.stores import SimStore
from stratus.sim.timeline import BEGIN_MS, Timeline

if TYPE_CHECKING:
    from stratus.sim.site import Site

T = TypeVar("T")

TRACE_LINES: Final = 400
STALLS_MAX: Final = 2  # processes that stand still at the same time
RESTART_MS_MAX: Final = 40 * SECOND_MS
POLL_MS: Final = SECOND_MS  # every role looks this often, hint or not
EVENTS_MAX: Final = 2_000_000  # of one seed; far more than any needs


class Cloud:
    """One site with everything around it, under one seed."""

    def __init__(
        self,
        seed: int,
        *,
        site: "Site | None",
        fate: Fate | None = None,
        disorder: bool = False,
        hints_lost: float = 0.0,
        hosts_max: int = 10_000,
    ) -> None:
        self.chance = random.Random(seed)  # noqa: S311  # a seed must replay; nothing is secret
        self.timeline = Timeline(BEGIN_MS if site is None else site.ready_ms)
        self.store = SimStore()
        self.ledger = Ledger()
        self.outside = Outside(self.timeline, self.ledger, disorder=disorder)
        self.outside.say = self.say
        self.fate: Fate = fate or Calm()
        self.seen: Counter[str] = Counter()  # which faults happened, and how often
        self.events = 0
        self.trace: deque[str] = deque(maxlen=TRACE_LINES)
        self.processes: list[Process] = []
        self.checker = Checker(self.store, self.timeline, self.outside, self.ledger)
        self._hosts_max = hosts_max
        self._hints_lost = hints_lost
        self._processes_made = 0
        self._stalls = 0
        if site is not None:
            self.site: Site = site
            self.store.load(site.store)
            self.outside.pool.image_add(site.image)
            self.ledger.learn(self.store)

    # -- time ----------------------------------------------------------------------------------

    def run_for(self, milliseconds: int) -> None:
        """Let so much time pass; safety is checked after every event."""
        until_ms = self.timeline.now_ms + milliseconds
        while (event := self.timeline.next(until_ms)) is not None:
            owner, do = event
            self.events += 1
            if self.events > EVENTS_MAX:
                raise Broken("there is no end of events")
            try:
                do()
            except Crash:
                assert isinstance(owner, Process)
                self.process_end(owner)
            except Refused as refused:
                raise Broken(f"a turn was refused: {refused}") from refused
            except Exception as error:
                lines = "".join(traceback.format_exception(error)[-6:])
                raise Broken(f"a fault of ours: {lines}") from error
            self.checker.after_event()

    def stall(self, process: Process, milliseconds: int) -> None:
        """Let the rest of the world go on while this process stands still."""
        if self._stalls >= STALLS_MAX:
            return
        self._stalls += 1
        process.stalls += 1
        try:
            self.run_for(milliseconds)
        finally:
            self._stalls -= 1
            process.stalls -= 1
        if process.dead or process.stalls:
            return
        self.say(f"{process.name}: goes on after {milliseconds} ms")
        backlog, process.backlog = process.backlog, []
        for do in backlog:
            self.timeline.after(self.chance.randint(0, HINT_MS_MAX), do, process)

    def hint(self, topic: str, sender: Process) -> None:
        """Wake the roles of this topic in every process; a lost hint costs them a poll."""
        for process in self.processes:
            if self._hints_lost and self.chance.random() < self._hints_lost:
                self.seen["hint_lost"] += 1
                process.woken(topic, within_ms=POLL_MS)
            else:
                process.woken(topic, within_ms=HINT_MS_MAX if process is sender else POLL_MS)

    def say(self, line: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{self.timeline.now_ms - BEGIN_MS:>9} {line}")

    def quiet(self) -> None:
        """Lose no more hints."""
        self._hints_lost = 0.0

    # -- processes -----------------------------------------------------------------------------

    def process_start(self) -> Process:
        """Start one more control plane process, under a name that was never used."""
        self._processes_made += 1
        process = Process(self, f"process-{self._processes_made}", hosts_max=self._hosts_max)
        self.processes.append(process)
        return process

    def process_end(self, process: Process) -> None:
        """End a process at once, as with kill -9; another one is started later."""
        if process.dead:
            return
        process.end()
        self.processes.remove(process)
        self.say(f"{process.name}: is dead")
        self.timeline.after(self.chance.randint(100, RESTART_MS_MAX), self.process_renew)

    def process_renew(self) -> None:
        """Start a process in the place of one that ended, unless that happened already."""
        if len(self.processes) < self.processes_wanted:
            self.process_start()

    processes_wanted = 1

    def store_restore(self, copy: bytes) -> None:
        """Stop everything, put an older store in place, and start again."""
        for process in tuple(self.processes):
            self.process_end(process)
        self.ledger.learn(self.store)
        self.store.restore(copy, now_ms=self.timeline.now_ms)
        self.ledger.restored(self.store)
        for instance_id, down_ms in self.outside.asked.items():
            wishes = self.ledger.wishes(instance_id)
            if wishes is not None and down_ms >= self.timeline.now_ms:
                # Its power button was pressed by a wish that nobody remembers: from now on it
                # looks to everybody as if it halted by itself.
                wishes.halted_itself = True
        self.checker.policy_unknown()
        self.say("the store is an older one now")

    def ask(self, command: Callable[[World], T]) -> T | None:
        """Let somebody ask any process; None where none answers, or ends before it has answered."""
        able = [process for process in self.processes if not process.stalls]
        if not able:
            return None
        process = self.chance.choice(able)
        try:
            return command(process.world)
        except Crash:
            self.process_end(process)
            return None
        finally:
            self.checker.after_event()
