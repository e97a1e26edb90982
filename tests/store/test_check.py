"""Does the check find what is wrong, and nothing else?"""

from pathlib import Path

import pytest
from sqlalchemy import Connection

from stratus.store import schema
from stratus.store.check import INVARIANTS, store_check
from stratus.store.engine import store_open
from tests.store.worlds import (
    image_new,
    instance_new,
    lease_new,
    network_new,
    project_new,
    row_insert,
    user_new,
    volume_new,
)


def healthy(c: Connection) -> tuple[str, str, str]:
    user, project, network = user_new(c), project_new(c), network_new(c)
    row_insert(c, schema.hosts, id="hst-1", name="h1", desired="enabled")
    image = image_new(c, project, user)
    one = instance_new(c, project, user, image_id=image, host_id="hst-1", generation=1)
    lease_new(c, network, project, instance_id=one)
    lease_new(c, network, project, instance_id=one, ipv4="10.9.9.9", released_ms=1)
    lease_new(c, network, project, instance_id=one, ipv4="10.9.9.9", released_ms=2)
    volume_new(c, project, instance_id=one, image_id=image)
    gone = instance_new(c, project, user, image_id=image, gone_ms=1)
    volume_new(c, project, instance_id=gone, wanted=False)
    volume_new(c, project, instance_id=gone, kind="persistent")
    return user, project, network


BREAKS = {
    "address_leased_twice": (
        "DROP INDEX uq_leases_ipv4_live",
        "UPDATE leases SET ipv4 = '10.9.9.9', released_ms = 0, mac = substr(id, 5)",
    ),
    "address6_leased_twice": (
        "UPDATE leases SET ipv6 = 'fd::1', released_ms = 0, ipv4 = '', mac = substr(id, 5)",
    ),
    "card_leased_twice": (
        "DROP INDEX uq_leases_mac_live",
        "UPDATE leases SET mac = 'm', released_ms = 0, ipv4 = ''",
    ),
    "lease_without_holder": ("UPDATE leases SET instance_id = 'ins-none'",),
    "placed_without_generation": ("UPDATE instances SET generation = 0",),
    "placed_nowhere": ("UPDATE hosts SET gone_ms = 1",),
    "gone_but_placed": ("UPDATE instances SET host_id = 'hst-1', generation = 1",),
    "observed_ahead": ("UPDATE instances SET observed_generation = 7 WHERE gone_ms = 0",),
    "volume_outlives_instance": ("UPDATE volumes SET wanted = true",),
    "volume_without_parent": ("UPDATE images SET gone_ms = 1",),
    "nobody_administers": ("UPDATE users SET disabled = true",),
}


def test_every_invariant_has_a_way_to_break_it() -> None:
    assert sorted(BREAKS) == sorted(one.name for one in INVARIANTS)


def test_a_healthy_store_has_no_findings_even_in_use(store_url: str) -> None:
    store = store_open(store_url)
    assert store_check(store_url) == ()
    store.write(healthy)
    assert store_check(store_url) == ()
    store.close()


def test_each_broken_invariant_is_found_by_name_with_a_remedy(tmp_path: Path) -> None:
    for name, statements in BREAKS.items():
        url = f"sqlite:///{tmp_path}/{name}.db"
        store = store_open(url)
        store.write(healthy)
        for statement in statements:
            store.write(lambda c, say=statement: c.exec_driver_sql(say))  # type: ignore[misc]  # mypy cannot infer it
        store.close()
        findings = store_check(url)
        assert [finding.name for finding in findings] == [name]
        assert findings[0].subjects
        assert findings[0].remedy


@pytest.mark.postgres
def test_the_invariants_are_understood_by_postgresql_too(postgres_url: str) -> None:
    store = store_open(postgres_url)
    store.write(healthy)
    for statements in BREAKS.values():
        for statement in statements:
            store.write(lambda c, say=statement: c.exec_driver_sql(say))  # type: ignore[misc]  # mypy cannot infer it
    store.close()
    assert len(store_check(postgres_url)) >= len(INVARIANTS) - 2


def test_a_damaged_file_is_a_finding_not_a_crash(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    store = store_open(url)
    store.write(healthy)
    store.close()
    content = bytearray((tmp_path / "s.db").read_bytes())
    content[8192:16384] = b"\xff" * 8192
    (tmp_path / "s.db").write_bytes(content)
    (finding, *_) = store_check(url)
    assert finding.name == "store_damaged"


def test_a_missing_store_is_a_finding(tmp_path: Path) -> None:
    (finding,) = store_check(f"sqlite:///{tmp_path}/none.db")
    assert finding.name == "store_unreachable"
    assert not (tmp_path / "none.db").exists()


def test_rows_that_name_nobody_are_found(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    store = store_open(url)
    store.close()
    import sqlite3

    with sqlite3.connect(tmp_path / "s.db") as raw:
        raw.execute("INSERT INTO memberships VALUES ('prj-none', 'usr-none', 'owner')")
    raw.close()
    (finding,) = store_check(url)
    assert finding.name == "dangling_rows"


def test_an_older_schema_is_a_finding(store_url: str) -> None:
    store = store_open(store_url)
    store.write(lambda c: c.exec_driver_sql("UPDATE alembic_version SET version_num = '9999_x'"))
    store.close()
    (finding,) = store_check(store_url)
    assert finding.name == "schema_differs"
