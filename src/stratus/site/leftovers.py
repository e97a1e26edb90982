"""What does libvirt leave behind on a machine, and how does it become as it was before?

libvirt removes the rules of a network or filter, but not the empty chains it made for them, nor
the kernel's forwarding switches, its run-time folder, control groups, caches and logs. A note of
a machine taken before libvirtd first starts tells afterwards what is whose.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from stratus.site.process import boot_id

FIREWALL_TOOLS: Final = ("iptables", "ip6tables")
FIREWALL_SECONDS_MAX: Final = 20
CHAIN_NAMES: Final = re.compile(r"(LIBVIRT_|libvirt-)")
# The tables that iptables, ip6tables and ebtables make in nftables, and the one of newer libvirt.
TABLE_NAMES: Final = frozenset({"filter", "nat", "mangle", "libvirt_network"})
FAMILIES: Final = frozenset({"ip", "ip6", "bridge"})
SYSCTLS: Final = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")

RUNTIME: Final = Path("/run/libvirt")
# Files in here are made again by libvirt when it needs them.
DISPOSABLE: Final = (
    Path("/var/cache/libvirt"),
    Path("/var/log/libvirt"),
    Path("/var/lib/libvirt/dnsmasq"),
)
# In here only folders that are new and empty are removed: files may be a user's.
PRECIOUS: Final = (Path("/var/lib/libvirt"),)


class Before(msgspec.Struct, frozen=True, kw_only=True):
    """The machine before we started libvirtd: kernel state of one boot, and files."""

    boot_id: str
    chains: list[str]
    tables: list[str]
    sysctls: dict[str, str]
    cgroups: list[str]
    runtime_existed: bool
    files: list[str]


# -- the note ----------------------------------------------------------------------------------


def take(earlier: Before | None = None) -> Before:
    """Look at the machine now. Of an earlier note what outlives a boot is kept."""
    return Before(
        boot_id=boot_id(),
        chains=[
            _chain_key(tool, table, chain)
            for tool in FIREWALL_TOOLS
            for table, rules in _tables_saved(tool).items()
            for chain in rules.chains
        ],
        tables=[f"{family} {name}" for family, name in _nft_tables(_nft_list())],
        sysctls={name: value for name in SYSCTLS if (value := _sysctl_read(name)) is not None},
        cgroups=[str(path) for path in _machine_cgroups()],
        runtime_existed=RUNTIME.exists(),
        files=earlier.files if earlier else [str(path) for path in _files()],
    )


def note_read(path: Path) -> Before | None:
    """Read the note, if there is one that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Before)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def note_ensure(path: Path) -> None:
    """Leave a note of this boot, never overwriting one that was taken before libvirt started."""
    earlier = note_read(path)
    if earlier is not None and earlier.boot_id == boot_id():
        return
    part = path.with_suffix(".part")
    part.write_bytes(msgspec.json.encode(take(earlier)))
    part.replace(path)


# -- removing ----------------------------------------------------------------------------------


def kernel_restore(before: Before) -> list[str]:
    """Remove libvirt's idle chains, folders of this boot and control groups; name what went.

    What is in use stays: a chain with rules in it means that some network still lives.
    """
    if before.boot_id != boot_id():
        return []
    removed = _chains_remove(before) + _tables_remove(before)
    removed += _cgroups_remove(before)
    if _chains_of_libvirt_left(before) or _anything_active():
        return removed
    return removed + _sysctls_restore(before) + _runtime_remove(before)


def files_remove(before: Before) -> list[str]:
    """Remove caches, logs and empty folders that libvirt made since the note; name the folders."""
    known = set(before.files)
    removed = []
    for root in DISPOSABLE:
        for path in _tree(root):
            if str(path) not in known and not path.is_dir():
                path.unlink(missing_ok=True)
    for root in (*DISPOSABLE, *PRECIOUS):
        for path in sorted(_tree(root), reverse=True):
            if str(path) not in known and path.is_dir() and _rmdir(path):
                removed.append(str(path))
    return removed


# -- iptables ----------------------------------------------------------------------------------


class _Saved(msgspec.Struct):
    """One table as `iptables-save` prints it."""

    chains: list[str]
    rules: list[str]

    def idle_chains(self) -> list[str]:
        """Chains named by libvirt that hold no rule."""
        used = {rule.split()[1] for rule in self.rules}
        return [c for c in self.chains if CHAIN_NAMES.match(c) and c not in used]


def tables_parse(text: str) -> dict[str, "_Saved"]:
    """Understand the output of `iptables-save`."""
    tables: dict[str, _Saved] = {}
    current = _Saved(chains=[], rules=[])
    for line in text.splitlines():
        if line.startswith("*"):
            current = tables.setdefault(line[1:].strip(), _Saved(chains=[], rules=[]))
        elif line.startswith(":"):
            current.chains.append(line[1:].split()[0])
        elif line.startswith("-A "):
            current.rules.append(line)
    return tables


def removal_script(saved: dict[str, "_Saved"], keep: set[str]) -> str:
    """Write the `iptables-restore` input that removes libvirt's idle chains but those to keep."""
    lines: list[str] = []
    for table, found in saved.items():
        doomed = [chain for chain in found.idle_chains() if f"{table} {chain}" not in keep]
        if not doomed:
            continue
        lines.append(f"*{table}")
        # Only the plain jumps that libvirt wrote; a rule by somebody else keeps the chain alive.
        jumps = {f"-j {chain}" for chain in doomed}
        lines += [
            "-D " + rule.removeprefix("-A ")
            for rule in found.rules
            if rule.partition(" ")[2].partition(" ")[2] in jumps
        ]
        lines += [f"-X {chain}" for chain in doomed]
        lines.append("COMMIT")
    return "".join(line + "\n" for line in lines)


def _tables_saved(tool: str) -> dict[str, _Saved]:
    return tables_parse(_run([f"{tool}-save"]) or "")


def _chain_key(tool: str, table: str, chain: str) -> str:
    return f"{tool} {table} {chain}"


def _kept(before: Before, tool: str) -> set[str]:
    prefix = f"{tool} "
    return {key.removeprefix(prefix) for key in before.chains if key.startswith(prefix)}


def _chains_remove(before: Before) -> list[str]:
    """Take libvirt's idle chains out, one atomic change per tool."""
    removed = []
    for tool in FIREWALL_TOOLS:
        script = removal_script(_tables_saved(tool), _kept(before, tool))
        if script and _run([f"{tool}-restore", "--noflush", "--wait=5"], script) is not None:
            count = script.count("-X ")
            removed.append(f"{count} empty {tool} chains")
    return removed


def _chains_of_libvirt_left(before: Before) -> bool:
    """Say whether chains that libvirt made since the note are still there."""
    return any(
        CHAIN_NAMES.match(chain) and f"{table} {chain}" not in _kept(before, tool)
        for tool in FIREWALL_TOOLS
        for table, found in _tables_saved(tool).items()
        for chain in found.chains
    )


# -- nftables ----------------------------------------------------------------------------------


def _nft_list() -> list[dict[str, Any]]:
    """The whole ruleset as nftables' own JSON; empty where nft is not installed."""
    text = _run(["nft", "--json", "list", "ruleset"])
    if not text:
        return []
    found: list[dict[str, Any]] = json.loads(text)["nftables"]
    return found


def _nft_tables(ruleset: list[dict[str, Any]]) -> list[tuple[str, str]]:
    tables = [entry["table"] for entry in ruleset if "table" in entry]
    return [(table["family"], table["name"]) for table in tables]


def idle_tables(ruleset: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Tables of the kind libvirt's tools make, in which nothing decides about any packet."""
    busy = set()
    for entry in ruleset:
        for kind, value in entry.items():
            if kind not in {"table", "chain", "metainfo"} or value.get("policy") == "drop":
                busy.add((value["family"], value["table"]))
    return [
        (family, name)
        for family, name in _nft_tables(ruleset)
        if family in FAMILIES and name in TABLE_NAMES and (family, name) not in busy
    ]


def _tables_remove(before: Before) -> list[str]:
    removed = []
    for family, name in idle_tables(_nft_list()):
        if f"{family} {name}" in before.tables:
            continue
        if _run(["nft", "delete", "table", family, name]) is not None:
            removed.append(f"empty table {family} {name}")
    return removed


# -- kernel switches, control groups, run-time folder --------------------------------------------


def _sysctl_read(name: str) -> str | None:
    try:
        return (Path("/proc/sys") / name).read_text().strip()
    except OSError:
        return None


def _sysctls_restore(before: Before) -> list[str]:
    changed = []
    for name, value in before.sysctls.items():
        if _sysctl_read(name) in (None, value):
            continue
        (Path("/proc/sys") / name).write_text(value + "\n")
        changed.append(f"setting {name.replace('/', '.')} (again {value})")
    return changed


def _machine_cgroups() -> list[Path]:
    """The control groups in which libvirt puts guests, in any hierarchy."""
    root = Path("/sys/fs/cgroup")
    return [path for path in (root / "machine", *root.glob("*/machine")) if path.is_dir()]


def _cgroups_remove(before: Before) -> list[str]:
    doomed = [path for path in _machine_cgroups() if str(path) not in before.cgroups]
    # A group with processes or groups in it refuses: then a guest still lives.
    return [f"control group {path}" for path in doomed if _rmdir(path)]


def _anything_active() -> bool:
    """Say whether libvirt notes a running guest or network."""
    return any(any((RUNTIME / kind).glob("*.xml")) for kind in ("qemu", "network"))


def _runtime_remove(before: Before) -> list[str]:
    if before.runtime_existed or not RUNTIME.exists():
        return []
    shutil.rmtree(RUNTIME, ignore_errors=True)
    return [str(RUNTIME)]


# -- small tools -------------------------------------------------------------------------------


def _files() -> Iterator[Path]:
    for root in (*DISPOSABLE, *PRECIOUS):
        yield from _tree(root)


def _tree(root: Path) -> list[Path]:
    """A folder and everything in it, nothing where it does not exist."""
    return [root, *root.rglob("*")] if root.exists() else []


def _rmdir(path: Path) -> bool:
    try:
        path.rmdir()
    except OSError:
        return False
    return True


def _run(command: list[str], given: str | None = None) -> str | None:
    """Run a firewall tool; None when it is missing or says no."""
    try:
        done = subprocess.run(
            command,
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            text=True,
            timeout=FIREWALL_SECONDS_MAX,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
