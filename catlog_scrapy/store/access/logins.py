"""Log-in limits: after a few failures in a row a user or address has to wait."""

from ipaddress import IPv6Address, ip_address

from sqlalchemy import Connection

from catlog_scrapy.store.sql import Database, one, run

# After so many failures in a row, the next attempt has to wait. Each further failure doubles the
# wait, up to the maximum. An hour without a failure resets the count.
FREE_FAILURES = 5
FIRST_WAIT_S = 5.0
MAX_WAIT_S = 900.0
FORGET_FAILURES_AFTER_S = 3600.0


class _LoginBlocked(Exception):
    """The user or the address is blocked for `seconds`; rolls back the counts."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


def begin_login(database: Database, user: str, address: str) -> float:
    """Count a failed log-in before the password is checked; return the seconds to wait, or 0.

    Counting first limits concurrent guesses too; `record_login` takes the failure back.
    """
    try:
        with database.begin() as connection:
            # Always in this order: two log-ins that share both rows would otherwise deadlock.
            _count(connection, _network(address))
            _count(connection, f"user:{user}")
    except _LoginBlocked as blocked:
        return blocked.seconds
    return 0.0


def record_login(database: Database, user: str, address: str) -> None:
    """Delete the user's failures, and take this failure of the address back.

    The address keeps its other failures; otherwise the owner of one account could guess the
    passwords of other accounts without limit.
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
    # One statement: between an insert and a select, `record_login` of another session could delete
    # the row. The update changes nothing, but locks a row that exists.
    found = one(
        connection,
        """INSERT INTO catlog.login_failure AS f (subject, failures, last_at)
           VALUES (:subject, 0, clock_timestamp())
           ON CONFLICT (subject) DO UPDATE SET subject = excluded.subject
           RETURNING CASE WHEN f.last_at < clock_timestamp() - make_interval(secs => :forgotten)
                          THEN 0 ELSE f.failures END AS failures,
               extract(epoch FROM f.blocked_until - clock_timestamp())::float8 AS wait""",
        subject=subject,
        forgotten=FORGET_FAILURES_AFTER_S,
    )
    if (found["wait"] or 0) > 0:
        raise _LoginBlocked(found["wait"])
    failures = found["failures"] + 1
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
    """Return the seconds to wait after *failures* in a row, or None for too few failures."""
    if failures < FREE_FAILURES:
        return None
    return float(min(MAX_WAIT_S, FIRST_WAIT_S * 2 ** min(failures - FREE_FAILURES, 30)))


def _network(address: str) -> str:
    """Return the network of an address: for IPv6 its /64, which belongs to one customer."""
    try:
        ip = ip_address(address)
    except ValueError:
        return f"address:{address}"
    if isinstance(ip, IPv6Address):
        ip = ip.ipv4_mapped or IPv6Address(int(ip) >> 64 << 64)
    return f"address:{ip}"
