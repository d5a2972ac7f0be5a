"""`pool5 keys add|list|revoke|rotate`."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from index import Catalog, Key
from service import logs
from service.cli.options import Json, console, print_json, status, takes_settings
from service.problems import Problem
from service.security.audit import AuditLog
from service.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    help="Who may call the service. A running one sees a change within a second.",
)

_AUDITED = ("data", "audit", "audit_bytes", "audit_files")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

Id = Annotated[str, typer.Argument(help="of a key, as `pool5 keys list` shows it")]


@app.command()
@takes_settings(*_AUDITED)
def add(
    settings: Settings,
    name: Annotated[str, typer.Argument(help="whose it is or what for")],
    scope: Annotated[
        Literal["read", "write", "admin"],
        typer.Option(help="read: search; write: items and jobs too; admin: collections too"),
    ] = "read",
    collection: Annotated[
        list[str] | None, typer.Option(help="only for this one; repeat it for several")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="after 12h, 30d, 8w")] = None,
    json: Json = False,
) -> None:
    """Make a key. Its secret is shown this once."""
    with _catalog(settings) as (catalog, audit):
        until = datetime.now(UTC) + duration("expires", expires) if expires else None
        key, secret = catalog.keys.add(name, scope, collection, until)
        audit.write_command("keys add", key=key.id, scope=scope, collections=key.collections)
    _show(key, secret, json)


@app.command(name="list")
@takes_settings("data")
def list_(settings: Settings, json: Json = False) -> None:
    """All keys, those that ended included; no secrets."""
    with _catalog(settings) as (catalog, _):
        keys = catalog.keys.list()
    if json:
        print_json({"keys": [_shown(key) for key in keys]})
        return
    table = Table("id", "name", "scope", "collections", "made", "expires", "state", box=None)
    for key in keys:
        shown = _shown(key)
        cells = (shown[name] for name in ("id", "name", "scope"))
        names = ", ".join(key.collections) if key.collections else "all"
        days = (_day(moment) for moment in (key.created_at, key.expires_at))
        table.add_row(*cells, names, *days, shown["state"])
    console.print(table, markup=False)


@app.command()
@takes_settings(*_AUDITED)
def revoke(settings: Settings, key: Id, json: Json = False) -> None:
    """End a key at once."""
    with _catalog(settings) as (catalog, audit):
        ended = catalog.keys.revoke(key)
        audit.write_command("keys revoke", key=ended.id)
    if json:
        print_json(_shown(ended))
    else:
        status.print(f"{ended.id} ({ended.name}) is revoked", markup=False)


@app.command()
@takes_settings(*_AUDITED)
def rotate(
    settings: Settings,
    key: Id,
    grace: Annotated[str, typer.Option(help="how long the old key still holds: 10m, 1d")] = "0s",
    json: Json = False,
) -> None:
    """Make a key that may do the same as this one, and end this one. The secret is shown once."""
    with _catalog(settings) as (catalog, audit):
        made, secret = catalog.keys.rotate(key, duration("grace", grace))
        audit.write_command("keys rotate", key=key, successor=made.id, grace=grace)
    _show(made, secret, json)


def duration(flag: str, text: str) -> timedelta:
    """Raises Problem `request-invalid`.

    >>> duration("expires", "36h")
    datetime.timedelta(days=1, seconds=43200)
    """
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if not found:
        raise Problem("request-invalid", f"--{flag} is a number with s, m, h, d or w: not {text!r}")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


@contextmanager
def _catalog(settings: Settings) -> Iterator[tuple[Catalog, AuditLog]]:
    logs.configure(settings.log_format, level=30)
    with Catalog.open(settings.data) as catalog:
        yield catalog, AuditLog(settings)


def _shown(key: Key) -> dict[str, Any]:
    now = datetime.now(UTC)
    ended = "revoked" if key.revoked_at else "expired"
    return {
        "id": key.id,
        "name": key.name,
        "scope": key.scope,
        "collections": key.collections,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "state": "holds" if key.holds(now) else ended,
    }


def _show(key: Key, secret: str, json: bool) -> None:
    if json:
        print_json({**_shown(key), "secret": secret})
        return
    status.print(f"{key.id} ({key.name}) may {key.scope}; keep this, it is not shown again:")
    typer.echo(secret)


def _day(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%d") if moment else "never"
