"""Which pools are ours, and do they hold what they should? The loop of a pool worker.

Works like the worker of hosts: `turn` alone touches state, tasks drop results into the inbox.
Volumes and images are removed only because their row says so.
"""

from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final

import msgspec
from sqlalchemy import Connection

from stratus.decide.retry import retry_delay_ms
from stratus.drivers.failure import DriverFailed, EngineUnreachable
from stratus.drivers.volume.contract import ImageFound, PoolFacts, VolumeDriver
from stratus.hosts.parts import Executor, Workshop
from stratus.images.identifier import identifier_of
from stratus.model.ids import ImageId, PoolId, VolumeId
from stratus.model.image import ImageSpec
from stratus.model.problem import Kind, Problem
from stratus.model.units import MINUTE_MS, SECOND_MS
from stratus.model.volume import VolumeFacts, VolumeSpec
from stratus.store.events import event_append
from stratus.store.json import problem_text
from stratus.store.leasing import (
    leases_end,
    leases_still_held,
    rows_due,
    rows_next_ms,
    rows_sleep,
    rows_wake,
)
from stratus.store.pool_work import (
    ImageUndone,
    LeasedPool,
    hosts_of_instances,
    image_progress,
    image_set,
    images_next_ms,
    images_undone,
    pool_seen,
    pool_unreachable,
    pools_lease,
)
from stratus.store.schema import hosts, pools
from stratus.store.volumes import (
    volumes_next_ms,
    volumes_reopen,
    volumes_set,
    volumes_undone,
)
from stratus.store.work import INSTANCE, work_wake

LEASE_MS: Final = 30 * SECOND_MS
LEASE_RENEW_MS: Final = 5 * SECOND_MS
LOOK_AGAIN_MS: Final = 30 * SECOND_MS
POOLS_MAX: Final = 1000
VOLUMES_LOOK_MAX: Final = 512  # undone volumes read at once
VOLUMES_TASK_MAX: Final = 16  # volumes that one task makes, one after the other
VOLUMES_UNDER_WAY_MAX: Final = 512
IMAGES_UNDER_WAY_MAX: Final = 4
IMAGE_FAILURES_MAX: Final = 8  # before an import is parked
PROBE_MS: Final = 30 * SECOND_MS
SWEEP_MS: Final = 10 * MINUTE_MS  # between two looks for what came back after its removal
INBOX_TURN_MAX: Final = 4096

Fetch = Callable[[ImageSpec, VolumeDriver, Callable[[int], None]], ImageFound]


class VolumeDone(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one volume."""

    facts: VolumeFacts
    failure: Problem | None = None


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What one task brought back from a pool."""

    pool: LeasedPool
    volumes: tuple[VolumeDone, ...] = ()
    image: ImageUndone | None = None
    image_found: ImageFound | None = None
    image_failure: Problem | None = None
    probed: PoolFacts | None = None
    inventory: tuple[VolumeId, ...] = ()  # where the pool was swept
    silent: Problem | None = None


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far the fetch of an image has come."""

    image_id: ImageId
    fetched_bytes: int


class PoolWorker:
    """Owns a set of pools for as long as it renews its leases."""

    def __init__(
        self,
        shop: Workshop,
        *,
        owner: str,
        connect: Callable[[LeasedPool], VolumeDriver],
        fetch: Fetch,
        executor: Executor,
    ) -> None:
        self._shop = shop
        self._owner = owner
        self._connect = connect
        self._fetch = fetch
        self._executor = executor
        self._inbox: SimpleQueue[Done | Progress] = SimpleQueue()
        self._mine: dict[PoolId, LeasedPool] = {}
        self._drivers: dict[PoolId, VolumeDriver] = {}
        self._probed_ms: dict[PoolId, int] = {}
        self._probing: set[PoolId] = set()
        self._swept_ms: dict[PoolId, int] = {}
        self._volumes: set[VolumeId] = set()
        self._images: set[ImageId] = set()
        self._lease_ms = 0

    def turn(self) -> int:
        """Do everything that can be done now; return how many things that was."""
        now_ms = self._shop.now_ms()
        self._lease(now_ms)
        messages = self._collect()
        if messages:
            self._shop.store.write(lambda c: self._write(c, messages, now_ms=now_ms))
            for topic in ("hosts", "work", "events"):
                self._shop.store.hints.send(topic)
        return len(messages) + self._look(now_ms)

    def next_ms(self) -> int:
        """Return when `turn` has something to do at the latest, unless woken before."""
        renew_ms = self._lease_ms + LEASE_RENEW_MS
        due_ms = self._shop.store.read(lambda c: rows_next_ms(c, pools, self._owner))
        return renew_ms if due_ms is None else min(renew_ms, due_ms)

    @property
    def busy(self) -> bool:
        """Something is under way whose result will come to the inbox."""
        return bool(self._probing or self._volumes or self._images) or not self._inbox.empty()

    def stop(self) -> None:
        """Give the leases back and let go of the pools."""
        self._shop.store.write(lambda c: leases_end(c, pools, self._owner))
        for driver in self._drivers.values():
            driver.close()
        self._drivers.clear()

    # -- leases -----------------------------------------------------------------------------

    def _lease(self, now_ms: int) -> None:
        if self._lease_ms and now_ms < self._lease_ms + LEASE_RENEW_MS:
            return
        leased = self._shop.store.write(
            lambda c: pools_lease(
                c, self._owner, now_ms=now_ms, lease_ms=LEASE_MS, pools_max=POOLS_MAX
            )
        )
        self._lease_ms = now_ms
        self._mine = {pool.id: pool for pool in leased}
        for pool_id in set(self._drivers) - set(self._mine):
            self._drivers.pop(pool_id).close()

    def _holds(self, pool: LeasedPool) -> bool:
        mine = self._mine.get(pool.id)
        return mine is not None and mine.token == pool.token and self._shop.now_ms() < mine.until_ms

    # -- looking ----------------------------------------------------------------------------

    def _look(self, now_ms: int) -> int:
        due = self._shop.store.read(
            lambda c: rows_due(c, pools, self._owner, now_ms=now_ms, rows_max=POOLS_MAX)
        )
        begun = 0
        sleeps: list[tuple[str, int, int]] = []
        for subject, poked in due:
            pool = self._mine.get(PoolId(subject))
            if pool is None:
                continue
            if now_ms - self._probed_ms.get(pool.id, -PROBE_MS) >= PROBE_MS:
                begun += self._probe(pool, now_ms)
            if pool.id not in self._drivers:
                sleeps.append((pool.id, poked, now_ms + SECOND_MS))
                continue
            begun += self._begin(pool, now_ms)
            sleeps.append((pool.id, poked, self._next_look_ms(pool, now_ms)))
        if sleeps:
            self._shop.store.write(lambda c: rows_sleep(c, pools, sleeps))
        return begun

    def _next_look_ms(self, pool: LeasedPool, now_ms: int) -> int:
        def retries(connection: Connection) -> int:
            later = (
                volumes_next_ms(connection, pool.id, now_ms=now_ms),
                images_next_ms(connection, pool.id, now_ms=now_ms),
            )
            return min([ms for ms in later if ms is not None], default=now_ms + LOOK_AGAIN_MS)

        return min(now_ms + LOOK_AGAIN_MS, self._shop.store.read(retries))

    def _begin(self, pool: LeasedPool, now_ms: int) -> int:
        """Begin what this pool should do and nobody does yet; return how many things."""

        def undone(connection: Connection) -> tuple[list[VolumeFacts], list[ImageUndone]]:
            return (
                volumes_undone(connection, pool.id, now_ms=now_ms, rows_max=VOLUMES_LOOK_MAX),
                images_undone(
                    connection, pool.id, now_ms=now_ms, rows_max=2 * IMAGES_UNDER_WAY_MAX
                ),
            )

        some, wanted_images = self._shop.store.read(undone)
        room = VOLUMES_UNDER_WAY_MAX - len(self._volumes)
        fresh = [facts for facts in some if facts.id not in self._volumes][: max(0, room)]
        for start in range(0, len(fresh), VOLUMES_TASK_MAX):
            batch = fresh[start : start + VOLUMES_TASK_MAX]
            self._volumes.update(facts.id for facts in batch)
            self._executor.submit(self._volumes_task(pool, batch))
        images = 0
        for image in wanted_images:
            if image.spec.id in self._images or len(self._images) >= IMAGES_UNDER_WAY_MAX:
                continue
            self._images.add(image.spec.id)
            images += 1
            self._executor.submit(self._image_task(pool, image))
        return len(fresh) + images

    # -- tasks ------------------------------------------------------------------------------

    def _probe(self, pool: LeasedPool, now_ms: int) -> int:
        if pool.id in self._probing:
            return 0
        self._probing.add(pool.id)
        sweep = now_ms - self._swept_ms.get(pool.id, -SWEEP_MS) >= SWEEP_MS

        def probe() -> None:
            try:
                driver = self._drivers.get(pool.id) or self._connect(pool)
                facts = driver.probe()
                found = driver.inventory()[0] if sweep else ()
                self._drivers[pool.id] = driver
                done = Done(pool=pool, probed=facts, inventory=tuple(one.id for one in found))
            except (EngineUnreachable, DriverFailed) as error:
                done = Done(pool=pool, silent=error.problem)
            except Exception as error:  # the loop must learn of it, whatever it is
                done = Done(pool=pool, silent=self._shop.bug(error, f"probing {pool.name}"))
            self._put(done)

        self._executor.submit(probe)
        return 1

    def _volumes_task(self, pool: LeasedPool, batch: Sequence[VolumeFacts]) -> Callable[[], None]:
        driver = self._drivers[pool.id]

        def make() -> None:
            done = [self._volume_do(pool, driver, facts) for facts in batch]
            self._put(Done(pool=pool, volumes=tuple(done)))

        return make

    def _volume_do(self, pool: LeasedPool, driver: VolumeDriver, facts: VolumeFacts) -> VolumeDone:
        spec = VolumeSpec(id=facts.id, source=facts.source, size_bytes=facts.size_bytes)
        try:
            if not self._holds(pool):
                return VolumeDone(facts=facts, failure=_LAPSED)
            if facts.wanted:
                driver.ensure_volume(spec)
            else:
                driver.ensure_volume_absent(facts.id)
        except (EngineUnreachable, DriverFailed) as error:
            return VolumeDone(facts=facts, failure=error.problem)
        except Exception as error:  # one volume's fault must not end the worker
            return VolumeDone(facts=facts, failure=self._shop.bug(error, f"making {facts.id}"))
        return VolumeDone(facts=facts)

    def _image_task(self, pool: LeasedPool, image: ImageUndone) -> Callable[[], None]:
        driver = self._drivers[pool.id]

        def progress(fetched_bytes: int) -> None:
            self._inbox.put(Progress(image_id=image.spec.id, fetched_bytes=fetched_bytes))
            self._shop.store.hints.send("pools")

        def make() -> None:
            found = None
            failure = None
            try:
                if not image.wanted:
                    driver.ensure_image_absent(image.spec.id)
                else:
                    found = self._fetch(image.spec, driver, progress)
            except (EngineUnreachable, DriverFailed) as error:
                failure = error.problem
            except Exception as error:  # one image's fault must not end the worker
                failure = self._shop.bug(error, f"importing {image.spec.id}")
            self._put(Done(pool=pool, image=image, image_found=found, image_failure=failure))

        return make

    def _put(self, done: Done) -> None:
        self._inbox.put(done)
        self._shop.store.hints.send("pools")

    # -- what came back ---------------------------------------------------------------------

    def _collect(self) -> list[Done | Progress]:
        messages: list[Done | Progress] = []
        try:
            while len(messages) < INBOX_TURN_MAX:
                message = self._inbox.get_nowait()
                messages.append(message)
                if isinstance(message, Progress):
                    continue
                if message.probed is not None or message.silent is not None:
                    self._probing.discard(message.pool.id)
                    self._probed_ms[message.pool.id] = self._shop.now_ms()
                if message.inventory:
                    self._swept_ms[message.pool.id] = self._shop.now_ms()
                self._volumes.difference_update(done.facts.id for done in message.volumes)
                if message.image is not None:
                    self._images.discard(message.image.spec.id)
        except Empty:
            pass
        return messages

    def _write(
        self, connection: Connection, messages: Sequence[Done | Progress], *, now_ms: int
    ) -> None:
        done = [message for message in messages if isinstance(message, Done)]
        held = leases_still_held(
            connection, pools, {message.pool.id: message.pool.token for message in done}
        )
        for message in messages:
            if isinstance(message, Progress):
                image_progress(connection, message.image_id, message.fetched_bytes)
            elif message.pool.id in held:
                if message.probed is not None or message.silent is not None:
                    self._write_probe(connection, message, now_ms=now_ms)
                if message.image is not None:
                    self._write_image(connection, message, message.image, now_ms=now_ms)
        kept = [message for message in done if message.pool.id in held]
        self._write_volumes(
            connection, [v for message in kept for v in message.volumes], now_ms=now_ms
        )
        rows_wake(connection, pools, {message.pool.id for message in kept}, wake_ms=now_ms)

    def _write_probe(self, connection: Connection, message: Done, *, now_ms: int) -> None:
        pool = message.pool
        if message.silent is None:
            pool_seen(connection, pool.id, now_ms=now_ms, facts=message.probed)
            volumes_reopen(connection, message.inventory)
            return
        if pool_unreachable(connection, pool.id, now_ms=now_ms, problem=message.silent):
            self._event(
                connection, "pool.unreachable", pool.id, now_ms, detail=message.silent.detail
            )

    def _write_volumes(
        self, connection: Connection, made: Sequence[VolumeDone], *, now_ms: int
    ) -> None:
        changes: list[tuple[VolumeId, int, dict[str, Any]]] = []
        for done in made:
            facts = done.facts
            values: dict[str, Any]
            if done.failure is not None:
                values = {
                    "failures": facts.failures + 1,
                    "failure": problem_text(done.failure),
                    "retry_ms": now_ms + retry_delay_ms(facts.failures + 1),
                }
            elif facts.wanted:
                values = {"presence": "ready", "failures": 0, "failure": "", "retry_ms": 0}
            else:
                values = {"presence": "absent", "gone_ms": now_ms, "failures": 0, "failure": ""}
            changes.append((facts.id, facts.version, values))
        volumes_set(connection, changes)
        owners = {done.facts.instance_id for done in made if done.facts.instance_id is not None}
        work_wake(connection, INSTANCE, owners, wake_ms=now_ms)
        ready = {
            done.facts.instance_id
            for done in made
            if done.facts.instance_id is not None and done.facts.wanted and done.failure is None
        }
        rows_wake(connection, hosts, hosts_of_instances(connection, ready), wake_ms=now_ms)

    def _write_image(
        self, connection: Connection, message: Done, image: ImageUndone, *, now_ms: int
    ) -> None:
        image_id = image.spec.id
        if message.image_failure is not None:
            self._write_image_failure(connection, image, message.image_failure, now_ms=now_ms)
            return
        if message.image_found is None:
            if image_set(
                connection,
                image_id,
                {"presence": "absent", "gone_ms": now_ms, "failure": ""},
                version=image.version,
            ):
                self._event(connection, "image.removed", image_id, now_ms)
            return
        found = message.image_found
        values = {
            "presence": "ready",
            "format": found.format.value,
            "size_bytes": found.digests.size_bytes,
            "virtual_bytes": found.virtual_bytes,
            "sha256": found.digests.sha256,
            "sha1": found.digests.sha1,
            "identifier": identifier_of(found.digests.sha1),
            "fetched_bytes": found.digests.size_bytes,
            "failures": 0,
            "failure": "",
            "retry_ms": 0,
        }
        if image_set(connection, image_id, values, version=image.version):
            self._event(connection, "image.ready", image_id, now_ms, sha256=found.digests.sha256)

    def _write_image_failure(
        self, connection: Connection, image: ImageUndone, failure: Problem, *, now_ms: int
    ) -> None:
        failures = image.failures + 1
        final = failure.kind in (Kind.INVALID, Kind.TOO_LARGE) or failures >= IMAGE_FAILURES_MAX
        values = {
            "failures": failures,
            "failure": problem_text(failure),
            "retry_ms": now_ms + retry_delay_ms(failures),
            "parked": problem_text(failure) if final and image.wanted else "",
        }
        if image_set(connection, image.spec.id, values, version=image.version):
            self._event(connection, "image.failed", image.spec.id, now_ms, detail=failure.detail)

    def _event(
        self, connection: Connection, kind: str, subject: str, now_ms: int, **data: str
    ) -> None:
        event_append(
            connection,
            now_ms=now_ms,
            kind=kind,
            subject=subject,
            project_id=None,
            actor="pool worker",
            request_id="",
            data=dict(data),
        )


_LAPSED: Final = Problem(
    code="volume_failed",
    detail="The lease on the pool ended before this was done.",
    remedy="Nothing is needed: whoever holds the pool now goes on.",
)
