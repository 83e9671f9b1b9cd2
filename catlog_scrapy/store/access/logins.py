"""How often somebody may try passwords: after five failures in a row, ever less."""

from ipaddress import IPv6Address, ip_address

from sqlalchemy import Connection

from catlog_scrapy.store.sql import Database, row, run

# Failures in a row that cost nothing; then seconds to wait, doubled by each further one, at most so
# many. All are forgotten after an hour without one.
FREE_FAILURES = 5
FIRST_WAIT_S = 5.0
MAX_WAIT_S = 900.0
FORGET_FAILURES_AFTER_S = 3600.0


class _LoginBlocked(Exception):
    """Rolls back what was counted so far; `seconds` to wait."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


def begin_login(database: Database, user: str, address: str) -> float:
    """Count a log-in as failed before its password is looked at; 0, or the seconds until it may be.

    Counted first, so that a thousand at once are no thousand free guesses; `record_login` takes it
    back.
    """
    try:
        with database.begin() as connection:
            # Always in this order: two that share both would wait for each other.
            _count(connection, _network(address))
            _count(connection, f"user:{user}")
    except _LoginBlocked as blocked:
        return blocked.seconds
    return 0.0


def record_login(database: Database, user: str, address: str) -> None:
    """It was the right password: forget the user's failures, and this one of the address.

    Not all of the address: who has an account would clear their guesses at others with it.
    """
    with database.begin() as connection:
        run(
            connection,
            """UPDATE catlog.login_failure SET failures = failures - 1, blocked_until = NULL
               WHERE subject = :subject""",
            subject=_network(address),
        )
        run(
            connection,
            "DELETE FROM catlog.login_failure WHERE subject = :subject",
            subject=f"user:{user}",
        )


def _count(connection: Connection, subject: str) -> None:
    run(
        connection,
        """INSERT INTO catlog.login_failure (subject, failures, last_at)
           VALUES (:subject, 0, clock_timestamp()) ON CONFLICT (subject) DO NOTHING""",
        subject=subject,
    )
    found = row(
        connection,
        """SELECT CASE WHEN last_at < clock_timestamp() - make_interval(secs => :forgotten) THEN 0
                       ELSE failures END AS failures,
               extract(epoch FROM blocked_until - clock_timestamp())::float8 AS wait
           FROM catlog.login_failure WHERE subject = :subject FOR UPDATE""",
        subject=subject,
        forgotten=FORGET_FAILURES_AFTER_S,
    )
    if found and (found["wait"] or 0) > 0:
        raise _LoginBlocked(found["wait"])
    failures = (found["failures"] if found else 0) + 1
    run(
        connection,
        """UPDATE catlog.login_failure SET failures = :failures, last_at = clock_timestamp(),
               blocked_until = clock_timestamp() + make_interval(secs => :wait)
           WHERE subject = :subject""",
        subject=subject,
        failures=failures,
        wait=wait_after_failures(failures),
    )


def wait_after_failures(failures: int) -> float | None:
    """The seconds that nobody may try after so many failures in a row; None before they matter."""
    if failures < FREE_FAILURES:
        return None
    return float(min(MAX_WAIT_S, FIRST_WAIT_S * 2 ** min(failures - FREE_FAILURES, 30)))


def _network(address: str) -> str:
    """Whom an address belongs to: of IPv6, everybody has 2^64 of them."""
    try:
        ip = ip_address(address)
    except ValueError:
        return f"address:{address}"
    if isinstance(ip, IPv6Address):
        ip = ip.ipv4_mapped or IPv6Address(int(ip) >> 64 << 64)
    return f"address:{ip}"
