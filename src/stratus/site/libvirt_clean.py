"""How does a site leave a libvirt as it found it? Only what its own store knows is removed."""

from sqlalchemy import Connection

from stratus.drivers.hypervisor.libvirt import LibvirtHypervisor
from stratus.drivers.network.libvirt import libvirt_networks
from stratus.drivers.network.libvirt_traces import traces_remove
from stratus.model.host import HostFacts
from stratus.model.ids import InstanceId, NetworkId
from stratus.model.limits import PAGE_ROWS_MAX
from stratus.site.config import Home, config_load
from stratus.store.engine import store_open
from stratus.store.instances import instances_known
from stratus.store.networks import network_specs
from stratus.store.placing import hosts_facts


def guests_and_networks_remove(home: Home) -> None:
    """Leave none of this site's guests and networks on its hosts; others' are not touched."""
    config = config_load(home)
    store = store_open(home.store_url(config), exclusive=False)

    def known(
        connection: Connection,
    ) -> tuple[list[HostFacts], set[InstanceId], list[NetworkId]]:
        networks = [each.id for each in network_specs(connection, rows_max=PAGE_ROWS_MAX)]
        return hosts_facts(connection)[0], instances_known(connection), networks

    try:
        hosts, ours, networks = store.read(known)
    finally:
        store.close()
    for host in hosts:
        if not host.uri.startswith("qemu:///"):
            continue  # a host elsewhere is not this machine's to clean
        hypervisor = LibvirtHypervisor(host.uri)
        for guest in hypervisor.inventory():
            if guest.instance_id in ours:
                hypervisor.ensure_absent(guest.instance_id, guest.generation)
        hypervisor.close()
        driver = libvirt_networks(host.uri)
        for network_id in networks:
            driver.ensure_network_absent(network_id)
        driver.close()
        traces_remove(host.uri)
