"""The commands for recipes of a slice model."""

import json
from pathlib import Path

import typer

from training.fitting.preview_marks import preview_masks
from training.fitting.segment import fit_segmentation, slice_splits
from training.packaging.segmenter import write_segmenter
from training.packaging.segmenter_package import package_segmenter
from training.segmentation_recipe import SegmentationRecipe, read_segmentation_recipe
from training.tasks.order import Order


def fit(order: Order) -> None:
    fit_segmentation(read_segmentation_recipe(order.recipe), order.data, order.run, order.leave_out)


def preview(order: Order) -> None:
    plan = read_segmentation_recipe(order.recipe)
    preview_masks(plan, slice_splits(plan, order.data)["train"], order.out, order.images, order.draws)
    typer.echo(order.out)


def export(order: Order) -> None:
    plan = read_segmentation_recipe(order.recipe)
    splits = slice_splits(plan, order.data)
    parity = write_segmenter(plan, order.run, splits, _folder(plan, order.out), order.threads)
    typer.echo(json.dumps(parity, indent=2))


def package(order: Order) -> None:
    plan = read_segmentation_recipe(order.recipe)
    figures = package_segmenter(
        plan, order.data, order.run, _folder(plan, order.out), order.leave_out, order.folds, order.threads
    )
    typer.echo(json.dumps(figures["test"]["goals"], indent=2))


def _folder(plan: SegmentationRecipe, out: Path) -> Path:
    return out / plan.name / plan.package.version
