"""PgBouncer in transaction mode, as a real process in front of the test server."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs

from sqlalchemy import make_url

from tests.support.waiting import free_port, until

CONFIGURATION = """
[databases]
* = host={socket} port={port} pool_size={pool_size}

[pgbouncer]
pool_mode = transaction
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = {auth_type}
auth_file = {folder}/users
max_client_conn = 500
"""


class PgBouncer:
    """PgBouncer to the server of *target*, with *pool_size* connections for each database."""

    def __init__(
        self, target: str, pool_size: int = 20, *, auth_type: str = "trust", password: str = ""
    ) -> None:
        self.target = target
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="catlog-pgbouncer-"))
        socket = Path(parse_qs(target.partition("?")[2])["host"][0])
        # PgBouncer refuses to run as root, and only the server's user may enter the folder.
        self.owner, self.group = socket.stat().st_uid, socket.stat().st_gid
        configuration = CONFIGURATION.format(
            socket=socket,
            port=5432,
            pool_size=pool_size,
            listen_port=self.port,
            folder=self.folder,
            auth_type=auth_type,
        )
        (self.folder / "users").write_text(f'"catlog" "{password}"\n')
        (self.folder / "pgbouncer.ini").write_text(configuration)
        for path in (self.folder, *self.folder.iterdir()):
            os.chown(path, self.owner, self.group)

    @property
    def url(self) -> str:
        """Return the target's URL through PgBouncer."""
        url = make_url(self.target).set(host="127.0.0.1", port=self.port, query={})
        return url.render_as_string(hide_password=False)

    def __enter__(self) -> Self:
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, "install PgBouncer: apt-get install pgbouncer"
        log = self.folder / "log"
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [program, self.folder / "pgbouncer.ini"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                **self._account(),
            )
        until(lambda: "process up" in log.read_text(), what=log.read_text)
        return self

    def _account(self) -> dict[str, Any]:
        if os.geteuid() != 0:
            return {}
        return {"user": self.owner, "group": self.group, "extra_groups": []}

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder)
