"""Users, keys and tokens for tests, and a small server that knows them."""

import argparse
from collections.abc import Mapping
from importlib import import_module
from typing import Annotated, Any

from argon2 import PasswordHasher
from fastapi import Depends, FastAPI, Request, Response
from scrapy.settings import Settings
from sqlalchemy import Engine
from starlette.testclient import TestClient

from catlog_scrapy.api.auth.callers import Access, Caller, permission
from catlog_scrapy.api.auth.passwords import Passwords
from catlog_scrapy.api.auth.tokens import router
from catlog_scrapy.api.changes import ChangeResult, run_change
from catlog_scrapy.api.problems import Problem
from catlog_scrapy.config import DEFAULTS
from catlog_scrapy.declarations.roles import DEFAULT_ROLES
from catlog_scrapy.store.access.users import add_user
from catlog_scrapy.store.sql import Transaction

PASSWORD = "correct horse"
# As slow as nothing: what is tested is not argon2.
COST = {"time_cost": 1, "memory_cost": 8, "parallelism": 1}


class CountingHasher(PasswordHasher):
    """Password hasher that counts verifications and the longest password."""

    def __init__(self) -> None:
        super().__init__(**COST)
        self.verified = 0
        self.longest = 0

    def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
        self.longest = max(self.longest, len(password))
        return super().hash(password, salt=salt)

    def verify(self, hash: str | bytes, password: str | bytes) -> Any:
        self.verified += 1
        self.longest = max(self.longest, len(password))
        return super().verify(hash, password)


def given_access(
    engine: Engine, roles: Mapping[str, frozenset[str]] = DEFAULT_ROLES, **settings: Any
) -> Access:
    """Return Access with fast hashes; *settings* have no prefix: `access=0.1`."""
    given = {f"CATLOG_API_{name.upper()}": value for name, value in settings.items()}
    return Access(
        engine, roles, Settings({**DEFAULTS, **given}), passwords=Passwords(CountingHasher())
    )


def given_a_user(engine: Engine, name: str = "alice", role: str = "internal") -> str:
    """Add a user with the password PASSWORD, and return the name."""
    add_user(engine, name, role, PasswordHasher(**COST).hash(PASSWORD))
    return name


def a_client(access: Access, *, address: str = "192.0.2.1") -> TestClient:
    """Return a client of a server with the tokens of *access* and the resource `catalogs`."""
    app = FastAPI()
    app.state.access = access
    app.include_router(router, prefix="/api/v1")

    @app.exception_handler(Problem)
    def problem(_: Request, error: Problem) -> Response:
        return error.response()

    @app.get("/catalogs")
    def reading(
        caller: Annotated[Caller, Depends(permission("catalogs", "read"))],
    ) -> dict[str, Any]:
        return {"name": caller.name, "role": caller.role, "address": caller.address}

    @app.post("/catalogs/{word}")
    def changing(
        word: str,
        request: Request,
        caller: Annotated[Caller, Depends(permission("catalogs", "create"))],
    ) -> Response:
        def work(_: Transaction) -> ChangeResult:
            return ChangeResult(f"catalog {word}", {"word": word}, 201)

        return run_change(
            access.engine, request, caller, "catalogs:create", work, body={"word": word}
        )

    return TestClient(app, client=(address, 1234))


def log_in(client: TestClient, name: str = "alice", password: str = PASSWORD) -> Any:
    """Log in, and return the response."""
    return client.post("/api/v1/token", json={"username": name, "password": password})


def with_token(token: str) -> dict[str, str]:
    """Return the header that carries *token*."""
    return {"Authorization": f"Bearer {token}"}


def command(name: str, database_url: str, *arguments: str, resources: str | None = None) -> None:
    """Run `scrapy NAME ARGUMENTS...` in this process; *resources* is the declaration file."""
    made = import_module(f"catlog_scrapy.commands.{name}").Command()
    made.settings = Settings(
        {
            **DEFAULTS,
            "CATLOG_DATABASE_URL": database_url,
            "CATLOG_HOME": ".",
        }
    )
    if resources is None:  # as where a project has no such file
        made.settings.delete("CATLOG_RESOURCES")
        made.settings.set("CATLOG_RESOURCES", "resources.toml", "default")
    else:
        made.settings.set("CATLOG_RESOURCES", resources)
    parser = argparse.ArgumentParser()
    made.add_options(parser)
    options, words = parser.parse_known_args(arguments)
    made.run(words, options)
