"""`pool5 train …`: weights of one's own."""

import typer

from service.cli.train import embedded, vocabulary

app = typer.Typer(no_args_is_help=True, help="Make weights of your own.")
app.command("embedded")(embedded.train_embedded)
app.command("vocabulary")(vocabulary.train_vocabulary)
