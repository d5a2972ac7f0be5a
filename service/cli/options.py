"""Flags that several commands share; every setting is a flag of the same name."""

import functools
import inspect
import json
import sys
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from rich.console import Console

from service.problems import Problem
from service.settings import Settings

console = Console(width=None if sys.stdout.isatty() else 200)
"""Results go here."""

status = Console(stderr=True)
"""Progress and remarks go here, out of a script's way."""

Json = Annotated[bool, typer.Option("--json", help="print JSON, for scripts")]
CollectionName = Annotated[str, typer.Option(help="name of a collection")]
SpaceName = Annotated[str | None, typer.Option(help="name of a space, such as high")]

ENGINE = (
    *("data", "cache_dir", "device", "runtime", "precision"),
    *("weights_dir", "weights_mirror", "offline", "network", "weights"),
)
"""Settings that any command with an engine takes."""


def takes_settings(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command these settings as flags; it receives one validated `Settings`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            flags = {name: given.pop(name) for name in names}
            chosen = {name: value for name, value in flags.items() if value is not None}
            command(settings=Settings(**chosen), **given)

        own = [
            parameter
            for parameter in inspect.signature(command).parameters.values()
            if parameter.name != "settings"
        ]
        flags = [_flag(name) for name in names]
        vars(run)["__signature__"] = inspect.Signature([*own, *flags])
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *flags]}
        del vars(run)["__wrapped__"]  # Typer must see the flags, not what is under them.
        return run

    return decorate


def _flag(name: str) -> inspect.Parameter:
    setting = Settings.model_fields[name]
    option = typer.Option(help=setting.description, show_default=False)
    annotation: Any = Annotated[_optional(setting.annotation), option]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def _optional(annotation: Any) -> Any:
    """The type of a flag; lists and choices are typed as text and validated by the settings."""
    if isinstance(annotation, types.UnionType):
        annotation = next(kind for kind in get_args(annotation) if kind is not type(None))
    if get_origin(annotation) in (tuple, Literal) or annotation not in (int, float, bool, Path):
        annotation = str
    return annotation | None


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    typer.echo(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def json_of(flag: str, text: str) -> Any:
    """What a flag says in JSON. Raises Problem: `request-invalid`."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise Problem("request-invalid", f"--{flag} is no valid JSON: {error}") from error


def all_settings(but: Iterable[str] = ()) -> tuple[str, ...]:
    """The names of all settings except some."""
    return tuple(name for name in Settings.model_fields if name not in but)
