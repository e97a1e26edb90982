"""Where does a site keep things, and how is it set? One directory, one TOML file in it."""

import os
import tomllib
from pathlib import Path
from typing import Any, Final

import msgspec

from stratus.model.problem import refuse

HOME_DEFAULT: Final = Path("/var/lib/stratus")
DEMO_HOME: Final = Path("/var/lib/stratus-demo")
PORT_DEFAULT: Final = 7480
DEMO_PORT: Final = 7481
HOME_MODE: Final = 0o711  # hypervisors reach the pool through it; nothing in it can be listed
PRIVATE_MODE: Final = 0o700


class SiteConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a site; every one has a default that works on one machine."""

    name: str = "stratus"
    listen: str = "127.0.0.1"
    port: int = PORT_DEFAULT
    store: str = ""  # "" = SQLite in the home directory
    host_uri: str = "qemu:///system"  # the first host; "" = none
    accelerator: str = "auto"
    network_ipv4: str = "192.168.148.0/22"
    network_ipv6: str = ""  # "" = a unique local prefix made at set-up, where the machine has IPv6
    cpu_ratio: float = 4.0
    memory_ratio: float = 1.0
    memory_reserved_mib: int = 1024
    threads: int = 16  # looks, actions and disk work under way at the same time


class Home(msgspec.Struct, frozen=True):
    """The directory of a site and what lies in it."""

    root: Path

    @property
    def config(self) -> Path:
        """The settings, written by the administrator."""
        return self.root / "config.toml"

    @property
    def state(self) -> Path:
        """What only the control plane reads: the store, keys, uploads."""
        return self.root / "state"

    @property
    def run(self) -> Path:
        """What belongs to this boot: pid files, sockets, the log of the daemon."""
        return self.root / "run"

    @property
    def log(self) -> Path:
        """What the daemon says."""
        return self.run / "stratus.log"

    @property
    def pid(self) -> Path:
        """Who the daemon is."""
        return self.run / "stratus.pid"

    @property
    def admin(self) -> Path:
        """The first administrator's endpoint, token and password; for root's eyes."""
        return self.root / "admin.json"

    @property
    def pool(self) -> Path:
        """The first pool of disks."""
        return self.root / "pool"

    @property
    def cache(self) -> Path:
        """What can be made again."""
        return self.root / "cache"

    def store_url(self, config: SiteConfig) -> str:
        """Return where the store is."""
        return config.store or f"sqlite:///{self.state / 'stratus.db'}"

    def ensure(self) -> None:
        """Leave the directories there, closed to others as far as possible."""
        for path, mode in (
            (self.root, HOME_MODE),
            (self.state, PRIVATE_MODE),
            (self.run, HOME_MODE),
            (self.cache, PRIVATE_MODE),
        ):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(mode)


def home_of(text: str | None = None) -> Home:
    """Return the site's home: as given, else $STRATUS_HOME, else the usual place."""
    return Home(Path(text or os.environ.get("STRATUS_HOME") or HOME_DEFAULT).absolute())


def config_load(home: Home) -> SiteConfig:
    """Read the settings; without a file they are the defaults."""
    try:
        text = home.config.read_text()
    except FileNotFoundError:
        return SiteConfig()
    try:
        values: dict[str, Any] = tomllib.loads(text)
        return msgspec.convert(values, SiteConfig)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise refuse(
            "configuration",
            f"{home.config}: {error}",
            remedy="Mend the file; docs/howto/one-machine.md lists every setting.",
        ) from error


def config_write(home: Home, config: SiteConfig) -> None:
    """Write settings that differ from the defaults, once; an existing file is left alone."""
    if home.config.exists():
        return
    default = SiteConfig()
    lines = ["# Settings of this site; docs/howto/one-machine.md lists them all.\n"]
    for name in SiteConfig.__struct_fields__:
        value = getattr(config, name)
        if value != getattr(default, name):
            # A JSON text or number is a TOML text or number.
            lines.append(f"{name} = {msgspec.json.encode(value).decode()}\n")
    home.config.write_text("".join(lines))
