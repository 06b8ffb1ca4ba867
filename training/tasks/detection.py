"""The commands for recipes of a detector."""

import json
from pathlib import Path

import typer

from training.detection_recipe import DetectionRecipe, read_detection_recipe
from training.fitting import detection as fitting
from training.fitting.preview_marks import preview_boxes
from training.packaging.detector import write_detector
from training.packaging.detector_package import package_detector
from training.tasks.order import Order


def fit(order: Order) -> None:
    fitting.fit(read_detection_recipe(order.recipe), order.data, order.run)


def preview(order: Order) -> None:
    plan = read_detection_recipe(order.recipe)
    preview_boxes(plan, fitting.read_splits(plan, order.data)["train"], order.out, order.images, order.draws)
    typer.echo(order.out)


def export(order: Order) -> None:
    plan = read_detection_recipe(order.recipe)
    splits = fitting.read_splits(plan, order.data)
    parity = write_detector(plan, order.run, splits, _folder(plan, order.out), order.threads)
    typer.echo(json.dumps(parity, indent=2))


def package(order: Order) -> None:
    plan = read_detection_recipe(order.recipe)
    figures = package_detector(plan, order.data, order.run, _folder(plan, order.out), order.threads)
    typer.echo(json.dumps(figures["test"], indent=2))


def _folder(plan: DetectionRecipe, out: Path) -> Path:
    return out / plan.name / plan.package.version
