"""Do the rows of hosts hold on both engines?"""

from stratus.model.ids import HostId
from stratus.store.engine import Store
from stratus.store.hosts_admin import host_create

# PostgreSQL plans a statement anew for the first five runs of a connection, then once for all.
HOSTS = 12


def test_many_hosts_are_added_over_one_connection_and_a_name_only_once(store: Store) -> None:
    def add(number: int, name: str) -> bool:
        return store.write(
            lambda connection: host_create(
                connection,
                HostId(f"hst-{number}"),
                now_ms=1,
                name=name,
                uri="fake://one",
                cpu_ratio=1.0,
                memory_ratio=1.0,
                memory_reserved_mib=0,
                accelerator_wanted="auto",
                inventory_epoch=0,
            )
        )

    assert all(add(number, f"h{number}") for number in range(HOSTS))
    assert not add(HOSTS, "h0")
