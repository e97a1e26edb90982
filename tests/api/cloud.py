"""A cloud without hosts for the tests of the door: real commands on a real SQLite file."""

import hashlib
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from stratus.api.app import Api, app_make
from stratus.api.endpoint import Figure
from stratus.api.server import ApiServer, server_make
from stratus.api.settings import ApiSettings
from stratus.control.images import endorsement_add, image_show
from stratus.control.login import actor_by_token
from stratus.control.networks import NetworkWish, network_add
from stratus.control.pools import pool_add
from stratus.control.site import FirstSecrets, site_init
from stratus.control.trust import key_add, policy_put
from stratus.control.world import Origin, World
from stratus.images.endorse import endorsement_make
from stratus.images.keys import public_key_pem
from stratus.model.ids import ImageId, InstanceId, ProjectId, UserId
from stratus.model.image import Digests, ImageFacts, ImageFormat, Visibility
from stratus.model.instance import InstanceFacts
from stratus.model.problem import refuse
from stratus.model.tenancy import Actor, Quota
from stratus.model.trust import Policy, Rule, RuleAction
from stratus.model.units import DAY_MS, MIB
from stratus.model.volume import Presence
from stratus.store.engine import store_open
from stratus.store.events import EventDraft, event_append_many
from stratus.store.images import image_create
from stratus.store.instances import instances_set
from stratus.wire.v1 import ReadyPart

POLICY = Policy(rules=(Rule(action=RuleAction.ALLOW),))
ORIGIN = Origin(request_id="req-test")


class MemoryUploads:
    """Collects uploads in memory, as the pool's directory does on disk."""

    def __init__(self) -> None:
        self.bytes: dict[str, bytearray] = {}

    def size(self, image_id: str) -> int:
        """Return how many bytes are there."""
        return len(self.bytes.get(image_id, b""))

    def append(self, image_id: str, offset: int, data: bytes) -> int:
        """Add bytes at the end."""
        have = self.bytes.setdefault(image_id, bytearray())
        if offset != len(have):
            raise refuse(
                "conflict", f"The upload stands at {len(have)}.", remedy="Go on from there."
            )
        have += data
        return len(have)


class Consoles(dict[str, bytes]):
    """What guests printed; reading it lasts as long as `hold` is not set."""

    hold: threading.Event | None = None

    def tail(self, facts: InstanceFacts, bytes_max: int) -> bytes:
        """Return the end of what this guest printed."""
        if self.hold is not None:
            self.hold.wait(30)
        return self.get(facts.id, b"")[-bytes_max:]


@dataclass
class Cloud:
    """A site with one administrator, one network, one pool, one image; and its door."""

    world: World
    secrets: FirstSecrets
    project_id: ProjectId
    api: Api
    uploads: MemoryUploads
    consoles: Consoles
    parts: list[ReadyPart]
    server: ApiServer | None = None
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where the door is on the network."""
        assert self.server is not None
        return self.server.addresses[0]

    def client(self, token: str | None = "", **more: Any) -> httpx.Client:  # noqa: ANN401  # httpx's
        """Return a client of the administrator, of another token, or of nobody (None)."""
        headers = (
            {} if token is None else {"Authorization": f"Bearer {token or self.secrets.token}"}
        )
        headers |= more.pop("headers", {})
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, **more)

    def instances_set(self, ids: Sequence[str], **columns: object) -> None:
        """Play host worker: change what was seen of these, and tell of it."""
        drafts = [
            EventDraft(kind="instance.observed", subject=id_, project_id=self.project_id)
            for id_ in ids
        ]

        def seen(connection: Any) -> None:  # noqa: ANN401  # SQL's
            instances_set(connection, [(InstanceId(id_), columns) for id_ in ids])
            event_append_many(connection, drafts, now_ms=self.world.now_ms())

        self.world.store.write(seen)
        self.world.store.hints.send("events")

    def runs(self, *ids: str) -> None:
        """Let these instances be seen running."""
        self.instances_set(
            ids,
            host_id="hst-0000000000000001",
            generation=1,
            observed="running",
            observed_generation=1,
            observed_run=1,
        )


def world_make(url: str) -> World:
    """Return a world on the store at this address."""
    return World(
        store=store_open(url),
        now_ms=lambda: time.time_ns() // 1_000_000,
        chance=secrets.randbits,
    )


@contextmanager
def cloud_open(
    directory: Path, *, settings: ApiSettings | None = None, serve: bool = True, url: str = ""
) -> Iterator[Cloud]:
    """Set a site up and serve it, until the end of the block."""
    world = world_make(url or f"sqlite:///{directory / 'store.db'}")
    try:
        cloud = _set_up(world, settings or ApiSettings(address_rate=10_000, address_burst=10_000))
        if serve:
            cloud.server = server_make(cloud.api, host="127.0.0.1")
            cloud.server.start()
        try:
            yield cloud
        finally:
            if cloud.server is not None:
                cloud.server.stop()
    finally:
        world.store.close()


def _set_up(world: World, settings: ApiSettings) -> Cloud:
    first = site_init(
        world,
        name="Test",
        quota=Quota(instances=-1, vcpus=-1, memory_mib=-1, volumes=-1, volume_gib=-1, addresses=-1),
        origin=ORIGIN,
    )
    assert first is not None
    actor = actor_by_token(world, first.token)
    (project_id,) = actor.roles
    network_add(world, actor, NetworkWish(name="public", ipv4_cidr="10.0.0.0/8"), origin=ORIGIN)
    pool = pool_add(world, actor, name="main", location="/srv/pool", origin=ORIGIN)
    policy_put(world, actor, POLICY, origin=ORIGIN)
    key = Ed25519PrivateKey.generate()
    key_add(world, actor, pem=public_key_pem(key.public_key()), origin=ORIGIN)
    image = image_ready(world, project_id, actor.user_id, pool_id=pool.id)
    endorse(world, actor, image, key)
    uploads, consoles = MemoryUploads(), Consoles()
    parts = [ReadyPart(name="hosts", ready=True)]

    api = app_make(
        world,
        console=consoles.tail,
        uploads=uploads,
        ready=lambda: tuple(parts),
        settings=settings,
        figures=lambda: [Figure(name="stratus_hosts", help="Hosts", value=0.0)],
    )
    return Cloud(
        world=world,
        secrets=first,
        project_id=project_id,
        api=api,
        uploads=uploads,
        consoles=consoles,
        parts=parts,
    )


def image_ready(
    world: World, project_id: ProjectId, user_id: UserId, *, pool_id: str, name: str = "tiny"
) -> ImageId:
    """Leave an image of this name as if a pool had fetched it."""
    image_id = ImageId(world.id_new("image"))
    digest = hashlib.sha256(image_id.encode()).hexdigest()
    facts = ImageFacts(
        id=image_id,
        project_id=project_id,
        user_id=user_id,
        name=name,
        title="",
        source="",
        format=ImageFormat.QCOW2,
        visibility=Visibility.PUBLIC,
        wanted=True,
        created_ms=world.now_ms(),
        version=1,
        size_bytes=MIB,
        virtual_bytes=32 * MIB,
        sha256=digest,
        sha1=digest[:40],
        presence=Presence.READY,
    )
    world.store.write(lambda connection: image_create(connection, facts, pool_id=pool_id))
    return image_id


def endorse(world: World, actor: Actor, image_id: ImageId, key: Ed25519PrivateKey) -> None:
    """Have the image endorsed by a key that the site knows."""
    facts = image_show(world, actor, image_id)
    now_ms = world.now_ms()
    document = endorsement_make(
        Digests(size_bytes=facts.size_bytes, sha256=facts.sha256, sha1=facts.sha1),
        format=facts.format,
        email="ana@example.org",
        key=key,
        created_ms=now_ms,
        valid_ms=now_ms + DAY_MS,
    )
    endorsement_add(world, actor, image_id, document, origin=ORIGIN)
