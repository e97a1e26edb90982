"""What do we know of the whole site? A few named values as JSON."""

from typing import Final, TypeVar

from sqlalchemy import Connection, bindparam, select

from stratus.store.json import json_text, json_value
from stratus.store.schema import site
from stratus.store.upsert import upsert

T = TypeVar("T")

EPOCH: Final = "epoch"  # raised by every restore: what was observed before is void
RESTORED_MS: Final = "restored_ms"  # when the present epoch began
EVENT_BASE: Final = "event_base"  # added to transaction ids, see stratus.store.events
POLICY: Final = "policy"  # which endorsements the site trusts

_GET: Final = select(site.c.value).where(site.c.key == bindparam("key"))


def site_get(connection: Connection, key: str, kind: type[T]) -> T | None:
    """Return the value of this key as that kind, or None where nobody has set it."""
    text = connection.execute(_GET, {"key": key}).scalar_one_or_none()
    return None if text is None else json_value(kind, text)


def site_set(connection: Connection, key: str, value: object) -> None:
    """Leave this value under the key."""
    assert value is not None, "remove a key instead of setting it to nothing"
    insert = upsert(connection, site)
    connection.execute(
        insert.on_conflict_do_update(index_elements=["key"], set_={"value": insert.excluded.value}),
        {"key": key, "value": json_text(value)},
    )


def site_epoch(connection: Connection) -> int:
    """Count the restores that this store has lived through."""
    return site_get(connection, EPOCH, int) or 0


def site_restored_ms(connection: Connection) -> int:
    """Return when the store was last restored; 0 = never. What it knew before may be outdated."""
    return site_get(connection, RESTORED_MS, int) or 0


def site_epoch_raise(connection: Connection) -> int:
    """Begin a new epoch, in which every host is looked at before anything is started."""
    epoch = site_epoch(connection) + 1
    site_set(connection, EPOCH, epoch)
    return epoch


def policy_get(connection: Connection) -> str | None:
    """Return the site's trust policy as it was given, or None where there is none yet."""
    return site_get(connection, POLICY, str)


def policy_set(connection: Connection, text: str) -> None:
    """Leave this text as the site's trust policy."""
    site_set(connection, POLICY, text)
