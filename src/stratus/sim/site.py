"""What has every simulated site in common? Set up once with real commands, then copied."""

from functools import cache
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from stratus.control.images import ImageWish, endorsement_add, image_import, image_show
from stratus.control.login import actor_by_token
from stratus.control.networks import NetworkWish, network_add
from stratus.control.pools import pool_add
from stratus.control.site import FIRST_PROJECT, site_init
from stratus.control.tenancy import projects_show
from stratus.control.trust import key_add
from stratus.control.world import Origin, World
from stratus.drivers.volume.contract import ImageFound
from stratus.images.endorse import endorsement_make
from stratus.images.keys import public_key_pem
from stratus.model.ids import NetworkId, ProjectId
from stratus.model.image import Digests, ImageFormat
from stratus.model.tenancy import Actor, Quota
from stratus.model.units import DAY_MS, MINUTE_MS
from stratus.model.volume import Presence
from stratus.sim.broken import Broken
from stratus.sim.timeline import BEGIN_MS

ORIGIN: Final = Origin(request_id="req-sim")
IMAGE: Final = "base"
IMAGE_URL: Final = "https://images.example.org/base.raw"
KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
EMAIL: Final = "endorser@example.org"
QUOTA: Final = Quota(
    instances=40, vcpus=80, memory_mib=160 * 1024, volumes=160, volume_gib=2000, addresses=48
)


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """A site that was just set up: its store, what its pool holds, and who administers it."""

    store: bytes
    image: ImageFound
    admin: Actor
    project_id: ProjectId
    network_id: NetworkId
    ready_ms: int


@cache
def site() -> Site:
    """Return the site, made at the first call."""
    from stratus.sim.cloud import Cloud  # the cloud is what is being set up

    cloud = Cloud(0, site=None)
    world = cloud.process_start().world
    secrets = site_init(world, name="Simulated", quota=QUOTA, origin=ORIGIN)
    assert secrets is not None
    admin = actor_by_token(world, secrets.token)
    network = network_add(
        world,
        admin,
        NetworkWish(name="public", driver="fake", ipv4_cidr="10.9.0.0/26", ipv6_cidr="fd09::/64"),
        origin=ORIGIN,
    )
    pool_add(world, admin, name="pool", driver="fake", location="pool", origin=ORIGIN)
    key_add(world, admin, pem=public_key_pem(KEY.public_key()), email=EMAIL, origin=ORIGIN)
    image_import(
        world,
        admin,
        ImageWish(project=FIRST_PROJECT, name=IMAGE, source=IMAGE_URL, format=ImageFormat.RAW),
        origin=ORIGIN,
    )
    cloud.run_for(5 * MINUTE_MS)
    image = image_show(world, admin, IMAGE)
    if image.presence is not Presence.READY:
        raise Broken(f"the first image never became ready: {image.failure}")
    image_endorse(world, admin, IMAGE)
    published = cloud.outside.pool.image(image.id)
    assert published is not None
    for process in tuple(cloud.processes):
        process.hosts.stop()
        process.pools.stop()
        cloud.process_end(process)
    return Site(
        store=cloud.store.backup(),
        image=published,
        admin=admin,
        project_id=projects_show(world, admin, FIRST_PROJECT).id,
        network_id=network.spec.id,
        ready_ms=cloud.timeline.now_ms,
    )


def image_endorse(world: World, admin: Actor, ref: str) -> None:
    """Vouch for an image that is ready, with the one key that the site knows."""
    image = image_show(world, admin, ref)
    document = endorsement_make(
        Digests(size_bytes=image.size_bytes, sha256=image.sha256, sha1=image.sha1),
        format=image.format,
        email=EMAIL,
        key=KEY,
        created_ms=BEGIN_MS,
        valid_ms=BEGIN_MS + 365 * DAY_MS,
    )
    endorsement_add(world, admin, ref, document, origin=ORIGIN)
