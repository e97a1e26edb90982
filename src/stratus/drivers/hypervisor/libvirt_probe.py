"""Do guests of this host's libvirt really run under KVM? Asked through libvirt alone.

That libvirt offers KVM is no proof, for it only looks at whether /dev/kvm opens. So a guest
without disks runs its firmware to the end, finds nothing to boot and resets itself, which ends it.
Where KVM interprets instead of running, that takes seconds instead of a tenth of one. On the
machine we run on ourselves, `stratus.site.kvm` has the better proof, a small kernel.
"""

import time
from typing import Final

import libvirt

from stratus.drivers.hypervisor.libvirt_connection import Call
from stratus.drivers.hypervisor.libvirt_refusal import is_gone, said_by

ATTEMPTS_MAX: Final = 2
FIRMWARE_SECONDS_MAX: Final = 2.0
LOOK_SECONDS: Final = 0.05
NAME: Final = "stratus-kvm-probe"

GUEST: Final = f"""
<domain type='kvm'>
  <name>{NAME}-%s</name>
  <memory unit='MiB'>32</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64'>hvm</type>
    <boot dev='hd'/>
    <bios rebootTimeout='0'/>
  </os>
  <features><acpi/></features>
  <on_reboot>destroy</on_reboot>
  <devices>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <video><model type='none'/></video>
  </devices>
</domain>
"""


def kvm_probe(call: Call, name: str) -> tuple[str, str]:
    """Decide the accelerator: "kvm" or "tcg", and why. `name` keeps probes of two workers apart."""
    try:
        call.do(call.conn.getDomainCapabilities, None, "x86_64", None, "kvm", 0)
    except libvirt.libvirtError as error:
        return "tcg", f"libvirt on the host offers no KVM: {said_by(error)}"
    for _ in range(ATTEMPTS_MAX):
        try:
            if _firmware_ends(call, name):
                return "kvm", "a trial guest ran its firmware under KVM"
        except libvirt.libvirtError as error:
            return "tcg", f"a trial guest did not start under KVM: {said_by(error)}"
    return "tcg", f"a trial guest under KVM needs over {FIRMWARE_SECONDS_MAX:.0f} s of firmware"


def _firmware_ends(call: Call, name: str) -> bool:
    """Run the trial guest; tell whether it ended by itself in time. It is gone afterwards."""
    domain = call.do(call.conn.createXML, GUEST % name, libvirt.VIR_DOMAIN_START_AUTODESTROY)
    deadline = time.monotonic() + FIRMWARE_SECONDS_MAX
    while time.monotonic() < deadline:
        if _is_off(call, domain):
            return True
        time.sleep(LOOK_SECONDS)
    try:
        call.do(domain.destroy)
    except libvirt.libvirtError as error:
        if not is_gone(error):
            raise
    return False


def _is_off(call: Call, domain: libvirt.virDomain) -> bool:
    try:
        state = call.do(domain.state, 0)[0]
    except libvirt.libvirtError as error:
        if is_gone(error):
            return True
        raise
    return state in (libvirt.VIR_DOMAIN_SHUTDOWN, libvirt.VIR_DOMAIN_SHUTOFF)
