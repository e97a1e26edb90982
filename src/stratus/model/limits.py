"""How much is too much? The named limits of what comes in from outside."""

import re
from typing import Final

from stratus.model.units import GIB, KIB, MIB

NAME_PATTERN: Final = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")  # RFC 1123 label
NAME_CHARS_MAX: Final = 63
USER_NAME_PATTERN: Final = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9._@+-]{0,63}$")
TITLE_CHARS_MAX: Final = 200

COUNT_MAX: Final = 1000  # instances in one request
VCPUS_MAX: Final = 1024
MEMORY_MIB_MIN: Final = 64
MEMORY_MIB_MAX: Final = 16 * 1024 * 1024
DISK_GIB_MAX: Final = 64 * 1024
SWAP_MIB_MAX: Final = 1024 * 1024
SSH_KEYS_MAX: Final = 32
SSH_KEY_CHARS_MAX: Final = 8 * KIB
USER_DATA_BYTES_MAX: Final = 64 * KIB
CONTEXT_PAIRS_MAX: Final = 64
CONTEXT_KEY_PATTERN: Final = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")
CONTEXT_VALUE_BYTES_MAX: Final = 4 * KIB

BODY_BYTES_MAX: Final = 1 * MIB  # any JSON request
PAGE_ROWS_MAX: Final = 1000
PAGE_ROWS_DEFAULT: Final = 100
WAIT_SECONDS_MAX: Final = 300
IMAGE_BYTES_MAX: Final = 2048 * GIB
UPLOAD_CHUNK_BYTES_MAX: Final = 64 * MIB
CONSOLE_BYTES_MAX: Final = 1 * MIB
ENDORSEMENT_BYTES_MAX: Final = 64 * KIB
POLICY_RULES_MAX: Final = 1000
TOKEN_LIFE_DAYS_MAX: Final = 366
