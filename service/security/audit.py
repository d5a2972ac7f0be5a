"""The audit log: every write that a caller asked for, who they are, and what became of it.

One JSON line each, appended to a file of its own. Neither pictures nor metadata nor secrets are in
it: ids, counts and codes.
"""

import asyncio
import getpass
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import structlog
from concurrent_log_handler import ConcurrentRotatingFileHandler
from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.security.callers import Caller
from service.security.operations import OPERATIONS, Operation
from service.settings import Settings

logger = structlog.get_logger(__name__)

FILE = "audit.jsonl"
MOST_IDS = 100
"""Ids that one line names; the counts are of all."""

RATE_LIMITED = 429

OUTCOMES: Mapping[int, str] = {2: "done", 3: "done", 4: "refused", 5: "failed"}


class AuditLog:
    """Writes lines to where the settings say; several processes may write to one folder."""

    def __init__(self, settings: Settings) -> None:
        self._log = logging.Logger("pool5.audit")
        if settings.audit in ("file", "both"):
            self._log.addHandler(_file(settings))
        if settings.audit in ("stdout", "both"):
            self._log.addHandler(logging.StreamHandler(sys.stdout))
        self._lines = structlog.wrap_logger(
            self._log,
            wrapper_class=structlog.BoundLogger,
            processors=[
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
                structlog.processors.EventRenamer("operation"),
                structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
            ],
        )

    def write(self, operation: str, **facts: Any) -> None:
        """Append a line; what is None is left out."""
        if self._log.handlers:
            self._lines.info(operation, **{k: v for k, v in facts.items() if v is not None})

    def write_command(self, command: str, **facts: Any) -> None:
        """Append what somebody at this machine's command line did."""
        self.write(f"pool5 {command}", user=_user(), outcome="done", **facts)


class Audit:
    """Records every request to an operation that writes, when its answer has ended.

    Those of nobody are left out: anyone could push the record of the others out of the log.
    """

    def __init__(self, app: ASGIApp, log: AuditLog) -> None:
        self.app = app
        self._log = log
        self._in_turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on anything that is no HTTP request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope["state"]
        asked: Operation = state["operation"]
        if not asked.writes or asked.name not in OPERATIONS:
            await self.app(scope, receive, send)
            return
        status = 0
        noted: dict[str, Any] = {}
        state["noted"] = noted

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watch)
        finally:
            caller = state.get("caller")
            if _is_somebody(caller, status):
                async with self._in_turn:
                    await run_in_threadpool(
                        self._log.write,
                        asked.name,
                        request_id=structlog.contextvars.get_contextvars().get("request_id"),
                        key=caller.key,
                        address=(scope.get("client") or ("local",))[0],
                        **{name: value[:200] for name, value in asked.parameters.items()},
                        status=status or None,
                        outcome=OUTCOMES.get(status // 100, "failed"),
                        **noted,
                    )


def _is_somebody(caller: Caller | None, status: int) -> TypeGuard[Caller]:
    if caller is None or caller.scope is None:
        return False
    return caller.key is not None or status != RATE_LIMITED


def note(request: Request, **facts: Any) -> None:
    """Say more of a write: ids and counts, nothing that a picture or its metadata shows."""
    request.state.noted.update(facts)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # A container's user need not have a name.
        return "unnamed"


class _File(ConcurrentRotatingFileHandler):
    """Says what is wrong in the service's log, since a request must not fail for it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, ARG002
        """A line could not be written."""
        logger.error("the audit log cannot be written", exc_info=sys.exc_info()[1])


def _file(settings: Settings) -> logging.Handler:
    path: Path = settings.data / FILE
    # Opened for each line: another process may have begun the next file in between.
    return _File(
        str(path),
        maxBytes=settings.audit_bytes,
        backupCount=settings.audit_files - 1,
        encoding="utf-8",
        chmod=0o600,
        keep_file_open=False,
    )
