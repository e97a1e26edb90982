"""Do several replicas of every role, over one PostgreSQL, do everything exactly once?"""

import hashlib
import time
from collections import Counter
from pathlib import Path

import pytest

from stratus.control.hosts import HostWish, host_add
from stratus.control.images import (
    ImageWish,
    endorsement_add,
    image_import,
    image_show,
    image_uploaded,
)
from stratus.control.instances import instance_delete, instance_page, instances_create
from stratus.control.login import actor_by_token
from stratus.control.networks import NetworkWish, network_add
from stratus.control.pools import pool_add
from stratus.control.site import site_init
from stratus.control.trust import key_add
from stratus.control.world import Origin
from stratus.images.endorse import endorsement_make
from stratus.images.keys import key_file_make, public_key_pem
from stratus.model.ids import ProjectId
from stratus.model.image import Digests, ImageFormat
from stratus.model.instance import InstanceCreate, InstanceFacts, Phase, phase_of
from stratus.model.tenancy import Actor, Quota
from stratus.model.units import DAY_MS
from stratus.site.cloud import Cloud, RoleName, now_ms
from stratus.site.config import Home, SiteConfig
from stratus.store.events import CURSOR_BEGIN, event_page

HOSTS = 6
INSTANCES = 40
SECONDS_MAX = 60
ORIGIN = Origin(request_id="req-replicas")
IMAGE_BYTES = bytes(1 << 20)
NO_CEILINGS = Quota(instances=-1, vcpus=-1, memory_mib=-1, volumes=-1, volume_gib=-1, addresses=-1)

pytestmark = [pytest.mark.postgres, pytest.mark.slow]


def cloud_make(home: Home, url: str, *roles: RoleName) -> Cloud:
    return Cloud(home, SiteConfig(name="replicas", store=url, host_uri=""), roles)


def image_ready(cloud: Cloud, admin: Actor, home: Home) -> str:
    wish = ImageWish(project="default", name="small", format=ImageFormat.RAW)
    image = image_import(cloud.world, admin, wish, origin=ORIGIN)
    store = cloud._outside().upload_store
    store.append(image.id, 0, [IMAGE_BYTES])
    image_uploaded(cloud.world, admin, image.id, size_bytes=len(IMAGE_BYTES), origin=ORIGIN)
    deadline = time.monotonic() + SECONDS_MAX
    while not (found := image_show(cloud.world, admin, image.id)).sha256:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    key = key_file_make(home.state / "key.pem")
    key_add(
        cloud.world, admin, pem=public_key_pem(key.public_key()), email="a@b.org", origin=ORIGIN
    )
    document = endorsement_make(
        Digests(size_bytes=found.size_bytes, sha256=found.sha256, sha1=found.sha1),
        format=ImageFormat.RAW,
        email="a@b.org",
        key=key,
        created_ms=now_ms(),
        valid_ms=now_ms() + DAY_MS,
    )
    endorsement_add(cloud.world, admin, image.id, document, origin=ORIGIN)
    assert hashlib.sha256(IMAGE_BYTES).hexdigest() == found.sha256
    return image.id


def phases(cloud: Cloud, admin: Actor) -> Counter[Phase]:
    page = instance_page(
        cloud.world, admin, project_id=None, all_projects=True, rows_max=INSTANCES + 1
    )
    return Counter(phase_of(facts) for facts in page.items)


def until(cloud: Cloud, admin: Actor, wanted: Counter[Phase]) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while (found := phases(cloud, admin)) != wanted:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_two_of_each_role_start_and_delete_everything_exactly_once(
    postgres_url: str, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    home.ensure()
    clouds = [cloud_make(home, postgres_url, RoleName.CONTROL, RoleName.HOSTS) for _ in range(2)]
    first = clouds[0]
    try:
        secrets = site_init(first.world, name="replicas", quota=NO_CEILINGS, origin=ORIGIN)
        assert secrets is not None
        admin = actor_by_token(first.world, secrets.token)
        pool_add(first.world, admin, name="files", location=str(home.pool), origin=ORIGIN)
        network = NetworkWish(name="wide", ipv4_cidr="10.60.0.0/16")
        network_add(first.world, admin, network, origin=ORIGIN)
        for number in range(HOSTS):
            host = HostWish(
                name=f"host-{number}",
                uri=f"fake://host-{number}",
                cpu_ratio=8.0,
                pools=("files",),
            )
            host_add(first.world, admin, host, origin=ORIGIN)
        for cloud in clouds:
            cloud.start()
        image = image_ready(first, admin, home)
        wish = InstanceCreate(
            project_id=ProjectId("default"), image=image, type="t1.micro", count=20, swap_mib=0
        )
        made: list[InstanceFacts] = []
        for cloud in clouds:
            made.extend(instances_create(cloud.world, admin, wish, origin=ORIGIN)[1])
        assert len(made) == INSTANCES
        assert len({nic.ipv4 for facts in made for nic in facts.nics}) == INSTANCES
        until(first, admin, Counter({Phase.RUNNING: INSTANCES}))
        for number, facts in enumerate(made):
            instance_delete(clouds[number % 2].world, admin, facts.id, origin=ORIGIN)
        until(first, admin, Counter())
        events = first.store.read(
            lambda c: event_page(c, after=CURSOR_BEGIN, rows_max=1000, project_ids=None)
        )
        placed = Counter(e.subject for e in events.items if e.kind == "instance.placed")
        gone = Counter(e.subject for e in events.items if e.kind == "instance.deleted")
        assert set(placed.values()) == set(gone.values()) == {1}
        assert len(placed) == len(gone) == INSTANCES
        assert not list((home.pool / "volumes").glob("*.qcow2"))
    finally:
        for cloud in clouds:
            cloud.stop()
