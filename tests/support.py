"""A whole cloud in one thread, for tests: real control and workers, fake drivers, settable time."""

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from stratus.control.hosts import HostWish, host_add
from stratus.control.images import endorsement_add
from stratus.control.instances import instance_show, instances_create
from stratus.control.networks import NetworkWish, network_add
from stratus.control.pools import pool_add
from stratus.control.reconcile import InstanceReconciler
from stratus.control.trust import key_add, policy_put
from stratus.drivers.hypervisor.fake import FakeHypervisor, FakeMachine
from stratus.drivers.network.fake import FakeNetworkDriver
from stratus.drivers.volume.contract import ImageFound, VolumeDriver
from stratus.drivers.volume.fake import FakePool, FakePoolState
from stratus.hosts.guests import GuestEffects, HostDrivers
from stratus.hosts.parts import Executor, Workshop
from stratus.hosts.pools import PoolWorker
from stratus.hosts.worker import HostWorker
from stratus.images.endorse import endorsement_make
from stratus.images.keys import public_key_pem
from stratus.model.host import HostFacts
from stratus.model.ids import HostId, ImageId, InstanceId, NetworkId, PoolId
from stratus.model.image import Digests, ImageFacts, ImageFormat, ImageSpec, Visibility
from stratus.model.instance import InstanceCreate, InstanceFacts, Phase, phase_of
from stratus.model.network import NetworkSpec
from stratus.model.tenancy import Actor, Quota
from stratus.model.trust import Policy, Rule, RuleAction
from stratus.model.units import DAY_MS, GIB, MIB, SECOND_MS
from stratus.model.volume import Presence
from stratus.store.engine import Store
from stratus.store.hosts import LeasedHost
from stratus.store.images import image_create
from stratus.store.networks import network_specs
from stratus.store.placing import hosts_facts
from tests.control.sites import ORIGIN, Site

TURNS_MAX: Final = 200  # before we say that nothing comes to rest
EVERYTHING: Final = Policy(rules=(Rule(action=RuleAction.ALLOW),))
NOTHING: Final = Policy()
NO_CEILING: Final = Quota(
    instances=-1, vcpus=-1, memory_mib=-1, volumes=-1, volume_gib=-1, addresses=-1
)


class AtOnce:
    """Runs every task where it is handed in."""

    def submit(self, task: Callable[[], None]) -> None:
        """Run it."""
        task()


class OnDemand:
    """Keeps tasks until a test runs them, so that something can happen in between."""

    def __init__(self) -> None:
        self.tasks: deque[Callable[[], None]] = deque()

    def submit(self, task: Callable[[], None]) -> None:
        """Keep it."""
        self.tasks.append(task)

    def run(self) -> int:
        """Run all that is kept; return how many that was."""
        count = len(self.tasks)
        for _ in range(count):
            self.tasks.popleft()()
        return count


class Cloud(Site):
    """A site with a network, a pool and an endorsed image; hosts are added by the test."""

    def __init__(self, store: Store, *, ipv4_cidr: str = "10.9.0.0/16") -> None:
        super().__init__(store)
        self.machines: dict[str, FakeMachine] = {}
        self.storage = FakePoolState()
        self.network = network_add(
            self.world,
            self.admin,
            NetworkWish(name="public", driver="fake", ipv4_cidr=ipv4_cidr),
            origin=ORIGIN,
        )
        self.pool_id: PoolId = pool_add(
            self.world, self.admin, name="main", driver="fake", location="main", origin=ORIGIN
        ).id
        policy_put(self.world, self.admin, EVERYTHING, origin=ORIGIN)
        self._key = Ed25519PrivateKey.generate()
        key_add(self.world, self.admin, pem=public_key_pem(self._key.public_key()), origin=ORIGIN)
        self.image_id = self.image()
        self.reconciler = InstanceReconciler(self.world)
        self.shop = Workshop(store=store, now_ms=self.clock)
        self.hosts = self.host_worker("worker")
        self.pools = self.pool_worker("worker")

    # -- making -----------------------------------------------------------------------------

    def image(self, name: str = "tiny", *, visibility: Visibility = Visibility.PUBLIC) -> ImageId:
        """Leave an endorsed image of this name, as if a pool had fetched it."""
        image_id = ImageId(self.world.id_new("image"))
        digest = hashlib.sha256(image_id.encode()).hexdigest()
        digests = Digests(size_bytes=MIB, sha256=digest, sha1=digest[:40])
        facts = ImageFacts(
            id=image_id,
            project_id=self.project_id,
            user_id=self.admin.user_id,
            name=name,
            title="",
            source="",
            format=ImageFormat.QCOW2,
            visibility=visibility,
            wanted=True,
            created_ms=self.clock.ms,
            version=1,
            size_bytes=digests.size_bytes,
            virtual_bytes=GIB,
            sha256=digests.sha256,
            sha1=digests.sha1,
            presence=Presence.READY,
        )
        self.world.store.write(lambda c: image_create(c, facts, pool_id=self.pool_id))
        self.storage.image_add(
            ImageFound(id=image_id, format=facts.format, digests=digests, virtual_bytes=GIB)
        )
        document = endorsement_make(
            digests,
            format=facts.format,
            email="ana@example.org",
            key=self._key,
            created_ms=self.clock.ms,
            valid_ms=self.clock.ms + 360 * DAY_MS,
        )
        endorsement_add(self.world, self.admin, image_id, document, origin=ORIGIN)
        return image_id

    def host(self, name: str = "node1", *, cpus: int = 16, memory_gib: int = 64) -> FakeMachine:
        """Add a host and return the machine behind it; no worker has looked at it yet."""
        uri = f"fake:///{name}"
        self.clock.ms += 1  # ids of one millisecond have no order
        self.machines[uri] = FakeMachine(cpus=cpus, memory_mib=memory_gib * 1024, clock=self.clock)
        host_add(self.world, self.admin, HostWish(name=name, uri=uri), origin=ORIGIN)
        return self.machines[uri]

    def host_worker(self, owner: str, executor: Executor | None = None) -> HostWorker:
        """Make one more host worker."""
        return HostWorker(
            self.shop,
            owner=owner,
            connect=self._connect,
            effects=GuestEffects(self.shop, pool=self._pool, network=self._network),
            executor=executor or AtOnce(),
        )

    def pool_worker(self, owner: str, executor: Executor | None = None) -> PoolWorker:
        """Make one more pool worker; it has nowhere to fetch images from."""
        return PoolWorker(
            self.shop,
            owner=owner,
            connect=lambda pool: self._pool(pool.id),
            fetch=_fetch_nothing,
            executor=executor or AtOnce(),
        )

    def _connect(self, host: LeasedHost) -> HostDrivers:
        machine = self.machines[host.uri]
        return HostDrivers(hypervisor=FakeHypervisor(machine), network=FakeNetworkDriver(machine))

    def _pool(self, _pool_id: PoolId) -> FakePool:
        return FakePool(self.storage)

    def _network(self, network_id: NetworkId) -> NetworkSpec:
        specs = self.world.store.read(lambda c: network_specs(c, rows_max=10))
        return next(spec for spec in specs if spec.id == network_id)

    # -- asking -----------------------------------------------------------------------------

    def wish(self, **more: object) -> InstanceCreate:
        """A wish for a small instance of the image."""
        given = {"project_id": self.project_id, "image": "tiny", "type": "t1.micro", **more}
        return InstanceCreate(**given)  # type: ignore[arg-type]  # as the test says

    def create(self, actor: Actor | None = None, **more: object) -> Sequence[InstanceFacts]:
        """Wish for instances; nobody has acted on it on return."""
        self.clock.ms += 1
        _, made = instances_create(
            self.world, actor or self.admin, self.wish(**more), origin=ORIGIN
        )
        return made

    def run(self, **more: object) -> InstanceId:
        """Wish for one instance and let everybody act until nothing is left to do."""
        (made,) = self.create(**more)
        self.settle()
        return made.id

    def show(self, instance_id: InstanceId) -> InstanceFacts:
        """Return one instance."""
        return instance_show(self.world, self.admin, instance_id)

    def phase(self, instance_id: InstanceId) -> Phase:
        """Return its phase."""
        return phase_of(self.show(instance_id))

    def host_facts(self, name: str) -> HostFacts:
        """Return one host."""
        found, _ = self.world.store.read(hosts_facts)
        return next(host for host in found if host.name == name)

    def host_id(self, name: str) -> HostId:
        """Return the id of a host."""
        return self.host_facts(name).id

    # -- time -------------------------------------------------------------------------------

    def settle(self) -> None:
        """Let everybody act until nobody has anything to do at this time."""
        for _ in range(TURNS_MAX):
            if not self.pools.turn() + self.hosts.turn() + self.reconciler.turn():
                return
        raise AssertionError("nothing comes to rest")

    def after(self, seconds: int) -> None:
        """Let that time pass, everybody acting when they said they would."""
        end_ms = self.clock.ms + seconds * SECOND_MS
        self.settle()
        while self.clock.ms < end_ms:
            due_ms = min(turning.next_ms() for turning in (self.pools, self.hosts, self.reconciler))
            self.clock.ms = min(end_ms, max(self.clock.ms + 1, due_ms))
            self.settle()


def _fetch_nothing(
    spec: ImageSpec, _driver: VolumeDriver, _progress: Callable[[int], None]
) -> ImageFound:
    raise AssertionError(f"nobody imports {spec.id} here")
