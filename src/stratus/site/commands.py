"""What does each command of the machine do? Thin: it reads its options and calls the part."""

import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from stratus.model.problem import refuse
from stratus.site.config import Home, SiteConfig, config_load, home_of

HomeOption = Annotated[str, Parameter(help="The site's directory; $STRATUS_HOME otherwise.")]
JsonOption = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON.")]

LOG_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"


def say(line: str) -> None:
    """Show progress to the person who waits."""
    print(line, file=sys.stderr, flush=True)


def _logging() -> None:
    import structlog

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def serve(*, home: HomeOption = "", role: tuple[str, ...] = ()) -> None:
    """Run the control plane in the foreground until it is told to end."""
    from stratus.site.cloud import ALL_ROLES, Cloud, RoleName
    from stratus.site.daemon import daemon_note
    from stratus.site.setup import site_ensure

    _logging()
    place = home_of(home)
    place.ensure()
    config = config_load(place)
    try:
        roles = [RoleName(name) for name in role] or list(ALL_ROLES)
    except ValueError as error:
        raise refuse(
            "configuration",
            f"{error}.",
            remedy=f"Choose among the roles {', '.join(RoleName)}.",
        ) from error
    cloud = Cloud(place, config, roles)
    try:
        site_ensure(place, config, cloud.store)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: cloud.end())
        daemon_note(place)
        cloud.start()
        cloud.run()
    finally:
        cloud.stop()
        place.pid.unlink(missing_ok=True)


def up(*, home: HomeOption = "") -> None:
    """Start the cloud of this machine, setting it up if need be."""
    from stratus.site.machine_cloud import cloud_up

    place = home_of(home)
    found = cloud_up(place, SiteConfig(), say)
    print(f"the cloud is up at {found}")
    print("try: stratus image ls; stratus host ls; stratus run IMAGE")


def down(*, home: HomeOption = "") -> None:
    """Stop the control plane; instances run on, and are found again at the next start."""
    from stratus.site.machine_cloud import cloud_down

    stopped = cloud_down(home_of(home), say)
    print("stopped" if stopped else "it was not running")


def status(*, home: HomeOption = "", json_: JsonOption = False) -> int:
    """Say whether the cloud of this machine runs and is well; exit code 0 only if so."""
    import msgspec

    from stratus.site.daemon import daemon_find, is_ready
    from stratus.site.setup import endpoint_of

    place = home_of(home)
    config = config_load(place)
    process = daemon_find(place)
    ready = process is not None and is_ready(config)
    facts = {
        "home": str(place.root),
        "endpoint": endpoint_of(config),
        "pid": process.pid if process else None,
        "ready": ready,
    }
    if json_:
        print(msgspec.json.encode(facts).decode())
    else:
        word = "ready" if ready else "not ready" if process else "not running"
        print(f"{word}: {facts['endpoint']} (home {place.root}, pid {facts['pid'] or '-'})")
    return 0 if ready else 9


def doctor(*, home: HomeOption = "", json_: JsonOption = False) -> int:
    """Check this machine and say what to mend; exit code 0 when nothing fails."""
    import msgspec

    from stratus.site.doctor import Health
    from stratus.site.machine_cloud import machine_findings

    place = home_of(home)
    findings = machine_findings(place, config_load(place))
    if json_:
        print(msgspec.json.encode(findings).decode())
    else:
        for finding in findings:
            print(f"{finding.health:4}  {finding.what:16} {finding.detail}")
            if finding.remedy:
                print(f"      {'':16} try: {finding.remedy}")
    return 1 if any(finding.health is Health.FAIL for finding in findings) else 0


def demo(*, home: HomeOption = "", json_: JsonOption = False, clean: bool = False) -> None:
    """From nothing to a command in a real guest over ssh; --clean removes all of it."""
    from stratus.site.config import DEMO_HOME
    from stratus.site.demo import demo_clean, demo_run

    place = Home(Path(home)) if home else Home(DEMO_HOME)
    if clean:
        demo_clean(place, say)
    else:
        demo_run(place, say, as_json=json_)


def image_build(kind: str, target: Path, *, home: HomeOption = "") -> None:
    """Make the built-in appliance `tiny` from distribution packages.

    Example: stratus image build tiny tiny.img
    """
    from stratus.site.appliance import appliance_build

    built = appliance_build(kind, target, home_of(home), say)
    print(f"{built.path}  {built.size_bytes} bytes  sha256 {built.sha256}")


def image_sign(
    image: str,
    *,
    key: Path,
    email: str,
    days: int = 180,
    home: HomeOption = "",
) -> None:
    """Endorse an image with a key of this machine; a new key is made where there is none.

    Example: stratus image sign tiny --key endorser.pem --email ana@example.org
    """
    from stratus.site.appliance import image_endorse

    fingerprint = image_endorse(image, key, email, days, home_of(home))
    print(f"endorsed by {fingerprint}")


def db_migrate(*, home: HomeOption = "") -> None:
    """Bring the store's schema up to date."""
    from stratus.store.engine import store_open

    place = home_of(home)
    place.ensure()
    store_open(place.store_url(config_load(place))).close()
    print("the schema is up to date")


def db_check(*, home: HomeOption = "") -> int:
    """Check the store: its engine, its references, our own rules; exit code 0 when all is well."""
    from stratus.store.check import store_check

    place = home_of(home)
    findings = store_check(place.store_url(config_load(place)))
    for finding in findings:
        print(f"{finding.name}: {finding.detail}\n  try: {finding.remedy}")
    if not findings:
        print("the store is well")
    return 1 if findings else 0


def db_backup(target: Path, *, home: HomeOption = "") -> None:
    """Copy the store to a file, also while it is in use."""
    from stratus.store.backup import store_backup

    place = home_of(home)
    store_backup(place.store_url(config_load(place)), target)
    print(f"{target}  {target.stat().st_size} bytes")


def db_restore(source: Path, *, home: HomeOption = "") -> None:
    """Put a backup in the place of the store; hosts show what they run before anything starts."""
    from stratus.site.cloud import now_ms
    from stratus.store.backup import store_restore

    place = home_of(home)
    store_restore(place.store_url(config_load(place)), source, now_ms=now_ms())
    print("restored; start the cloud with `stratus up`")


def sim(*, seeds: int = 20, seed: int | None = None, steps: int = 300) -> int:
    """Run a whole cloud in virtual time under seeded faults; a failing seed says how to replay it.

    Example: stratus sim --seeds 100
    """
    from stratus.sim.run import seeds_run

    started = time.monotonic()
    chosen = [seed] if seed is not None else list(range(1, seeds + 1))
    failed = seeds_run(chosen, steps=steps, say=say, explain=seed is not None)
    seconds = time.monotonic() - started
    print(f"{len(chosen) - len(failed)} of {len(chosen)} seeds held in {seconds:.1f} s")
    return 1 if failed else 0
