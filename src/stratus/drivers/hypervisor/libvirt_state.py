"""What does a domain's state, with the mark on it, say about the guest? Pure."""

from typing import Final

import libvirt

from stratus.drivers.hypervisor.libvirt_xml import GuestMark
from stratus.model.host import GuestFound
from stratus.model.instance import HaltCause, Observed

OBSERVED: Final[dict[int, Observed]] = {
    libvirt.VIR_DOMAIN_RUNNING: Observed.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: Observed.RUNNING,
    libvirt.VIR_DOMAIN_SHUTDOWN: Observed.RUNNING,  # on its way, with its disks still open
    libvirt.VIR_DOMAIN_PAUSED: Observed.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: Observed.PAUSED,
    libvirt.VIR_DOMAIN_SHUTOFF: Observed.HALTED,
    libvirt.VIR_DOMAIN_CRASHED: Observed.HALTED,
}

# Why a domain is off. What is not named here, above all "unknown", is what a restarted daemon or
# a restarted host says of every domain that it finds off.
CAUSES: Final[dict[int, HaltCause]] = {
    libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN: HaltCause.GUEST,
    libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED: HaltCause.ASKED,
    libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: HaltCause.CRASHED,
}

PAUSES: Final[dict[int, str]] = {
    libvirt.VIR_DOMAIN_PAUSED_USER: "somebody suspended it",
    libvirt.VIR_DOMAIN_PAUSED_IOERROR: "a disk reported an error; its pool may be full",
    libvirt.VIR_DOMAIN_PAUSED_MIGRATION: "it is being migrated",
    libvirt.VIR_DOMAIN_PAUSED_SAVE: "it is being saved",
    libvirt.VIR_DOMAIN_PAUSED_CRASHED: "it crashed",
    libvirt.VIR_DOMAIN_PAUSED_STARTING_UP: "it is being started",
}


def guest_found(name: str, state: int, reason: int, mark: GuestMark | None) -> GuestFound:
    """Show a domain as one guest of ours, or as a stranger when it has no mark."""
    observed = OBSERVED.get(state, Observed.UNKNOWN)
    if mark is None:
        return GuestFound(name=name, observed=observed)
    return GuestFound(
        name=name,
        observed=observed,
        instance_id=mark.instance_id,
        generation=mark.generation,
        run=mark.starting if has_begun(mark, state, reason) else mark.run,
        resets=mark.resets,
        halt_cause=_cause(mark, state, reason),
        accelerator=mark.accelerator,
        detail=PAUSES.get(reason, "") if observed is Observed.PAUSED else "",
    )


def has_begun(mark: GuestMark, state: int, reason: int) -> bool:
    """Tell whether the run that the definition was made for has begun.

    Each run gets a fresh definition, so a reason for being off is about this run: after a start
    that never happened it is "unknown", after one that failed "failed".
    """
    if mark.run == mark.starting:
        return True
    if OBSERVED.get(state) is Observed.HALTED:
        return bool(state == libvirt.VIR_DOMAIN_CRASHED) or reason in CAUSES
    return not is_starting_up(state, reason)


def is_starting_up(state: int, reason: int) -> bool:
    """Tell whether QEMU is there and the guest is not yet."""
    return (state, reason) == (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP)


def is_stopped_by_disk(state: int, reason: int) -> bool:
    """Tell whether the guest waits for a disk that reported an error."""
    return (state, reason) == (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR)


def _cause(mark: GuestMark, state: int, reason: int) -> HaltCause:
    """Say why the guest is off: what was noted of this run, else what libvirt remembers."""
    if OBSERVED.get(state) is not Observed.HALTED:
        return HaltCause.NONE
    if mark.run == mark.starting and mark.halt_cause is not HaltCause.NONE:
        return mark.halt_cause
    if not has_begun(mark, state, reason):
        return mark.halt_cause
    if state == libvirt.VIR_DOMAIN_CRASHED:
        return HaltCause.CRASHED
    return CAUSES.get(reason, HaltCause.LOST)
