"""How are qemu-img and mkswap called? As argument lists, with a deadline and limits."""

import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import msgspec

from stratus.drivers.failure import DriverFailed
from stratus.drivers.refusal import failed, no_space
from stratus.drivers.volume.qcow2 import Flaw
from stratus.model.image import ImageFormat
from stratus.model.units import GIB

CREATE_SECONDS_MAX: Final = 60.0
EXAMINE_SECONDS_MAX: Final = 600.0  # a check reads all metadata of an image
EXAMINE_CPU_SECONDS_MAX: Final = 300
EXAMINE_ADDRESS_BYTES_MAX: Final = 4 * GIB
EXAMINE_WRITE_BYTES_MAX: Final = 0
SAID_CHARS_MAX: Final = 500
TOOL_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TOOL_ENVIRONMENT: Final = {"PATH": TOOL_PATH, "LC_ALL": "C"}
CHECK_LEAKS: Final = 3  # qemu-img(1): clusters are leaked, data is not harmed

PACKAGES: Final = {"qemu-img": "qemu-utils", "mkswap": "util-linux", "prlimit": "util-linux"}


def overlay_create(
    path: Path, *, backing: Path, backing_format: ImageFormat, size_bytes: int
) -> None:
    """Make a qcow2 file of this size that shows the backing file wherever it has no data itself."""
    # -u: the backing file was examined when it was published, and is not opened again here.
    done = _run(
        [
            *("qemu-img", "create", "-q", "-u", "-f", "qcow2"),
            *("-F", backing_format.value, "-b", str(backing), str(path), str(size_bytes)),
        ]
    )
    if done.returncode != 0:
        raise _refusal("qemu-img create", done)


def swap_write(path: Path) -> None:
    """Write a Linux swap signature over the head of this file, labelled `swap`."""
    done = _run(["mkswap", "-q", "-L", "swap", str(path)])
    if done.returncode != 0:
        raise _refusal("mkswap", done)


def qcow2_examine(path: Path) -> Flaw | None:
    """Say what qemu-img finds wrong with an untrusted qcow2 file; None when it is whole.

    Call only after `image_flaw`: a header that names other files must not come here.
    """
    shown = _run_limited(["qemu-img", "info", "--output=json", "-f", "qcow2", str(path)])
    if shown.returncode != 0:
        return _tool_flaw(shown)
    flaw = _info_flaw(msgspec.json.decode(shown.stdout))
    if flaw is not None:
        return flaw
    checked = _run_limited(["qemu-img", "check", "-q", "-f", "qcow2", str(path)])
    if checked.returncode not in (0, CHECK_LEAKS):
        return _tool_flaw(checked)
    return None


def _info_flaw(info: dict[str, Any]) -> Flaw | None:
    """Judge the answer of `qemu-img info --output=json`."""
    specific = info.get("format-specific", {}).get("data", {})
    whole = "Make it whole and plain first: qemu-img convert -O qcow2 IMAGE NEW.qcow2"
    if info.get("format") != "qcow2":
        return Flaw(f"The image is {info.get('format')}, not qcow2.", whole)
    if "backing-filename" in info or "full-backing-filename" in info:
        return Flaw("The image needs a backing file.", whole)
    if "data-file" in specific:
        return Flaw("The image keeps its data in another file.", whole)
    if info.get("encrypted") or "encrypt" in specific:
        return Flaw("The image is encrypted.", "Import it decrypted.")
    if specific.get("corrupt"):
        return Flaw("The image is marked as corrupt.", whole)
    return None


def _tool_flaw(done: subprocess.CompletedProcess[bytes]) -> Flaw:
    return Flaw(
        f"qemu-img finds it damaged: {_said(done)}", "Fetch the image again from a good source."
    )


def _run_limited(arguments: list[str]) -> subprocess.CompletedProcess[bytes]:
    limits = [
        f"--as={EXAMINE_ADDRESS_BYTES_MAX}",
        f"--cpu={EXAMINE_CPU_SECONDS_MAX}",
        f"--fsize={EXAMINE_WRITE_BYTES_MAX}",
    ]
    return _run(["prlimit", *limits, "--", *arguments], seconds=EXAMINE_SECONDS_MAX)


def _run(
    arguments: list[str], *, seconds: float = CREATE_SECONDS_MAX
) -> subprocess.CompletedProcess[bytes]:
    # Looked up here: the search path of this process is not the one that tools get.
    program = shutil.which(arguments[0], path=TOOL_PATH)
    if program is None:
        raise _missing(arguments[0])
    try:
        return subprocess.run(
            [program, *arguments[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            env=TOOL_ENVIRONMENT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise failed(
            "volume_failed",
            f"{arguments[0]} did not end within {seconds:.0f} s.",
            remedy="Check the load of the machine and the health of its disks.",
            transient=True,
        ) from error


def _refusal(doing: str, done: subprocess.CompletedProcess[bytes]) -> DriverFailed:
    said = _said(done)
    if "No space left on device" in said or "Disk quota exceeded" in said:
        return no_space(f"{doing}: {said}")
    return failed(
        "volume_failed",
        f"{doing}: {said}",
        remedy="Look at the pool's directory and its file system.",
    )


def _missing(tool: str) -> DriverFailed:
    package = PACKAGES.get(tool, tool)
    return failed(
        "machine_unfit",
        f"The program {tool} is not installed.",
        remedy=f"Install it: apt install {package}",
    )


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    text = (done.stderr or done.stdout).decode(errors="replace").strip()
    return text[:SAID_CHARS_MAX] or f"exit status {done.returncode}"
