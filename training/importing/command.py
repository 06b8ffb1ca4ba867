"""`opentriage-train import`, and behind `opentriage models import`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import torch
import typer

from training.importing.checkpoint import read_checkpoint
from training.importing.keys import RANGES, trunk_of
from training.importing.package import Order, import_package
from training.importing.restricted import CheckpointError

KINDS = tuple(RANGES)


def import_command(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A .pt, .pth or .safetensors file.")],
    kind: Annotated[str, typer.Option("--kind", help=" or ".join(KINDS))],
    out: Annotated[Path, typer.Option("--out", help="The package goes to OUT/NAME/VERSION.")],
    name: Annotated[str, typer.Option("--name", help="Of the package: small letters, digits and hyphens.")] = "",
    label: Annotated[
        list[str] | None, typer.Option("--label", help="NAME or NAME=ROW of the head, counted from 0; repeat.")
    ] = None,
    seen_data: Annotated[
        list[str] | None,
        typer.Option("--seen-data", help="A set that the weights have seen, such as NIH or RSNA; repeat. Or: unknown."),
    ] = None,
    licence: Annotated[str, typer.Option("--licence", help="Of the weights, as published.")] = "unknown",
    non_commercial: Annotated[bool, typer.Option("--non-commercial", help="The weights' licence says so.")] = False,
    version: Annotated[str, typer.Option("--version", help="Of the package.")] = "1.0.0",
    ages: Annotated[str, typer.Option("--ages", help="FROM-TO in years, TO not included; empty: any age.")] = "18-120",
    size: Annotated[int, typer.Option("--size", help="Height and width of the input, pixels.")] = 224,
    trunk_only: Annotated[
        bool, typer.Option("--trunk-only", help="Write OUT/weights.pt for a recipe's fit.init, without a head.")
    ] = False,
) -> None:
    """Make a package of published DenseNet-121 weights, without running anything that the file contains.

    The package raises no priority: nothing was measured. Weights that have seen NIH or RSNA images count for no figure.
    """
    try:
        if kind not in RANGES:
            raise CheckpointError(f"--kind is {' or '.join(KINDS)}, not {kind}")
        if trunk_only:
            _trunk(checkpoint, out)
            return
        needed = {"--name": name, "--label": label, "--seen-data (each set, or: unknown)": seen_data}
        lacking = [option for option, given in needed.items() if not given]
        if lacking or not name or not label or not seen_data:
            raise CheckpointError(f"a package needs {' and '.join(lacking)} as well")
        order = Order(
            kind=kind,  # type: ignore[arg-type]  # checked above
            name=name,
            version=version,
            created=datetime.now(UTC).date().isoformat(),
            labels=tuple(label),
            seen_data=tuple(seen_data),
            licence=licence,
            non_commercial=non_commercial,
            ages_years=_ages(ages),
            size=size,
        )
        folder, measured = import_package(checkpoint, order, out)
    except ValueError as error:  # CheckpointError, and what the manifest refuses
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{folder}: scores within {measured['fp16_against_torch']['scores']:.1e} of torch; raises no priority")


def _trunk(checkpoint: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    torch.save(trunk_of(read_checkpoint(checkpoint).tensors), out / "weights.pt")
    typer.echo(f"{out / 'weights.pt'}: a trunk for fit.init")


def _ages(text: str) -> tuple[float, float] | None:
    if not text:
        return None
    low, _, high = text.partition("-")
    try:
        return float(low), float(high)
    except ValueError:
        raise CheckpointError(f"--ages is FROM-TO in years, not {text!r}") from None
