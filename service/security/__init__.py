"""Who may call the service, and what no request may do to it: middleware, from outside to inside.

    headers      security headers on every answer
    bodies       size and pace of what is sent
    audit        a record of every write, done or refused
    hosts        names that the service answers to, and pages that may write to it
    access       keys, scopes, collections (`callers`, `operations`) and rates

Below them `connections` bounds what comes before a request is one.
"""

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from service.engine import Engine
from service.security.access import Access
from service.security.audit import Audit, AuditLog
from service.security.bodies import Bodies
from service.security.callers import Keyring
from service.security.headers import Headers
from service.security.hosts import Hosts
from service.security.rates import Rates


def protect(app: FastAPI, engine: Engine) -> None:
    """Put all of it around an application; what is added last is met first."""
    settings = engine.settings
    keyring = Keyring(engine.catalog.keys, settings)
    app.add_middleware(Access, keyring=keyring, rates=Rates(settings), settings=settings)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
            expose_headers=["Retry-After", "X-Request-ID", "X-Pool5-Fingerprint"],
        )
    app.add_middleware(Hosts, settings=settings)
    app.add_middleware(Audit, log=AuditLog(settings))
    app.add_middleware(Bodies, settings=settings)
    app.add_middleware(Headers)
