"""`scrapy serve`."""

import argparse
import logging
import socket

from scrapy.exceptions import UsageError
from scrapy.settings import Settings

from catlog_scrapy.api.app import create_app
from catlog_scrapy.api.server import make_server, url_of
from catlog_scrapy.api.state import CONNECT_TIMEOUT_S
from catlog_scrapy.commands.background import add_background_options, run_in_background
from catlog_scrapy.commands.base import CatlogCommand, stop_signals
from catlog_scrapy.config import DEFAULTS
from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.declarations import load_spiders
from catlog_scrapy.declarations.capabilities import read_capabilities
from catlog_scrapy.declarations.resources import read_resources
from catlog_scrapy.exceptions import NotPossible


class Command(CatlogCommand):
    """Run the HTTP API: serve records, accept loads and results."""

    is_service = True

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        host, port = DEFAULTS["CATLOG_API_HOST"], DEFAULTS["CATLOG_API_PORT"]
        parser.add_argument(
            "--host",
            metavar="HOST",
            help=f"address to listen on (default CATLOG_API_HOST, {host})",
        )
        parser.add_argument(
            "--port",
            type=int,
            metavar="N",
            help=f"port to listen on, 0 for a free port (default CATLOG_API_PORT, {port})",
        )

        add_background_options(parser)

    def execute(self, args: list[str], opts: argparse.Namespace) -> None:
        if args:
            raise UsageError(f"unexpected argument {args[0]!r}")
        settings = self.project_settings
        if message := run_in_background(self.name, settings, opts):
            self.console.print(message, markup=False, soft_wrap=True)
            return
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        resources = read_resources(settings)
        capabilities = read_capabilities(settings, load_spiders(settings))
        with self.database() as database, _listen(settings, opts) as listener:
            engine = make_engine(
                database.url.render_as_string(hide_password=False),
                statement_timeout=settings.getfloat("CATLOG_API_TIMEOUT"),
                connect_timeout=CONNECT_TIMEOUT_S,
            )
            app = create_app(engine, settings, resources, capabilities)
            self.console.print(
                f"serving {url_of(listener)}, documented at /docs; Ctrl-C ends it", markup=False
            )
            # uvicorn raises the signal that ended it again, for the handlers of before.
            stop_signals()
            make_server(app, settings).run(sockets=[listener])
            engine.dispose()


def _listen(settings: Settings, opts: argparse.Namespace) -> socket.socket:
    host = opts.host or settings["CATLOG_API_HOST"]
    port = settings.getint("CATLOG_API_PORT") if opts.port is None else opts.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise NotPossible(
            f"the HTTP API cannot listen on {host}:{port} ({why}); choose another port with"
            " --port, or --api-port of scrapy up"
        ) from error
