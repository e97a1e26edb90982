"""Is the store whole, and do its rows agree with one another?"""

from functools import partial
from typing import Final

import msgspec
from sqlalchemy import Connection, text

from stratus.model.problem import Refused
from stratus.store.engine import Store, store_open
from stratus.store.migrate import revision_of, revisions_known

SUBJECTS_MAX: Final = 20  # named in one finding
INTEGRITY_LINES_MAX: Final = 20


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as it must be, and what to do about it."""

    name: str
    detail: str
    remedy: str
    subjects: tuple[str, ...] = ()


class Invariant(msgspec.Struct, frozen=True):
    """What must hold of the rows: a query for the ids of those that break it."""

    name: str
    detail: str
    remedy: str
    query: str


_REPORT: Final = "This is a fault of ours: keep a backup of the store and report it."

INVARIANTS: Final = (
    Invariant(
        "address_leased_twice",
        "An IPv4 address has two holders at once.",
        "Delete one of the instances that hold it. " + _REPORT,
        "SELECT min(id) FROM leases WHERE released_ms = 0 AND ipv4 <> ''"
        " GROUP BY network_id, ipv4 HAVING count(*) > 1",
    ),
    Invariant(
        "address6_leased_twice",
        "An IPv6 address has two holders at once.",
        "Delete one of the instances that hold it. " + _REPORT,
        "SELECT min(id) FROM leases WHERE released_ms = 0 AND ipv6 <> ''"
        " GROUP BY network_id, ipv6 HAVING count(*) > 1",
    ),
    Invariant(
        "card_leased_twice",
        "Two network cards have one MAC address.",
        "Delete one of the instances that hold it. " + _REPORT,
        "SELECT min(id) FROM leases WHERE released_ms = 0 GROUP BY mac HAVING count(*) > 1",
    ),
    Invariant(
        "lease_without_holder",
        "An address is leased to an instance that is gone.",
        "The address stays unused until the lease is closed. " + _REPORT,
        "SELECT leases.id FROM leases LEFT JOIN instances ON instances.id = leases.instance_id"
        " WHERE leases.released_ms = 0 AND (instances.id IS NULL OR instances.gone_ms <> 0)",
    ),
    Invariant(
        "placed_without_generation",
        "An instance has a host but was never placed.",
        _REPORT,
        "SELECT id FROM instances WHERE host_id IS NOT NULL AND generation <= 0",
    ),
    Invariant(
        "placed_nowhere",
        "An instance is placed on a host that does not exist.",
        "Stop the instance with release, or delete it. " + _REPORT,
        "SELECT instances.id FROM instances LEFT JOIN hosts ON hosts.id = instances.host_id"
        " WHERE instances.host_id IS NOT NULL AND instances.gone_ms = 0"
        " AND (hosts.id IS NULL OR hosts.gone_ms <> 0)",
    ),
    Invariant(
        "gone_but_placed",
        "An instance that is gone still occupies a host.",
        _REPORT,
        "SELECT id FROM instances WHERE gone_ms <> 0 AND host_id IS NOT NULL",
    ),
    Invariant(
        "observed_ahead",
        "A host reported a placement of an instance that was never made.",
        "The store may be older than the world: was a backup restored by hand? " + _REPORT,
        "SELECT id FROM instances WHERE observed_generation > generation",
    ),
    Invariant(
        "volume_outlives_instance",
        "A volume is wanted although its instance is gone.",
        "It uses space until it is deleted. " + _REPORT,
        "SELECT volumes.id FROM volumes"
        " LEFT JOIN instances ON instances.id = volumes.instance_id"
        " WHERE volumes.instance_id IS NOT NULL AND volumes.kind <> 'persistent'"
        " AND volumes.wanted AND volumes.gone_ms = 0"
        " AND (instances.id IS NULL OR instances.gone_ms <> 0)",
    ),
    Invariant(
        "volume_without_parent",
        "A volume stands on an image that is gone.",
        "Its disk can no longer be opened; delete the instance. " + _REPORT,
        "SELECT volumes.id FROM volumes LEFT JOIN images ON images.id = volumes.image_id"
        " WHERE volumes.image_id IS NOT NULL AND volumes.gone_ms = 0"
        " AND (images.id IS NULL OR images.gone_ms <> 0)",
    ),
    Invariant(
        "nobody_administers",
        "There are users, but no enabled administrator among them.",
        "Make one on the machine of the control plane: stratus user add --admin.",
        "SELECT min(id) FROM users HAVING count(*) > 0"
        " AND sum(CASE WHEN admin AND NOT disabled THEN 1 ELSE 0 END) = 0",
    ),
)


def store_check(url: str) -> tuple[Finding, ...]:
    """Say everything that is wrong with the store; nothing means it is whole.

    The control plane may go on working meanwhile.
    """
    try:
        store = store_open(url, exclusive=False, migrate=False, checked=False)
    except Refused as error:
        return (_finding_of(error),)
    try:
        return _checked(store)
    except Refused as error:
        return (_finding_of(error),)
    finally:
        store.close()


def _checked(store: Store) -> tuple[Finding, ...]:
    findings = list(store.read(_engine_check))
    known = revisions_known()
    revision = store.read(revision_of)
    if revision != known[-1]:
        newer = revision and revision not in known
        remedy = "Start the program that wrote it." if newer else "Run stratus db migrate."
        detail = f"The schema is {revision or 'empty'}; this program needs {known[-1]}."
        findings.append(Finding(name="schema_differs", detail=detail, remedy=remedy))
        return tuple(findings)
    for invariant in INVARIANTS:
        findings.extend(store.read(partial(_broken, invariant)))
    return tuple(findings)


def _finding_of(error: Refused) -> Finding:
    problem = error.problem
    return Finding(name=problem.code, detail=problem.detail, remedy=problem.remedy)


def _broken(invariant: Invariant, connection: Connection) -> list[Finding]:
    query = text(f"{invariant.query} LIMIT {SUBJECTS_MAX}")
    subjects = tuple(str(row[0]) for row in connection.execute(query))
    if not subjects:
        return []
    return [
        Finding(
            name=invariant.name,
            detail=invariant.detail,
            remedy=invariant.remedy,
            subjects=subjects,
        )
    ]


def _engine_check(connection: Connection) -> list[Finding]:
    if connection.dialect.name == "postgresql":
        return _indexes_check(connection)
    restore = "Stop the control plane and restore the newest backup: stratus db restore."
    said = connection.exec_driver_sql(f"PRAGMA integrity_check({INTEGRITY_LINES_MAX})").all()
    if [row[0] for row in said] != ["ok"]:
        lines = tuple(str(row[0]) for row in said)
        detail = "The file is damaged."
        return [Finding(name="store_damaged", detail=detail, remedy=restore, subjects=lines)]
    dangling = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(SUBJECTS_MAX)
    if dangling:
        rows = tuple(f"{row[0]} row {row[1]} -> {row[2]}" for row in dangling)
        detail = "Rows name others that do not exist."
        return [Finding(name="dangling_rows", detail=detail, remedy=_REPORT, subjects=rows)]
    return []


def _indexes_check(connection: Connection) -> list[Finding]:
    found = connection.exec_driver_sql(
        "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"
    ).fetchmany(SUBJECTS_MAX)
    if not found:
        return []
    return [
        Finding(
            name="index_invalid",
            detail="Indexes of the database are not valid.",
            remedy="Rebuild them: REINDEX DATABASE.",
            subjects=tuple(str(row[0]) for row in found),
        )
    ]
