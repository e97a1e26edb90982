"""How do a few small text files become a medium that a guest can mount?

ISO 9660 with Joliet and Rock Ridge names, so that every reader finds the names as they are given.
"""

import io
from typing import Final

import pycdlib

from stratus.drivers.refusal import failed

LABEL_CHARS_MAX: Final = 16  # Joliet keeps 32 bytes of UCS-2
FILES_MAX: Final = 64
BYTES_MAX: Final = 1 << 20
DEPTH_MAX: Final = 6  # ISO 9660 allows eight levels, the root among them


def seed_image(label: str, files: dict[str, str]) -> bytes:
    """Return the medium's bytes; paths use `/` and directories are made as needed."""
    total = sum(len(name.encode()) + len(text.encode()) for name, text in files.items())
    assert 0 < len(label) <= LABEL_CHARS_MAX, label
    if len(files) > FILES_MAX or total > BYTES_MAX:
        raise failed(
            "volume_failed",
            f"A seed medium of {len(files)} files and {total} bytes is too large.",
            remedy=f"Give the instance less context: at most {BYTES_MAX} bytes in all.",
        )
    medium = pycdlib.PyCdlib()
    medium.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=label)
    try:
        directories: dict[str, str] = {"": ""}
        for number, (path, text) in enumerate(sorted(files.items())):
            parent = _directory_ensure(medium, path.rpartition("/")[0], directories)
            content = text.encode()
            medium.add_fp(
                io.BytesIO(content),
                len(content),
                f"{parent}/F{number}.;1",
                rr_name=path.rpartition("/")[2],
                joliet_path="/" + path,
            )
        out = io.BytesIO()
        medium.write_fp(out)
    finally:
        medium.close()
    return out.getvalue()


def _directory_ensure(medium: pycdlib.PyCdlib, path: str, known: dict[str, str]) -> str:
    """Make the directory and those above it; return its name in the plain ISO tree."""
    assert path.count("/") < DEPTH_MAX, f"{path} is too deep for ISO 9660"
    if path not in known:
        parent = _directory_ensure(medium, path.rpartition("/")[0], known)
        known[path] = f"{parent}/D{len(known)}"
        medium.add_directory(known[path], rr_name=path.rpartition("/")[2], joliet_path="/" + path)
    return known[path]
