"""MODEL_CARD.md out of a manifest and the figures of validation.json. No figure stands here that was not measured."""

import math
from typing import Any

from inference.gate import age_words
from inference.manifest import Manifest

Figures = dict[str, Any]


def card(manifest: Manifest, figures: Figures, training: str) -> str:
    """training: a paragraph on how the weights came about."""
    return (
        "\n\n".join(
            [
                f"# {manifest.name} {manifest.version}",
                manifest.intended_use,
                f"**Not for:** {manifest.not_for}",
                _reads(manifest),
                f"## How it was made\n\n{training}",
                _splits(figures),
                _test(manifest, figures),
                _refused(figures),
                _adults(figures),
                _uncertainty(manifest, figures),
                _licence(manifest),
            ]
        )
        + "\n"
    )


def _share(figure: Figures) -> str:
    low, high = figure["wilson95"]
    return f"{figure['value']:.3f} ({low:.3f} to {high:.3f}; {figure['hits']} of {figure['n']})"


def _auc(figure: Figures) -> str:
    low, high = figure["bootstrap95_by_patient"]
    return f"{figure['value']:.4f} ({low:.4f} to {high:.4f}; n = {figure['n']}, {figure['patients']} patients)"


def _reads(manifest: Manifest) -> str:
    reads = manifest.reads
    ages = age_words(manifest.ages_years)
    point = manifest.labels[0].operating_point
    return (
        f"Reads {'/'.join(reads.modalities)}, {'/'.join(reads.body_parts)}, {'/'.join(reads.views)}, {ages}. Input"
        f" {manifest.input.height} x {manifest.input.width}, aspect ratio squashed, stretched to the percentiles"
        f" {manifest.input.percentiles}.\n\nFinding `{manifest.labels[0].label}` is present at a probability of"
        f" {point.threshold} or more ({point.chosen_on})."
    )


def _splits(figures: Figures) -> str:
    rows = [
        f"| {name} | {part['images']} | {part['with']} | {part['without']} | {part['patients']} |"
        for name, part in figures["splits"].items()
    ]
    head = "| split | images | with | without | patient groups |\n|---|--:|--:|--:|--:|\n"
    return (
        "## Data\n\nSplit by patient group, so that no patient stands in two splits. The group is the best id there is,"
        " not a proven patient id.\n\n" + head + "\n".join(rows)
    )


def _test(manifest: Manifest, figures: Figures) -> str:
    scaling = manifest.labels[0].calibration
    neutral = 1.0 / (1.0 + math.exp(scaling.bias * scaling.temperature))
    test, baseline = figures["test"], figures["test"]["baseline_8x8_thumbnail"]
    before, after = test["before_calibration"], test["after_calibration"]
    c = test["confusion"]
    return f"""## Held-out children (test split), through the node's own code path

95 % intervals: Wilson for shares, bootstrap over patients for AUC. For the model a refused image counts as an error
in both shares; the baseline, which refuses nothing, is scored on the images that the model looked at.

| | this model | ridge on an 8 x 8 thumbnail |
|---|---|---|
| AUC | {_auc(test["auc_of_those_looked_at"])} | {_auc(baseline["auc"])} |
| sensitivity | {_share(test["sensitivity"])} | {_share(baseline["sensitivity"])} |
| specificity | {_share(test["specificity"])} | {_share(baseline["specificity"])} |

The baseline sees no lung: what it reaches is what the acquisition alone gives away in this set. A high figure here
proves little about another hospital.

| | present | absent | refused |
|---|--:|--:|--:|
| with pneumonia | {c["present_with"]} | {c["absent_with"]} | {c["refused_with"]} |
| without | {c["present_without"]} | {c["absent_without"]} | {c["refused_without"]} |

Brier {before["brier"]} before and {after["brier"]} after calibration, ECE (15 bins) {before["ece_15_bins"]} and
{after["ece_15_bins"]}. Each pass is calibrated as sigmoid(logit(score) / {scaling.temperature} + {scaling.bias}): the
network's raw scores are shifted, a score of {neutral:.2f} speaks for neither class. The calibration gives both classes
equal weight: a probability of 0.5 is a child for whom the picture speaks for neither, not the prevalence of any
hospital."""


def _refused(figures: Figures) -> str:
    rows = [
        f"| {row['set']} | {row['told']} | {row['expected']} | {_share(row['not_analysed'])} |"
        for row in figures["refused"]
    ]
    return (
        f"## What the gate refuses\n\nOf the held-out chests of children: {_share(figures['test']['refused'])}. No"
        " axis, scale or threshold was fitted to any set below, nor to the test split. But which layers feed the gate"
        " was chosen among candidates with these sets and the test split's refused share in view, so the table is a"
        " check, not independent evidence.\n\n| set | age | expected | not analysed |\n"
        "|---|---|---|---|\n" + "\n".join(rows)
    )


def _adults(figures: Figures) -> str:
    adults = figures["adults"]
    rows = [
        f"| {view} | {_auc(adults[view]['auc_of_those_looked_at'])} | {_share(adults[view]['refused_by_gate'])} |"
        f" {_share(adults[view]['present_with'])} | {_share(adults[view]['present_without'])} |"
        for view in ("AP", "PA")
    ]
    return (
        f"## A warning: adults\n\n{adults['note'][0].upper()}{adults['note'][1:]}\n\n"
        "| view | AUC of those looked at | refused | called, with | called, without |\n|---|---|---|---|---|\n"
        + "\n".join(rows)
    )


def _uncertainty(manifest: Manifest, figures: Figures) -> str:
    sd, mc = figures["test"]["sd"], manifest.uncertainty
    text = (
        f"## Uncertainty\n\n{mc.text[0].upper()}{mc.text[1:]} (dropout {mc.dropout}, seed {mc.seed}). On the test"
        f" split: median {sd['median']}, 95th percentile {sd['p95']}, greatest {sd['greatest']}; median"
        f" {sd['median_where_right']} where the finding was right and {sd['median_where_wrong']} where it was wrong."
    )
    if "float16_weights" in figures:
        half = figures["float16_weights"]
        text += (
            f"\n\n## File\n\nWeights stored as float16 ({half['bytes'] / 1e6:.1f} MB instead of"
            f" {half['bytes_float32'] / 1e6:.1f} MB), computed in float32. Over the {half['images']} test images no"
            f" score differs from the float32 graph by more than {half['greatest_score_difference']};"
            f" {half['findings_changed']} findings and {half['refusals_changed']} refusals changed."
        )
    if "export_parity" in figures:
        exact = figures["export_parity"]["fp32_against_torch"]
        text += (
            f" The float32 graph's scores differ from torch's, on the same masks and {exact['images']} test images, by"
            f" at most {exact['scores']:.1e}."
        )
    return text


def _licence(manifest: Manifest) -> str:
    data = "\n".join(f"- {part.name}. {part.licence}. {part.attribution}" for part in manifest.licence.data)
    return f"## Licence\n\nWeights: {manifest.licence.weights}. Data:\n\n{data}"
