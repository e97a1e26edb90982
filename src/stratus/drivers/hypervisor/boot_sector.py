"""What is the smallest real guest that can show whether a hypervisor keeps its promises?

One sector, running a tenth of a second after power-on even where the processor is translated.
It prints a text on its serial line, halts when its power button is pressed, and obeys single
letters on the serial line. The source is `boot_sector.S`; a test compares.
"""

from typing import Final

SECTOR_BYTES: Final = 512
DISK_BYTES: Final = 1 << 20
SIGNATURE: Final = b"\x55\xaa"
CODE: Final = bytes.fromhex(
    "fa31c08ed88ed0bc007cfcbe537cbaf803ac84c07403eeebf8ba0206b800"
    "01efba0006edf6c4017521bafd03eca801740dbaf803ec3c6874113c7074"
    "05eefbf4ebdeba0505b001eeebf4ba0406b80020efebeb"
)

HALT: Final = b"h"
PANIC: Final = b"p"


def disk_bytes(text: str) -> bytes:
    """Return the raw disk of a guest that prints this ASCII text."""
    sector = (CODE + text.encode("ascii") + b"\0").ljust(SECTOR_BYTES - len(SIGNATURE), b"\0")
    assert len(sector) == SECTOR_BYTES - len(SIGNATURE), "the text is too long for one sector"
    return (sector + SIGNATURE).ljust(DISK_BYTES, b"\0")
