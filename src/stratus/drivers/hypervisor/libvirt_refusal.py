"""What does libvirt mean by this error, and what can be done about it?"""

from typing import Final

import libvirt

from stratus.model.problem import Problem

# What libvirt's message holds, in lower case; the code that says it; a remedy we know.
KNOWN: Final[tuple[tuple[str, str, str], ...]] = (
    (
        '"write" lock',
        "guest_failed",
        "Another guest has the disk open: stop that one first.",
    ),
    (
        "permission denied",
        "host_refused",
        "Let the host's QEMU user (libvirt-qemu or qemu) enter every folder above the file; "
        "keep pools outside of home folders.",
    ),
    (
        "cannot set up guest memory",
        "host_refused",
        "Choose a smaller type, or another host.",
    ),
    (
        "cannot allocate memory",
        "host_refused",
        "Choose a smaller type, or another host.",
    ),
    (
        "emulator",
        "host_refused",
        "Install QEMU on the host: apt-get install qemu-system-x86",
    ),
    (
        "kvm",
        "host_refused",
        "KVM does not work on the host: register it with the accelerator tcg, or repair KVM.",
    ),
    (
        "address already in use",
        "network_failed",
        "Another program listens there, often a second dnsmasq; 'ss -lunp' on the host names it.",
    ),
    (
        "no space left on device",
        "host_refused",
        "A disk of the host is full: make room there, mostly under /var.",
    ),
    (
        "virtlogd",
        "host_refused",
        "Start virtlogd on the host: systemctl start virtlogd.socket",
    ),
    (
        "network not found",
        "network_failed",
        "We make the network again by ourselves; if it stays so, look at 'virsh net-list --all'.",
    ),
    (
        "already in use by interface",
        "network_failed",
        "Give the network addresses that nothing else on the host has: see 'ip route' there.",
    ),
    (
        "is not active",
        "network_failed",
        "We start the network again by ourselves; else see 'virsh net-list --all' on the host.",
    ),
    (
        "exceeds the maximum",
        "host_refused",
        "Choose a smaller type, or another host.",
    ),
)

OPEN_REMEDIES: Final[tuple[tuple[str, str], ...]] = (
    (
        "no such file",
        "Start libvirtd on the host: systemctl start libvirtd, or 'stratus up' on this machine.",
    ),
    (
        "connection refused",
        "Start libvirtd on the host; for qemu+tls also libvirtd-tls.socket.",
    ),
    (
        "permission denied",
        "Put the account that runs StratusLab into the group libvirt, and log in again.",
    ),
    (
        "authentication",
        "Let the host accept this control plane: see auth_unix_rw or tls_allowed_dn_list in "
        "/etc/libvirt/libvirtd.conf.",
    ),
    (
        "certificate",
        "Check certificates, names and dates: 'virt-pki-validate' on both machines.",
    ),
    (
        "unable to resolve",
        "Check the host name in the host's URI.",
    ),
    (
        "host key verification",
        "Let this account trust the host's ssh key: ssh to it once by hand.",
    ),
)
OPEN_REMEDY: Final = (
    "Check that the machine is up and that libvirtd runs there: 'virsh -c {uri} version' must work."
)
REFUSED_REMEDY: Final = (
    "Read what the hypervisor said; the host's libvirt log has more (journalctl -u libvirtd)."
)

# Refusals that may be gone a moment later: another call holds the guest, or it is changing.
TRANSIENT_CODES: Final = frozenset(
    {
        libvirt.VIR_ERR_OPERATION_TIMEOUT,
        libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
        libvirt.VIR_ERR_RESOURCE_BUSY,
    }
)
GONE_CODES: Final = frozenset(
    {
        libvirt.VIR_ERR_NO_DOMAIN,
        libvirt.VIR_ERR_NO_NETWORK,
        libvirt.VIR_ERR_NO_NWFILTER,
        libvirt.VIR_ERR_NO_STORAGE_VOL,
        libvirt.VIR_ERR_NO_STORAGE_POOL,
    }
)


def is_gone(error: libvirt.libvirtError) -> bool:
    """Tell whether the thing asked about is not there."""
    return error.get_error_code() in GONE_CODES


def is_unsupported(error: libvirt.libvirtError) -> bool:
    """Tell whether this daemon, or its driver, cannot do such a thing at all."""
    return error.get_error_code() in (libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_NO_CONNECT)


def refusal_problem(error: libvirt.libvirtError, *, code: str = "host_refused") -> Problem:
    """Say in our words, and in libvirt's, what was refused; `code` where we know no better."""
    said = said_by(error)
    lowered = said.lower()
    for words, known_code, remedy in KNOWN:
        if words in lowered:
            return Problem(code=known_code, detail=said, remedy=remedy)
    return Problem(code=code, detail=said, remedy=REFUSED_REMEDY)


def silence_problem(uri: str, said: str) -> Problem:
    """Say that the daemon does not answer."""
    lowered = said.lower()
    for words, remedy in OPEN_REMEDIES:
        if words in lowered:
            return Problem(code="host_unreachable", detail=f"{uri}: {said}", remedy=remedy)
    remedy = OPEN_REMEDY.format(uri=uri)
    return Problem(code="host_unreachable", detail=f"{uri}: {said}", remedy=remedy)


def said_by(error: libvirt.libvirtError) -> str:
    """Return libvirt's own words, on one line."""
    return " ".join((error.get_error_message() or str(error)).split())
