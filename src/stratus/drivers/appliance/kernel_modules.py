"""Which kernel modules does the guest get, and which of them before its root is mounted?"""

import lzma
import re
from dataclasses import dataclass
from pathlib import Path

from stratus.drivers.appliance.failure import ApplianceFailed

# Enough to find a root disk, whatever bus it hangs on.
EARLY = ("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "ata_piix")
LATER = (
    "virtio_net",
    "virtio_console",
    "virtio_rng",
    "virtio_balloon",
    "virtio_input",
    "virtio_mem",
    "sr_mod",
    "ata_generic",
    "isofs",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "button",
    "evdev",
    "8021q",
)

SIGNATURE_MARK = b"~Module signature appended~\n"
SIGNATURE_TRAILER_BYTES = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelModule:
    """One module: its name, what must be loaded before it, and its bytes."""

    name: str
    needs: tuple[str, ...]
    content: bytes


def modules_collect(tree: Path, wanted: tuple[str, ...]) -> dict[str, KernelModule]:
    """The wanted modules with all they need; those built into the kernel are left out."""
    builtin = {_module_name(Path(line)) for line in _lines(tree / "modules.builtin")}
    files = {_module_name(path): path for path in (tree / "kernel").rglob("*.ko*")}
    found: dict[str, KernelModule] = {}
    pending = list(wanted)
    while pending:
        name = pending.pop().replace("-", "_")
        if name in found or name in builtin:
            continue
        if name not in files:
            raise ApplianceFailed(
                f"The kernel package has no module {name}.",
                remedy="Build with the cloud kernel of a supported Debian release.",
            )
        found[name] = _module_read(name, files[name])
        pending.extend(found[name].needs)
    return found


def modules_tree(modules: dict[str, KernelModule]) -> dict[str, bytes]:
    """The files of a /lib/modules/RELEASE folder, flat, with the index that modprobe reads."""
    index = []
    for name in sorted(modules):
        needed = [f"{needed}.ko" for needed in _needed_in_order(name, modules)]
        index.append(f"{name}.ko: {' '.join(needed)}".rstrip())
    files = {f"{name}.ko": modules[name].content for name in sorted(modules)}
    return {**files, "modules.dep": ("\n".join(index) + "\n").encode()}


def _needed_in_order(name: str, modules: dict[str, KernelModule]) -> list[str]:
    """All that the module needs, each before what it is needed by last: as depmod writes it."""
    ordered: list[str] = []
    for needed in modules[name].needs:
        if needed not in modules:
            continue
        for one in [needed, *_needed_in_order(needed, modules)]:
            if one in ordered:
                ordered.remove(one)
            ordered.append(one)
    return ordered


def _module_read(name: str, path: Path) -> KernelModule:
    content = path.read_bytes()
    if path.suffix == ".xz":
        content = lzma.decompress(content)
    found = re.search(rb"\0depends=([^\0]*)\0", content)
    needs = found.group(1).decode().split(",") if found else []
    return KernelModule(
        name=name,
        needs=tuple(needed.replace("-", "_") for needed in needs if needed),
        content=_signature_removed(content),
    )


def _signature_removed(content: bytes) -> bytes:
    """The module without its signature, whose check costs an emulated processor a long time."""
    if not content.endswith(SIGNATURE_MARK):
        return content
    end = len(content) - len(SIGNATURE_MARK)
    signature_bytes = int.from_bytes(content[end - 4 : end], "big")
    return content[: end - SIGNATURE_TRAILER_BYTES - signature_bytes]


def _module_name(path: Path) -> str:
    return path.name.split(".ko")[0].replace("-", "_")


def _lines(path: Path) -> list[str]:
    return path.read_text().split()
