"""How do images of our own come about on this machine? Built, and endorsed with a local key."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from stratus.cli.client import Client
from stratus.cli.settings import Place
from stratus.drivers.appliance.failure import ApplianceFailed
from stratus.drivers.appliance.tiny import ApplianceBuilt, tiny_build
from stratus.images.endorse import endorsement_make
from stratus.images.keys import fingerprint_of, key_file_load, key_file_make, public_key_pem
from stratus.model.image import Digests
from stratus.model.problem import refuse
from stratus.model.units import DAY_MS
from stratus.site.config import Home
from stratus.site.setup import admin_read
from stratus.wire.v1 import ImageView, KeyAdd, KeyView

TINY: Final = "tiny"
ENDORSEMENT_TYPE: Final = "application/vnd.dsse.envelope.v1+json"


def appliance_build(
    kind: str, target: Path, home: Home, progress: Callable[[str], None]
) -> ApplianceBuilt:
    """Build the appliance of this kind; packages are fetched once and kept in the site's cache."""
    if kind != TINY:
        raise refuse(
            "invalid_field",
            f"There is no appliance {kind!r}.",
            remedy=f"Build the one there is: stratus image build {TINY} FILE.",
        )
    cache = home.cache / "appliance"
    cache.mkdir(parents=True, exist_ok=True)
    try:
        return tiny_build(target, cache=cache, progress=progress)
    except ApplianceFailed as failed:
        raise refuse("machine_unfit", failed.title, remedy=failed.remedy) from failed


def client_of(home: Home) -> Client:
    """Return a client that acts as the first administrator of the site on this machine."""
    admin = admin_read(home)
    return Client(Place(endpoint=admin.endpoint, token=admin.token, project=admin.project))


def image_endorse(ref: str, key_path: Path, email: str, days: int, home: Home) -> str:
    """Endorse an image of this site with the key in the file, made where there is none.

    The site learns the key, so that its policy may trust it. Returns the key's fingerprint.
    """
    key = key_file_load(key_path) if key_path.exists() else key_file_make(key_path)
    client = client_of(home)
    image = client.get(f"/v1/images/{ref}", ImageView)
    now_ms = time.time_ns() // 1_000_000
    document = endorsement_make(
        Digests(size_bytes=image.size_bytes, sha256=image.sha256, sha1=image.sha1),
        format=image.format,
        email=email,
        key=key,
        created_ms=now_ms,
        valid_ms=now_ms + days * DAY_MS,
    )
    public = key.public_key()
    fingerprint = fingerprint_of(public)
    known = {each.fingerprint for each in client.items("/v1/keys", KeyView)}
    if fingerprint not in known:
        client.call("POST", "/v1/keys", body=KeyAdd(pem=public_key_pem(public), email=email))
    client.call(
        "POST",
        f"/v1/images/{image.id}/endorsements",
        body=document,
        headers={"Content-Type": ENDORSEMENT_TYPE},
    )
    return fingerprint
