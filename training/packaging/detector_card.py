"""MODEL_CARD.md of a detector out of manifest and validation.json. No figure stands here that was not measured."""

from inference.manifest import Manifest
from training.packaging.card_words import Figures, licence, no_rule, opening, share, uncertainty


def detector_card(manifest: Manifest, figures: Figures, training: str) -> str:
    """training: a paragraph on how the weights came about."""
    parts = [
        *opening(manifest),
        _limits(figures),
        _reads(manifest),
        f"## How it was made\n\n{training}",
        _splits(figures),
        _boxes(figures),
        _reader(figures),
        _gate(figures),
        _uncertainty(manifest, figures),
        licence(manifest),
    ]
    return "\n\n".join(parts) + "\n"


def _limits(figures: Figures) -> str:
    bare = figures["test"]["as_a_reader_sees_it"]["pictures_without_box"]
    return f"""## What cannot be claimed

- **No specificity.** Nearly every picture of the set shows a fracture; {bare["n"]} pictures of {bare["groups"]} groups
  of the test split have no box, and some of those show a fracture that nobody boxed. How often the model marks a whole
  bone in a clinic is unknown, so the package may not raise a priority.
- **No sensitivity for patients.** The set holds a few hundred originals collected from the web, several augmented
  copies of each (turned, mirrored, brightened), without patient, age, hospital or scanner. Groups are the set's
  sources, joined where the same picture was found under two names; that two groups never show one patient is not known.
- **A probability is that of a box**: that it marks what the set's readers marked, among pictures that nearly all show
  a fracture. Where fractures are rare it will be too high.
- Boxes were drawn by the makers of the set, loosely and not all alike; body parts are not labelled, so that nothing is
  known by body part. Casts, children's growth plates, foreign bodies and arrows drawn into pictures were not studied.
- 8-bit JPEG pictures of 352 pixels: that the node's windowing of a radiograph makes up for the difference was not
  measured."""


def _reads(manifest: Manifest) -> str:
    reads, spec, boxes = manifest.reads, manifest.input, manifest.detection
    point = manifest.labels[0].operating_point
    assert boxes is not None
    return (
        f"Reads {'/'.join(reads.modalities)} of {', '.join(reads.body_parts)}, any view, any age. Input {spec.height} x"
        f" {spec.width}, letterboxed, stretched to the percentiles {spec.percentiles}.\n\nFinding"
        f" `{manifest.labels[0].label}` is present, and a box is drawn, at a probability of {point.threshold} or more"
        f" ({point.chosen_on}); at most {boxes.max_boxes} boxes a picture."
    )


def _splits(figures: Figures) -> str:
    rows = [
        f"| {name} | {part['pictures']} | {part['boxes']} | {part['without_box']} | {part['groups']} |"
        for name, part in figures["splits"].items()
    ]
    return (
        "## Data\n\nEvery box of all four classes of the set (angle, fracture, line, messed_up_angle) counts as a"
        " fracture: the classes tell its kind. Split by group, so that no copy of a picture stands in two splits.\n\n"
        "| split | pictures | boxes | pictures without a box | groups |\n|---|--:|--:|--:|--:|\n" + "\n".join(rows)
    )


def _boxes(figures: Figures) -> str:
    parts = figures["test"]["iou"]
    rates = list(next(iter(parts.values()))["sensitivity_at_false_boxes_per_picture"])
    head = " | ".join(f"found at {rate} false boxes a picture" for rate in rates)
    rows = [
        f"| {iou} | {_figure(part['average_precision'])} | "
        + " | ".join(_figure(part["sensitivity_at_false_boxes_per_picture"][rate]) for rate in rates)
        + " |"
        for iou, part in parts.items()
    ]
    return (
        "## Held-out groups (test split)\n\n95 % intervals from a bootstrap over groups. A true box is found once, by"
        f" the best box that overlaps it by the IoU.\n\n| IoU | average precision | {head} |\n|---|"
        + "---|" * (len(rates) + 1)
        + "\n"
        + "\n".join(rows)
    )


def _reader(figures: Figures) -> str:
    reader = figures["test"]["as_a_reader_sees_it"]
    bare = reader["pictures_without_box"]
    return f"""## As a reader sees it (the node's own code path, at the operating point)

Wilson intervals; copies of one picture are not independent, so they are too narrow. Refused pictures count as missed.

| | |
|---|---|
| true boxes found (IoU {reader["iou"]}) | {share(reader["boxes_found"])} |
| pictures with at least one true box found | {share(reader["pictures_with_a_true_box_found"])} |
| pictures with a fracture that are marked, rightly or wrongly | {share(reader["pictures_marked_with_box"])} |
| false boxes a picture | {reader["false_boxes_per_picture"]} |
| pictures without a box that are marked | {bare["marked"]} of {bare["n"]} |
| refused | {share(reader["refused"])} |"""


def _gate(figures: Figures) -> str:
    rows = [f"| {row['set']} | {share(row['not_analysed'])} |" for row in figures["test"]["gate"]]
    return (
        "## What the gate refuses\n\nPictures of other things, each told to be a limb. Nothing was fitted to them.\n\n"
        "| set | not analysed |\n|---|---|\n" + "\n".join(rows)
    )


def _uncertainty(manifest: Manifest, figures: Figures) -> str:
    parity, held_out = figures["export_parity"], figures["splits"]["calibration"]
    too_few = (
        "tell pictures rightly left unmarked from missed fractures, and of the calibration split's"
        f" {held_out['pictures']} pictures only {held_out['without_box']} have no box, too few to choose it on"
    )
    return (
        f"## Uncertainty and file\n\n{uncertainty(manifest)} Over"
        f" {parity['fp32_against_torch']['images']} test pictures the float32 graph's scores differ from torch's by at"
        f" most {parity['fp32_against_torch']['scores']:.1e}, with weights stored as float16 by"
        f" {parity['fp16_against_torch']['scores']:.1e}; {figures['bytes'] / 1e6:.1f} MB."
        f"{no_rule(manifest, too_few)}"
    )


def _figure(figure: Figures) -> str:
    low, high = figure["bootstrap95_by_group"]
    return f"{figure['value']:.3f} ({low:.3f} to {high:.3f})"
