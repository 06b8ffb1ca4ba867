"""MODEL_CARD.md of a slice model out of manifest and validation.json. No figure stands here that was not measured."""

from inference.manifest import Manifest
from training.packaging.card_words import Figures, auc, licence, no_rule, opening, share, uncertainty


def slice_card(manifest: Manifest, figures: Figures, training: str) -> str:
    """training: a paragraph on how the weights came about."""
    parts = [
        *opening(manifest),
        _limits(),
        _reads(manifest),
        f"## How it was made\n\n{training}",
        _splits(figures),
        _goals(figures),
        *(
            _held_out(f"Institution {home} left out of training and calibration", part, "###")
            for home, part in _left_out(figures)
        ),
        _held_out("Held-out patients of all institutions (this very package)", figures["test"], "##"),
        _why_not(figures),
        _uncertainty(manifest, figures),
        licence(manifest, _TERMS),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _limits() -> str:
    return """## What cannot be claimed

- **Everybody in the set has a tumour.** How often it marks a head without one was not measured: there is no
  specificity per patient, and the package may not raise a priority. What is called specificity below is that of
  single slices of patients who have a tumour.
- Preoperative lower-grade gliomas of one collection (TCGA-LGG) only, from three institutions, one of them with a single
  patient; the set does not tell ages, sexes or scanners, so none of them was looked at apart.
- 8-bit pictures of 256 x 256 made from the original series, each patient scaled by the makers of the set. The node
  gets the scanner's own values; that the stretch of each slice makes up for the difference was not measured.
- The set gives no slice distance, so volumes were compared in pixels, never in ml.
- The outlines it learnt from and is measured by are one group's."""


def _reads(manifest: Manifest) -> str:
    reads, spec, rule = manifest.reads, manifest.input, manifest.segmentation
    point = manifest.labels[0].operating_point
    assert rule is not None
    return (
        f"Reads {'/'.join(reads.modalities)}, {'/'.join(reads.body_parts)}, series called"
        f" {' or '.join(reads.descriptions)} and not {' or '.join(reads.not_descriptions)}. Input {spec.height} x"
        f" {spec.width}, {spec.fit}, each slice stretched to its percentiles {spec.percentiles}.\n\nA slice has the"
        f" finding `{manifest.labels[0].label}` at a probability of {point.threshold} or more ({point.chosen_on}); a"
        f" pixel is marked at {rule.mask_threshold}. A slice counts when it has the finding and a marked pixel; a"
        f" series has the finding with {rule.min_slices} neighbouring slices that count and {rule.min_volume_ml} ml."
    )


def _splits(figures: Figures) -> str:
    rows = [
        f"| {name} | {part['slices']} | {part['with']} | {part['patients']} |"
        for name, part in figures["splits"].items()
    ]
    head = "| split | slices | with a tumour | patients |\n|---|--:|--:|--:|\n"
    return (
        "## Data\n\nSplit by patient within each institution; no patient stands in two splits.\n\n"
        + head
        + "\n".join(rows)
    )


def _left_out(figures: Figures) -> list[tuple[str, Figures]]:
    return list(figures.get("leave_one_institution_out", {}).items())


def _goals(figures: Figures) -> str:
    lines = []
    for home, part in _left_out(figures):
        for goal in part["goals"]:
            word = "reached" if goal["reached"] else "**not reached**"
            name = goal["figure"].replace("_", " ")
            lines.append(f"| {home} left out | {name} | {goal['goal']} | {goal['measured']} | {word} |")
    if not lines:
        return ""
    return (
        "## One institution left out\n\nThe project's goals are for a model that never saw the institution it is"
        " measured on. These are models of the same recipe with a shorter schedule, each with its own calibration; this"
        " package itself has seen both.\n\n| | figure | goal | measured | |\n|---|---|--:|--:|---|\n" + "\n".join(lines)
    )


def _held_out(title: str, part: Figures, level: str) -> str:
    slices, dice, runs, volume = part["slices"], part["dice"], part["runs"], part["volume"]
    sizes = "".join(f"| {name} | {_dice(one)} |\n" for name, one in dice["by_tumour_size"].items())
    homes = "".join(f"| {name} | {_dice(one)} |\n" for name, one in dice["by_institution"].items())
    pixels = "; ".join(
        f"{name} pixels {share(one)}" for name, one in part["sensitivity_by_marked_pixels"].items() if one["n"]
    )
    return f"""{level} {title}

Through the node's own code path; 95 % intervals: Wilson for shares, bootstrap over patients for the rest. A slice that
was refused counts as an error and as unmarked.

| | |
|---|---|
| Dice over all slices of a patient, mean over patients | {_dice(dice["as_counted"])} |
| the same, median and least | {dice["as_counted"]["median"]} and {dice["as_counted"]["least"]} |
| the same with every mask, also where the slice's own finding is absent | {_dice(dice["masks_alone"])} |
| AUC of slices | {auc(slices["auc_of_those_looked_at"])} |
| sensitivity of slices | {share(slices["sensitivity"])} |
| specificity of slices | {share(slices["specificity"])} |
| refused slices | {share(slices["refused"])} |
| patients whose tumour was found by a run of {runs["min_slices"]} slices or more | {share(runs["patients_found"])} |
| patients with a false run of {runs["min_slices"]} slices or more | {share(runs["patients_with_a_false_run"])} |
| false runs that long | {runs["false_runs"]} |
| false marks too short to count | {runs["false_marks_too_short_to_count"]} |
| volume against the person's, mean error | {volume["mean_error"]:+.1%} |
| the same, median absolute error | {volume["median_absolute_error"]:.1%} |

| tumour of a patient, in pixels over all slices | mean Dice |
|---|---|
{sizes}
| institution | mean Dice |
|---|---|
{homes}
Sensitivity by size of the tumour in the slice: {pixels}."""


def _dice(figure: Figures) -> str:
    low, high = figure["bootstrap95_by_patient"]
    return f"{figure['mean']:.3f} ({low:.3f} to {high:.3f}; {figure['patients']} patients)"


def _why_not(figures: Figures) -> str:
    parts = [part for _, part in _left_out(figures)]
    if not parts or all(goal["reached"] for part in parts for goal in part["goals"]):
        return ""
    return """## Why goals were not reached, and what comes next

Likely reasons: each model had some twenty to forty short epochs on one CPU core; with DU left out, 15 patients are all
there is to learn from. What goes wrong, by eye: large, very bright or cystic tumours of a kind that the other
institution hardly has, bright rims of ventricles and cortex, and faint borders that a reader follows from slice to
slice, while the model sees one slice at a time. Next: a GPU and ten times the schedule at 256 pixels, the neighbouring
slices as further channels, all 110 patients of the public set, augmentation that makes tumours brighter and darker,
heads without a tumour. The gate's margin was chosen after a first look at CS left out: the share of slices refused
there is no independent evidence."""


def _uncertainty(manifest: Manifest, figures: Figures) -> str:
    sd, parity, held_out = figures["test"]["slices"]["sd"], figures["export_parity"], figures["splits"]["calibration"]
    exact, half = parity["fp32_against_torch"], parity["fp16_against_torch"]
    too_few = (
        f"be chosen by the tumours that the package misses on its calibration split, and {held_out['with']} slices with"
        f" one, of {held_out['patients']} patients, are too few to choose it on"
    )
    return (
        f"## Uncertainty and file\n\n{uncertainty(manifest)} On the"
        f" held-out patients: median {sd['median_where_right']} where the slice's finding was right and"
        f" {sd['median_where_wrong']} where it was wrong.\n\nOver {exact['images']} held-out slices the float32 graph's"
        f" scores and masks differ from torch's by at most {exact['scores']:.1e} and {exact['masks']:.1e}; with weights"
        f" stored as float16, as they are here, by {half['scores']:.1e} and {half['masks']:.1e}."
        f"{no_rule(manifest, too_few)}"
    )


_TERMS = " No commercial use; the node loads them only where its configuration accepts that."
