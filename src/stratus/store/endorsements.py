"""Who vouches for which bytes? Signed documents as received, never changed."""

from typing import Final

import msgspec
from sqlalchemy import Connection, bindparam, select

from stratus.store.schema import endorsements
from stratus.store.upsert import upsert

ENDORSEMENTS_MAX: Final = 1000  # considered for one image, the newest first


class Endorsement(msgspec.Struct, frozen=True, kw_only=True):
    """One signed document; `sha256` is its own digest."""

    sha256: str
    image_sha256: str
    document: bytes
    received_ms: int


_OF_IMAGE: Final = (
    select(
        endorsements.c.sha256,
        endorsements.c.image_sha256,
        endorsements.c.document,
        endorsements.c.received_ms,
    )
    .where(endorsements.c.image_sha256 == bindparam("image_sha256"))
    .order_by(endorsements.c.received_ms.desc(), endorsements.c.sha256)
    .limit(ENDORSEMENTS_MAX)
)


def endorsement_ensure(connection: Connection, endorsement: Endorsement) -> bool:
    """Leave the document in the store; tell whether it is new. What is there stays as it is."""
    insert = upsert(connection, endorsements).on_conflict_do_nothing()
    return connection.execute(insert, msgspec.structs.asdict(endorsement)).rowcount == 1


def endorsement_list(connection: Connection, image_sha256: str) -> tuple[Endorsement, ...]:
    """Return what was said about these bytes, the newest first."""
    rows = connection.execute(_OF_IMAGE, {"image_sha256": image_sha256})
    return tuple(Endorsement(**row._mapping) for row in rows)
