"""What do we leave on a host besides guests and networks, and how does it go?"""

import libvirt

from stratus.drivers.hypervisor.libvirt_connection import Call, LibvirtConnection
from stratus.drivers.hypervisor.libvirt_console import console_folder_remove
from stratus.drivers.hypervisor.libvirt_refusal import is_gone, is_unsupported
from stratus.drivers.network.libvirt_xml import GUARD_PREFIX


def traces_remove(uri: str) -> None:
    """Take guards and the console folder away from the host; what is in use stays."""
    connection = LibvirtConnection(uri)
    try:
        connection.change(console_folder_remove)
        connection.change(_guards_remove)
    finally:
        connection.close()


def _guards_remove(call: Call) -> None:
    try:
        filters = call.do(call.conn.listAllNWFilters, 0)
    except libvirt.libvirtError as error:
        if is_unsupported(error):
            return
        raise
    for guard in filters:
        if not guard.name().startswith(GUARD_PREFIX):
            continue
        try:
            call.do(guard.undefine)
        except libvirt.libvirtError as error:
            in_use = error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID
            if not in_use and not is_gone(error):
                raise
