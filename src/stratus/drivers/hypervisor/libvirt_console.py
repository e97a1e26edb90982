"""Where is what guests print kept, and how is it read back from any host?

A storage pool over one folder of the host: libvirt makes the folder, reads from it and deletes in
it for us, on this machine and on a remote one alike. virtlogd writes into it.
"""

from typing import Final

import libvirt
from lxml import etree  # type: ignore[import-untyped]  # publishes no stubs

from stratus.drivers.hypervisor.libvirt_connection import Call
from stratus.drivers.hypervisor.libvirt_refusal import is_gone, is_unsupported
from stratus.drivers.hypervisor.libvirt_xml import console_file

POOL: Final = "stratus-console"
SYSTEM_DIR: Final = "/var/log/libvirt/stratus-console"
ROTATED: Final = (".0", ".1", ".2")  # what virtlogd keeps of older output
CHUNK_BYTES: Final = 256 * 1024


def console_ensure(call: Call, directory: str) -> bool:
    """Leave the folder ready to be written to; False where this daemon has no storage pools."""
    try:
        pool = _pool_find(call)
        if pool is None:
            pool = call.do(call.conn.storagePoolDefineXML, _pool_render(directory))
            call.do(pool.setAutostart, 1)
        if not call.do(pool.isActive):
            call.do(pool.build, 0)
            call.do(pool.create, 0)
    except libvirt.libvirtError as error:
        if is_unsupported(error):
            return False
        # Another worker may have been faster at any of these steps.
        pool = _pool_find(call)
        if pool is None or not call.do(pool.isActive):
            raise
    return True


def console_read(call: Call, name: str, *, bytes_max: int) -> bytes:
    """Return the end of what the guest printed, across one change of file."""
    pool = _pool_find(call)
    if pool is None or bytes_max <= 0:
        return b""
    tail = _file_tail(call, pool, console_file(name), bytes_max)
    if tail is None:
        return b""
    if len(tail) < bytes_max:
        older = _file_tail(
            call, pool, console_file(name) + ROTATED[0], bytes_max - len(tail), refresh=False
        )
        tail = (older or b"") + tail
    return tail


def console_remove(call: Call, name: str) -> None:
    """Leave nothing of what the guest printed."""
    pool = _pool_find(call)
    if pool is None:
        return
    for suffix in ("", *ROTATED):
        volume = _file_find(call, pool, console_file(name) + suffix, refresh=not suffix)
        if volume is None:
            continue
        try:
            call.do(volume.delete, 0)
        except libvirt.libvirtError as error:
            if not is_gone(error):
                raise


def console_folder_remove(call: Call) -> None:
    """Take the folder away from the host, if no guest has anything in it."""
    pool = _pool_find(call)
    if pool is None:
        return
    if call.do(pool.isActive):
        call.do(pool.refresh, 0)
        if call.do(pool.numOfVolumes):
            return
        call.do(pool.destroy)
    call.do(pool.delete, 0)
    call.do(pool.undefine)


def _pool_find(call: Call) -> libvirt.virStoragePool | None:
    try:
        return call.do(call.conn.storagePoolLookupByName, POOL)
    except libvirt.libvirtError as error:
        if is_gone(error) or is_unsupported(error):
            return None
        raise


def _pool_render(directory: str) -> str:
    pool = etree.Element("pool", type="dir")
    etree.SubElement(pool, "name").text = POOL
    etree.SubElement(etree.SubElement(pool, "target"), "path").text = directory
    return str(etree.tostring(pool, encoding="unicode"))


def _file_find(
    call: Call, pool: libvirt.virStoragePool, file: str, *, refresh: bool
) -> libvirt.virStorageVol | None:
    """Return the file as libvirt's volume; the pool looks again when it does not know it."""
    for again in (False, True) if refresh else (False,):
        if again:
            call.do(pool.refresh, 0)
        try:
            return call.do(pool.storageVolLookupByName, file)
        except libvirt.libvirtError as error:
            if not is_gone(error):
                raise
    return None


def _file_tail(
    call: Call, pool: libvirt.virStoragePool, file: str, bytes_max: int, *, refresh: bool = True
) -> bytes | None:
    volume = _file_find(call, pool, file, refresh=refresh)
    if volume is None:
        return None
    try:
        size_bytes = call.do(volume.info)[1]
        stream = call.do(call.conn.newStream, 0)
        call.do(volume.download, stream, max(0, size_bytes - bytes_max), 0, 0)
    except libvirt.libvirtError as error:
        if is_gone(error) or error.get_error_code() == libvirt.VIR_ERR_SYSTEM_ERROR:
            return None  # deleted or exchanged for a new file meanwhile
        raise
    # Grows while we read: what comes on top of it is the later end.
    text = bytearray()
    while chunk := call.do(stream.recv, CHUNK_BYTES):
        text += chunk
        del text[:-bytes_max]
    call.do(stream.finish)
    return bytes(text)
