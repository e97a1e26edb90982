"""What do users and administrators do? Anything the doors allow, at random, and what they learn."""

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from stratus.control.hosts import (
    HostWish,
    host_add,
    host_drain,
    host_enable,
    host_fence,
    host_remove,
    host_show,
)
from stratus.control.images import (
    ImageWish,
    image_delete,
    image_import,
    image_retry,
    image_show,
)
from stratus.control.instances import (
    instance_delete,
    instance_reboot,
    instance_release,
    instance_rename,
    instance_retry,
    instance_show,
    instance_start,
    instance_stop,
    instances_create,
    instances_explain,
)
from stratus.control.site import FIRST_POLICY, FIRST_PROJECT
from stratus.control.tenancy import projects_change
from stratus.control.trust import policy_put
from stratus.control.world import World
from stratus.model.ids import ImageId, InstanceId
from stratus.model.image import ImageFormat
from stratus.model.instance import Desired, InstanceCreate, InstanceFacts, OnHalt, Ranking
from stratus.model.problem import Kind, Refused
from stratus.model.tenancy import Actor, ProjectFacts, Quota
from stratus.model.trust import Policy
from stratus.model.units import MINUTE_MS
from stratus.sim.broken import Broken
from stratus.sim.cloud import Cloud
from stratus.sim.ledger import Wishes
from stratus.sim.outside import Place
from stratus.sim.site import IMAGE, ORIGIN, image_endorse
from stratus.store.projects import project_show

TYPES: Final = ("t1.micro", "m1.small", "m1.small", "m1.large", "c1.medium", "c1.xlarge")
COUNT_MAX: Final = 4
INSTANCES_MAX: Final = 30  # alive at the same time, so that a seed stays fast

T = TypeVar("T")


class People:
    """Everybody who talks to the cloud. What they wish is written down before they ask."""

    def __init__(self, cloud: Cloud, chance: random.Random) -> None:
        self.cloud = cloud
        self._chance = chance
        self._images = 0
        self.images: dict[ImageId, str] = {}

    @property
    def admin(self) -> Actor:
        """Who asks: the first administrator, who is also the owner of the first project."""
        return self.cloud.site.admin

    def mine(self) -> list[InstanceId]:
        """Return the instances that people still know of."""
        ledger = self.cloud.ledger
        return [
            instance_id
            for instance_id, wishes in ledger.instances.items()
            if not wishes.deleted and instance_id not in ledger.lost
        ]

    # -- instances -----------------------------------------------------------------------------

    def create(self, wish: InstanceCreate) -> Sequence[InstanceFacts]:
        """Ask for instances; the quota holds of what was granted."""

        def command(world: World) -> Sequence[InstanceFacts]:
            return instances_create(world, self.admin, wish, origin=ORIGIN)[1]

        before = self._usage()
        made = self._ask(command) or ()
        for facts in made:
            self.cloud.ledger.made(facts)
        self._quota_check(before)
        return made

    def create_some(self) -> None:
        """Ask for a few instances of a random shape."""
        if len(self.mine()) >= INSTANCES_MAX:
            return
        chance = self._chance
        wish = InstanceCreate(
            project_id=self.cloud.site.project_id,
            image=IMAGE,
            type=chance.choice(TYPES),
            name=chance.choice(("", "web", "db")),
            count=chance.choice((1, 1, 1, 2, COUNT_MAX)),
            volatile_gib=chance.choice((0, 0, 1)),
            on_halt=chance.choice((OnHalt.KEEP, OnHalt.KEEP, OnHalt.RELEASE, OnHalt.DELETE)),
            ranking=chance.choice(tuple(Ranking)),
        )
        if chance.random() < 0.1:
            self._ask(partial(instances_explain, actor=self.admin, wish=wish, origin=ORIGIN))
        self.create(wish)

    def stop(self, instance_id: InstanceId, *, release: bool = False) -> None:
        """Wish one off."""
        facts, wishes = self._before(instance_id)
        if facts is not None:
            wishes.halts_to_run = max(wishes.halts_to_run, facts.run)
        self._wish(
            instance_id,
            Desired.STOPPED,
            lambda world: instance_stop(
                world, self.admin, instance_id, release=release, origin=ORIGIN
            ),
        )

    def release(self, instance_id: InstanceId) -> None:
        """Give the place of a stopped one back."""
        facts, wishes = self._before(instance_id)
        if facts is not None and facts.desired is not Desired.RUNNING:
            wishes.halts_to_run = max(wishes.halts_to_run, facts.run)
        self._wish(
            instance_id,
            Desired.STOPPED,
            lambda world: instance_release(world, self.admin, instance_id, origin=ORIGIN),
        )

    def start(self, instance_id: InstanceId) -> None:
        """Wish one on; what it adds is within the quota."""
        before = self._usage()
        self._wish(
            instance_id,
            Desired.RUNNING,
            lambda world: instance_start(world, self.admin, instance_id, origin=ORIGIN),
        )
        self._quota_check(before)

    def reboot(self, instance_id: InstanceId) -> None:
        """Wish one restarted."""
        facts, wishes = self._before(instance_id)
        if facts is not None:
            wishes.resets = max(wishes.resets, facts.resets + 1)
        self._ask(lambda world: instance_reboot(world, self.admin, instance_id, origin=ORIGIN))

    def rename(self, instance_id: InstanceId) -> None:
        """Call one something else."""
        name = f"n{self._chance.randint(0, 99)}"
        self._ask(
            lambda world: instance_rename(world, self.admin, instance_id, name=name, origin=ORIGIN)
        )

    def retry(self, instance_id: InstanceId) -> None:
        """Ask again for what was given up."""
        self._ask(lambda world: instance_retry(world, self.admin, instance_id, origin=ORIGIN))

    def delete(self, instance_id: InstanceId) -> None:
        """Wish one gone."""
        wishes = self.cloud.ledger.instances[instance_id]
        before, wishes.deleted = wishes.deleted, True
        done = self._wish(
            instance_id,
            Desired.ABSENT,
            lambda world: instance_delete(world, self.admin, instance_id, origin=ORIGIN),
        )
        if done is False:
            wishes.deleted = before

    def show(self, instance_id: InstanceId) -> InstanceFacts | None:
        """Look at one instance."""
        return self._ask(lambda world: instance_show(world, self.admin, instance_id))

    def _before(self, instance_id: InstanceId) -> tuple[InstanceFacts | None, Wishes]:
        return self.show(instance_id), self.cloud.ledger.instances[instance_id]

    def _wish(
        self, instance_id: InstanceId, desired: Desired, command: Callable[[World], object]
    ) -> bool | None:
        """Ask; True when it was granted, False when refused, None when nobody knows."""
        wishes = self.cloud.ledger.instances[instance_id]
        before, wishes.expected = wishes.expected, None
        refused, answer = self._asked(command)
        if refused:
            wishes.expected = before
            return False
        if answer is None:
            return None
        wishes.expected = desired
        return True

    # -- images --------------------------------------------------------------------------------

    def image_bring(self) -> None:
        """Import one more image."""
        self._images += 1
        name = f"image-{self._images}"
        wish = ImageWish(
            project=FIRST_PROJECT,
            name=name,
            source=f"https://images.example.org/{name}.raw",
            format=ImageFormat.RAW,
        )
        image = self._ask(lambda world: image_import(world, self.admin, wish, origin=ORIGIN))
        if image is not None:
            self.images[image.id] = name

    def image_tend(self, image_id: ImageId) -> None:
        """Endorse, retry or delete an image."""
        match self._chance.choice(("endorse", "retry", "delete")):
            case "endorse":
                image = self._ask(lambda world: image_show(world, self.admin, image_id))
                if image is not None and image.sha256:
                    self._ask(lambda world: image_endorse(world, self.admin, image_id))
            case "retry":
                self._ask(lambda world: image_retry(world, self.admin, image_id, origin=ORIGIN))
            case _:
                self.cloud.ledger.images_deleted.add(image_id)
                self._ask(lambda world: image_delete(world, self.admin, image_id, origin=ORIGIN))

    # -- administration ------------------------------------------------------------------------

    def host_bring(self, place: Place) -> None:
        """Add a machine to the site."""
        wish = HostWish(name=place.name, uri=place.uri)
        self._ask(lambda world: host_add(world, self.admin, wish, origin=ORIGIN))
        self.host_learn(place)

    def host_learn(self, place: Place) -> None:
        """Find out which host a machine is to the site now."""
        rows = self.cloud.store.rows("SELECT id FROM hosts WHERE name = ? AND gone_ms = 0",
                                     (place.name,))  # fmt: skip
        if rows:
            place.host_id = rows[0][0]

    def host_drain(self, place: Place) -> None:
        """Let a host get nothing new."""
        self._ask(lambda world: host_drain(world, self.admin, place.name, origin=ORIGIN))

    def host_enable(self, place: Place) -> None:
        """Let a host get instances again."""
        self._ask(lambda world: host_enable(world, self.admin, place.name, origin=ORIGIN))

    def host_remove(self, place: Place) -> None:
        """Take a host out of the site."""
        self._ask(lambda world: host_remove(world, self.admin, place.name, origin=ORIGIN))

    def host_fence(self, place: Place) -> None:
        """Switch a dead machine off and declare it dead; a living one must be refused."""
        cloud = self.cloud
        facts = self._ask(lambda world: host_show(world, self.admin, place.name))
        if facts is None:
            return
        dead = place.machine.faults.unreachable
        if not dead and facts.unreachable_ms:
            return  # it came back a moment ago, and the site has yet to notice
        if dead and facts.unreachable_ms:
            assert place.host_id is not None
            cloud.outside.machine_restarts(place)  # it comes back with its guests off
            place.off_until_ms = cloud.timeline.now_ms + self._chance.randint(1, 10) * MINUTE_MS
            for guest in cloud.outside.guests(place):
                if guest.instance_id is not None:
                    key = (place.host_id, guest.instance_id, guest.generation)
                    cloud.ledger.fenced.add(key)
        refused, _ = self._asked(
            lambda world: host_fence(world, self.admin, place.name, confirm=True, origin=ORIGIN)
        )
        if not dead and not refused:
            raise Broken(f"host {place.name} was fenced although it answers")
        if dead and not refused:
            cloud.seen["host_fenced"] += 1

    def policy(self, *, forbid: bool) -> None:
        """Change what may start."""
        checker, now_ms = self.cloud.checker, self.cloud.timeline.now_ms
        wanted = Policy() if forbid else FIRST_POLICY
        if not forbid and checker.forbids_since_ms:
            checker.forbidden_ms.append((checker.forbids_since_ms, now_ms))
            checker.forbids_since_ms = 0
        done = self._ask(lambda world: policy_put(world, self.admin, wanted, origin=ORIGIN))
        if forbid and done is not None and not checker.forbids_since_ms:
            checker.forbids_since_ms = self.cloud.timeline.now_ms

    def quota_set(self, quota: Quota) -> None:
        """Give the project other ceilings."""
        self._ask(
            lambda world: projects_change(
                world, self.admin, FIRST_PROJECT, quota=quota, origin=ORIGIN
            )
        )

    def _usage(self) -> ProjectFacts:
        return self.cloud.store.read(
            lambda c: required(project_show(c, self.cloud.site.project_id))
        )

    def _quota_check(self, before: ProjectFacts) -> None:
        """What a request added is within the quota; one that was lowered may be exceeded before."""
        after = self._usage()
        for what in Quota.__struct_fields__:
            used, limit = getattr(after.usage, what), getattr(after.quota, what)
            if used > limit >= 0 and used > getattr(before.usage, what):
                raise Broken(f"a request made the project use {used} {what} of {limit}")

    # -- asking --------------------------------------------------------------------------------

    def _ask(self, command: Callable[[World], T]) -> T | None:
        return self._asked(command)[1]

    def _asked(self, command: Callable[[World], T]) -> tuple[bool, T | None]:
        """Ask; True where it was refused with a reason, and the answer where there is one."""
        try:
            return False, self.cloud.ask(command)
        except Refused as refused:
            if refused.problem.kind is Kind.BUG:
                raise Broken(f"a request met a fault of ours: {refused}") from refused
            self.cloud.say(f"refused: {refused}")
            return True, None


def required(found: T | None) -> T:
    """Return what must be there."""
    assert found is not None
    return found
