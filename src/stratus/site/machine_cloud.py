"""How does a whole cloud come up on one machine, and go down again? Checked before changed."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from stratus.model.problem import refuse
from stratus.site.config import Home, SiteConfig, config_load, config_write
from stratus.site.daemon import daemon_ensure, daemon_ensure_stopped, daemon_find
from stratus.site.doctor import Finding, SiteNeeds, examine, unfit
from stratus.site.kvm import kvm_works
from stratus.site.libvirtd import LibvirtdSite, ensure_libvirtd, ensure_libvirtd_stopped
from stratus.site.machine import machine_facts_read
from stratus.site.setup import endpoint_of

Progress = Callable[[str], None]
SYSTEM_URI: Final = "qemu:///system"
PACKAGES_FILE: Final = Path(__file__).parents[3] / "packages" / "runtime.txt"


def libvirtd_site(home: Home) -> LibvirtdSite:
    """Return where this site keeps a libvirtd of its own."""
    return LibvirtdSite(
        run_dir=home.run, state_dir=home.state, kvm_works=kvm_works(home.state).works
    )


def machine_findings(home: Home, config: SiteConfig) -> list[Finding]:
    """Look at the machine as this site would use it; changes nothing."""
    running = daemon_find(home) is not None
    facts = machine_facts_read(
        ports=[(config.listen, config.port)],
        folders=[home.root],
    )
    needs = SiteNeeds(
        network=config.network_ipv4,
        wants_ipv6=True,
        ports_already_ours=frozenset({config.port}) if running else frozenset(),
        network_already_ours=home.admin.exists(),
    )
    # The probe's answer is remembered in the home; before there is one, facts must do.
    kvm = kvm_works(home.state) if home.state.is_dir() else None
    return examine(facts, needs, kvm=kvm)


def cloud_up(home: Home, defaults: SiteConfig, progress: Progress) -> str:
    """Leave the cloud running and answering; return its endpoint."""
    config = config_load(home) if home.config.exists() else defaults
    if daemon_find(home) is None:
        refusal = unfit(machine_findings(home, config))
        if refusal is not None:
            raise refusal
    home.ensure()
    config_write(home, config)
    if config.host_uri == SYSTEM_URI:
        ensure_libvirtd(libvirtd_site(home), progress)
    daemon_ensure(home, config, progress)
    return endpoint_of(config)


def cloud_down(home: Home, progress: Progress) -> bool:
    """Leave nothing running that `up` started; instances run on. True if there was something."""
    if not home.root.is_dir():
        raise refuse(
            "configuration",
            f"There is no site at {home.root}.",
            remedy="Name its directory with --home or STRATUS_HOME.",
        )
    stopped = daemon_ensure_stopped(home, progress)
    # Guests outlive their libvirtd, and the next one finds them again.
    ensure_libvirtd_stopped(libvirtd_site(home), progress)
    return stopped
