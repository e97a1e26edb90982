"""How much does the door let in at once? Every limit of the HTTP door, with its unit."""

from dataclasses import dataclass

import stratus
from stratus.model import limits


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiSettings:
    """The limits of one API process, and what it says about itself."""

    site: str = "StratusLab"
    version: str = stratus.__version__

    body_bytes_max: int = limits.BODY_BYTES_MAX
    upload_bytes_max: int = limits.UPLOAD_CHUNK_BYTES_MAX  # of one upload request
    query_chars_max: int = 8192
    body_seconds_max: float = 60.0  # for a JSON body to arrive; an upload's every piece

    # Requests per second of one token, and of one address before its token is known to be good.
    token_rate: float = 3000.0
    token_burst: float = 6000.0
    address_rate: float = 100.0
    address_burst: float = 1000.0
    rate_rows_max: int = 20_000  # tokens and addresses remembered

    login_failures_max: int = 10  # by one name from one address, before it must wait
    login_failures_per_address_max: int = 100
    login_forgiven_seconds: float = 30.0  # one failure is forgiven after this time

    read_threads: int = 0  # 0: as many as suit the database
    write_threads: int = 32  # they mostly wait for the commit that they share
    slow_threads: int = 8  # passwords, consoles, uploads
    queue_calls_max: int = 1024  # waiting for a thread of one kind; more are told to come back
    log_seconds: float = 0.2  # for how long lines of the access log may be gathered
    log_lines_max: int = 10_000  # gathered at most; more are counted and left out
    metrics_seconds: float = 5.0  # for how long figures from the store are reused

    streams_max: int = 256  # event streams
    streams_per_user_max: int = 32
    waiters_max: int = 5000  # requests with ?wait=
    heartbeat_seconds: float = 15.0
    consumer_seconds_max: float = 30.0  # a stream that takes nothing for so long is dropped

    connections_max: int = 8192
    head_bytes_max: int = 64 * 1024  # request line and headers
    head_seconds_max: float = 30.0  # for them to arrive
    keep_alive_seconds: int = 75
    stop_seconds_max: float = 5.0  # for requests under way, when the server stops
