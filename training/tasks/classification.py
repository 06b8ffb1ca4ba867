"""The commands for recipes of a classifier."""

import json
from pathlib import Path

import typer

from inference.manifest import read_manifest
from training.comparing import run as comparing
from training.data.distribution import report
from training.data.splits import read_splits
from training.drawing import samples as drawing
from training.fitting import fit as fitting
from training.fitting import pretrain as pretraining
from training.fitting import preview as previewing
from training.fitting.beginning import began_from
from training.fitting.curves import read_curve
from training.fitting.uncertain import POLICIES, compare_policies
from training.packaging import validate as validating
from training.packaging.card import card
from training.packaging.members import exact_twins, too_large
from training.packaging.package import Splits, pin, splits_of, write_core
from training.recipe import AugmentPlan, Recipe, read_recipe
from training.tasks.order import Order

PARITY = "parity.json"  # of a run: what its export was measured to differ by


def fit(order: Order) -> None:
    fitting.fit(read_recipe(order.recipe), order.data, order.run)


def preview(order: Order) -> None:
    plan = read_recipe(order.recipe)
    splits = read_splits(plan, order.data)
    report(splits, plan)
    previewing.preview(plan, splits, order.out, order.images, order.draws)
    typer.echo(order.out)


def pretrain(order: Order) -> None:
    plan = read_recipe(order.recipe)
    typer.echo(pretraining.pretrain(plan, read_splits(plan, order.data)["train"], order.run))


def uncertain(order: Order) -> None:
    chosen = [name for name in POLICIES if not order.policies or name in order.policies]
    compare_policies(read_recipe(order.recipe), order.data, order.run, chosen, order.fits)
    typer.echo((order.run / "uncertain.md").read_text())


def compare(order: Order) -> None:
    comparing.compare(order.recipe, order.data, order.out, order.variants)
    typer.echo((order.out / "compare.md").read_text())


def export(order: Order) -> None:
    plan = read_recipe(order.recipe)
    folder = _folder(plan, order.out)
    typer.echo(json.dumps(_export(plan, order, splits_of(plan, order.data), folder), indent=2))


def validate(order: Order) -> None:
    plan = read_recipe(order.recipe)
    folder = _folder(plan, order.out)
    _validate(plan, order, splits_of(plan, order.data), folder)


def package(order: Order) -> None:
    plan = read_recipe(order.recipe)
    splits, folder = splits_of(plan, order.data), _folder(plan, order.out)
    _export(plan, order, splits, folder)
    _validate(plan, order, splits, folder)


def samples(order: Order) -> None:
    plan = read_recipe(order.recipe)
    assert order.package is not None
    drawn = drawing.write_samples(splits_of(plan, order.data), order.package, order.out)
    (order.out / "README.md").write_text(drawing.readme(drawn, f"{order.package.parent.name}/{order.package.name}"))
    typer.echo(json.dumps(drawn, indent=2))


def _folder(plan: Recipe, out: Path) -> Path:
    return out / plan.name / plan.shipped().version


def _export(plan: Recipe, order: Order, splits: Splits, folder: Path) -> dict[str, object]:
    parity = write_core(plan, order.runs, splits, folder, order.threads)
    (order.run / PARITY).write_text(json.dumps(parity, indent=2) + "\n")
    if large := too_large(folder):
        typer.echo(large, err=True)
    return parity


def _validate(plan: Recipe, order: Order, splits: Splits, folder: Path) -> None:
    figures = validating.validate(plan, folder, exact_twins(order.runs), splits, order.data, order.threads)
    parity = order.run / PARITY
    if parity.exists():
        figures["export_parity"] = json.loads(parity.read_text())
    manifest = read_manifest(folder)
    (folder / "validation.json").write_text(json.dumps(figures, indent=2) + "\n")
    (folder / "MODEL_CARD.md").write_text(card(manifest, figures, how_it_was_made(plan, order.run)))
    pin(manifest, folder)
    typer.echo(f"{folder / 'MODEL_CARD.md'} says what it is worth")


def how_it_was_made(plan: Recipe, run: Path) -> str:
    """The card's paragraph; what it began from is what the run noted, not what the recipe asked for."""
    options, model = plan.fit, plan.model
    stages = ", then ".join(f"{stage.epochs} epochs at {stage.size} pixels" for stage in options.stages)
    began = began_from(run) or _asked_for(plan)
    text = (
        f"{model.architecture} (one input channel, begun from {began}) with dropout {model.dropout}"
        f" ({model.dropout_place})."
        f" {stages}, bfloat16; AdamW, {options.schedule} rate up to {options.max_lr}, batches of {options.batch},"
        f" loss {plan.loss.kind}, class weights {plan.loss.class_weight}, sampler {plan.sampler.method} (domains"
        f" {plan.sampler.domains}, classes {plan.sampler.classes}), label smoothing {plan.loss.label_smoothing},"
        f" weights averaged ({options.ema_decay}). Augmentation: {', '.join(_changes(plan.augment)) or 'none'}."
    )
    curve = read_curve(run / "curve.csv")
    if curve:
        points = ", ".join(f"{line['epoch']:.0f}: {line['calibration_auc']:.4f}" for line in curve)
        text += f"\n\nAUC on the calibration split after each epoch, the mean over its domains: {points}."
    wanted = "" if "ImageNet" in began and "cannot be fetched" not in began else "ImageNet weights to start from, "
    return f"{text}\n\nNot done, and likely to help: {wanted}longer schedules on a GPU, a second hospital."


def _changes(plan: AugmentPlan) -> list[str]:
    """What a picture may undergo in training, as the recipe has it; an option that is off is not named."""
    told = {
        f"turned by up to {plan.rotation_deg:g} degrees": plan.rotation_deg > 0,
        f"scaled ({plan.scale[0]:g} to {plan.scale[1]:g} of each side looked at)": plan.scale != (1.0, 1.0),
        f"shifted by up to {plan.shift:g} of half a side": plan.shift > 0,
        f"each border cropped by up to {plan.border_crop:g}": plan.border_crop > 0,
        f"a central crop of {plan.lung_crop[0]:g} to {plan.lung_crop[1]:g}": plan.lung_crop != (1.0, 1.0),
        f"gamma {plan.gamma[0]:g} to {plan.gamma[1]:g}": plan.gamma != (1.0, 1.0),
        f"contrast {plan.contrast[0]:g} to {plan.contrast[1]:g}": plan.contrast != (1.0, 1.0),
        f"brightness within {plan.brightness:g}": plan.brightness > 0,
        f"blur for {plan.blur:g} of the images": plan.blur > 0,
        f"noise up to {plan.noise:g}": plan.noise > 0,
        f"a corner erased in {plan.erase_corners:g}": plan.erase_corners > 0,
        f"another set's histogram for {plan.histogram_match:g}": plan.histogram_match > 0,
        f"a random background for {plan.background:g}": plan.background > 0,
        f"inverted in {plan.invert:g}": plan.invert > 0,
        f"mirrored in {plan.mirror:g}": plan.mirror > 0,
    }
    return [words for words, on in told.items() if on]


def _asked_for(plan: Recipe) -> str:
    """For a run that noted nothing."""
    if plan.fit.init:
        return f"the weights of {Path(plan.fit.init).parent.name}"
    return {"none": "random weights", "imagenet": "ImageNet weights"}.get(plan.model.weights, "a start nobody noted")
