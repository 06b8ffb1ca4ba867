"""`opentriage models`."""


import typer

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def models() -> None:
    """Model packages: a folder with a manifest that pins the hash of every file."""
