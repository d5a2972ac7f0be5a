"""Statements that every search makes: compiled once, run without ceremony."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from sqlalchemy import Connection
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler


class Prepared:
    """One statement of SQLAlchemy, compiled for the database at hand when it is first run.

    Values and rows are as the driver has them: nothing converts JSON or moments. It runs within the
    transaction of its connection, or by itself where there is none.
    """

    def __init__(self, statement: ClauseElement) -> None:
        self._statement = statement
        self._known: dict[str, tuple[str, list[str], dict[str, Any]]] = {}

    def rows(self, connection: Connection, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """The rows of a query; `values` are its parameters by name."""
        cursor = _driver(connection).cursor()
        sql, names, constant = self._compiled(connection.dialect)
        filled = {**constant, **values}
        cursor.execute(sql, tuple([filled[name] for name in names]))
        found: list[tuple[Any, ...]] = cursor.fetchall()
        return found

    def many(self, connection: Connection, rows: Iterable[tuple[Any, ...]]) -> None:
        """Run it for each of `rows`, whose values stand in the order of the statement."""
        sql, _, _ = self._compiled(connection.dialect)
        _driver(connection).cursor().executemany(sql, rows)

    def _compiled(self, dialect: Dialect) -> tuple[str, list[str], dict[str, Any]]:
        known = self._known.get(dialect.name)
        if known is None:
            compiled = cast(SQLCompiler, self._statement.compile(dialect=dialect))
            names = list(compiled.positiontup or ())
            known = self._known[dialect.name] = (
                str(compiled),
                names,
                {name: value for name, value in compiled.params.items() if value is not None},
            )
        return known


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection
