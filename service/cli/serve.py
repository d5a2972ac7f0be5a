"""`pool5 serve`."""

import math
from pathlib import Path
from typing import Annotated

import structlog
import typer
import uvicorn

from service import logs, tracing
from service.app import create_app
from service.cli.gallery import render
from service.cli.index import report, source_of
from service.cli.options import all_settings, status, takes_settings
from service.cli.progress import opened, run_job
from service.draining import CLOSING_S, Drain, Server
from service.engine import DEFAULT
from service.security.callers import check_start, is_loopback
from service.security.connections import bounded
from service.settings import Settings

logger = structlog.get_logger(__name__)

DEMO_PICTURES = 300


@takes_settings(*all_settings())
def serve(
    settings: Settings,
    index: Annotated[
        Path | None, typer.Option(help="first index this folder into `default`")
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="first index a gallery of rendered pictures")
    ] = False,
) -> None:
    """Start the service: HTTP, search page, indexing jobs."""
    logs.configure(settings.log_format)
    drain = Drain(settings)
    logger.info("settings", **settings.shown())
    tracing.configure(settings)
    if settings.insecure and not is_loopback(settings.host):
        logger.warning("anyone who reaches this address can read and write", host=settings.host)
    with opened(settings) as engine:
        check_start(engine.catalog.keys, settings)
        collection = engine.catalog.collection(DEFAULT)
        if demo and index is None:
            index = settings.data / "demo-gallery"
            render(index, DEMO_PICTURES)
        if index is not None:
            report(engine, run_job(engine, collection, source_of(index)))
        app = create_app(engine)
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            http=bounded(
                settings.header_timeout_s, settings.stall_timeout_s, settings.min_body_rate
            ),
            ws="none",
            limit_concurrency=settings.max_connections,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(settings.trusted_proxies),
            timeout_graceful_shutdown=math.ceil(settings.drain_s + CLOSING_S),
        )
        socket = config.bind_socket()
        port = socket.getsockname()[1]
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        status.print(f"[bold]pool5[/] is at http://{host}:{port}/ ({collection.count()} pictures)")
        server = Server(config)
        drain.watch(engine, app, server)
        server.run(sockets=[socket])
        drain.served()
    tracing.close()
    drain.closed()
