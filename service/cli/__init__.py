"""`pool5`: the same engine as the service, on the command line."""

import sys

import typer
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from service.cli import (
    describe,
    doctor,
    duplicates,
    evaluate,
    gallery,
    index,
    keys,
    networks,
    quantise,
    search,
    serve,
    snapshot,
    train,
    transfer,
    weights,
    whiten,
)
from service.problems import KNOWN

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Image search on the activations of convolutional networks.",
)
app.command("serve")(serve.serve)
app.command("index")(index.index)
app.command("search")(search.search)
app.command("describe")(describe.describe)
app.command("networks")(networks.networks)
app.command("quantise")(quantise.quantise)
app.add_typer(keys.app, name="keys")
app.add_typer(weights.app, name="weights")
app.add_typer(train.app, name="train")
app.command("whiten")(whiten.whiten)
app.command("evaluate")(evaluate.evaluate)
app.command("gallery")(gallery.gallery)
app.command("duplicates")(duplicates.duplicates)
app.command("snapshot")(snapshot.snapshot)
app.command("restore")(snapshot.restore)
app.command("export")(transfer.export)
app.command("import")(transfer.import_)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Run a command; what is wrong with its input is one line and exit status 2."""
    try:
        app()
    except KNOWN as error:
        _fail(str(error))
    except ValidationError as error:
        found = error.errors()[0]
        variable = "POOL5_" + "_".join(str(part) for part in found["loc"]).upper()
        _fail(f"{variable}: {found['msg']} (it is {found['input']!r})")
    except RequestValidationError as error:
        found = error.errors()[0]
        flag = ".".join(str(part) for part in found["loc"])
        _fail(f"{flag}: {found['msg']} (it is {found['input']!r})")
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError) as error:
        _fail(f"{error.filename}: {error.strerror}")


def _fail(message: str) -> None:
    sys.stderr.write(f"pool5: {' '.join(message.split())}\n")
    sys.exit(2)
