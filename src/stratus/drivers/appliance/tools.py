"""How does the builder run the host's tools? As argument lists, in one fixed environment."""

import os
import subprocess
from pathlib import Path

from stratus.drivers.appliance.failure import ApplianceFailed

# Every time stamp in the image: equal packages must give equal bytes.
BUILD_EPOCH_SECONDS = 1_700_000_000

OUTPUT_SHOWN_CHARACTERS_MAX = 400

PACKAGE_OF_TOOL = {
    "apt-cache": "apt",
    "apt-get": "apt",
    "debugfs": "e2fsprogs",
    "dpkg-deb": "dpkg",
    "mcopy": "mtools",
    "mformat": "mtools",
    "mke2fs": "e2fsprogs",
    "zstd": "zstd",
}


def tool_run(
    arguments: list[str],
    *,
    timeout_seconds: float,
    cwd: Path | None = None,
    text_in: str | None = None,
    remedy: str = "The message above names the cause.",
) -> str:
    """What the tool wrote; ApplianceFailed if it is missing, fails or takes too long."""
    tool = Path(arguments[0]).name
    environment = {
        **os.environ,
        # The tools of e2fsprogs live where an ordinary user's path does not look.
        "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin",
        "LC_ALL": "C",
        "TZ": "UTC",
        "SOURCE_DATE_EPOCH": str(BUILD_EPOCH_SECONDS),
        "E2FSPROGS_FAKE_TIME": str(BUILD_EPOCH_SECONDS),
        "MTOOLS_SKIP_CHECK": "1",
    }
    try:
        done = subprocess.run(
            arguments,
            cwd=cwd,
            env=environment,
            input=text_in if text_in is not None else "",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            check=False,
        )
    except FileNotFoundError as error:
        raise ApplianceFailed(
            f"The tool {tool} is not installed on this machine.",
            remedy=f"Install the Debian package {PACKAGE_OF_TOOL.get(tool, tool)}.",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ApplianceFailed(
            f"The tool {tool} did not finish within {timeout_seconds:.0f} seconds.",
            remedy="Try again when the machine and its network are less busy.",
        ) from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-OUTPUT_SHOWN_CHARACTERS_MAX:]
        raise ApplianceFailed(f"The tool {tool} failed: {said or 'no message'}.", remedy=remedy)
    return done.stdout
