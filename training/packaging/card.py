"""MODEL_CARD.md out of a manifest and the figures of validation.json. No figure stands here that was not measured."""

import math
from typing import Any

from inference.gate import age_words
from inference.manifest import Manifest

Figures = dict[str, Any]


def card(manifest: Manifest, figures: Figures, training: str) -> str:
    """training: a paragraph on how the weights came about."""
    parts = [
        f"# {manifest.name} {manifest.version}",
        manifest.intended_use,
        f"**Not for:** {manifest.not_for}",
        _reads(manifest),
        f"## How it was made\n\n{training}",
        _splits(figures),
        *(_group(group, figures["label"]) for group in figures["groups"]),
        _refused(figures),
        _uncertainty(manifest, figures),
        _licence(manifest),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _share(figure: Figures) -> str:
    low, high = figure["wilson95"]
    return f"{figure['value']:.3f} ({low:.3f} to {high:.3f}; {figure['hits']} of {figure['n']})"


def _auc(figure: Figures) -> str:
    low, high = figure["bootstrap95_by_patient"]
    return f"{figure['value']:.4f} ({low:.4f} to {high:.4f}; n = {figure['n']}, {figure['patients']} patients)"


def _reads(manifest: Manifest) -> str:
    reads = manifest.reads
    return (
        f"Reads {'/'.join(reads.modalities)}, {'/'.join(reads.body_parts)}, {'/'.join(reads.views)},"
        f" {age_words(manifest.ages_years)}. Input {manifest.input.height} x {manifest.input.width}, aspect ratio"
        f" squashed, stretched to the percentiles {manifest.input.percentiles}."
    )


def _splits(figures: Figures) -> str:
    rows = [
        f"| {name} | {part['set']} | {part['images']} | {part['with']} | {part['without']} | {part['patients']} |"
        for name, parts in figures["splits"].items()
        for part in parts
    ]
    head = "| split | set | images | with | without | patients |\n|---|---|--:|--:|--:|--:|\n"
    return (
        "## Data\n\nSplit by patient, so that no patient stands in two splits (of the children's set the group of a"
        " file name is the best id there is, not a proven patient id). Images of which the label is not known are left"
        " out.\n\n" + head + "\n".join(rows)
    )


def _group(group: Figures, label: str) -> str:
    """One group of ages beside its thumbnail baseline."""
    test, baseline, point = group["test"], group["baseline_8x8_thumbnail"], group["operating_point"]
    alarm = {True: " It may raise a study's priority.", False: " It raises no priority.", None: ""}
    may = alarm[group["may_raise_priority"]]
    return f"""## {group["name"].capitalize()}: held-out patients, through the node's own code path

`{label}` is present at a probability of {point["threshold"]} or more ({point["chosen_on"]}).{may}
95 % intervals: Wilson for shares, bootstrap over patients for AUC. For the model a refused image counts as an error in
both shares; the baseline, which refuses nothing, is scored on the images that the model looked at.

| | this model | ridge on an 8 x 8 thumbnail |
|---|---|---|
| AUC | {_auc(test["auc_of_those_looked_at"])} | {_auc(baseline["auc"])} |
| sensitivity | {_share(test["sensitivity"])} | {_share(baseline["sensitivity"])} |
| specificity | {_share(test["specificity"])} | {_share(baseline["specificity"])} |

The baseline sees no lung: what it reaches is what the acquisition alone gives away in this set.

{_confusion(test["confusion"])}

{_subgroups(group)}

{_calibrated(group)}

{_doubt(test["doubt"])}"""


def _confusion(c: Figures) -> str:
    return (
        "| | present | absent | refused |\n|---|--:|--:|--:|\n"
        f"| with | {c['present_with']} | {c['absent_with']} | {c['refused_with']} |\n"
        f"| without | {c['present_without']} | {c['absent_without']} | {c['refused_without']} |"
    )


def _subgroups(group: Figures) -> str:
    """By data set, view and sex, where there is more than one."""
    baseline = group["baseline_8x8_thumbnail"]["auc_by_domain"]
    rows = []
    for trait, found in group["subgroups"]["traits"].items():
        if len(found["groups"]) < 2:
            continue
        for one in found["groups"]:
            low, high = one["auc_delong95"] or (math.nan, math.nan)
            area = "-" if one["auc"] is None else f"{one['auc']:.3f} ({low:.3f} to {high:.3f})"
            plain = f"{baseline[one['group']]['value']:.3f}" if trait == "domain" else ""
            sizes = f"{one['with']} / {one['without']}" + (" (few)" if one["small"] else "")
            shares = f"{_short(one['sensitivity'])} | {_short(one['specificity'])}"
            rows.append(f"| {trait} | {one['group']} | {sizes} | {area} | {plain} | {shares} |")
    if not rows:
        return "One data set, one view: there are no groups to compare."
    head = "| by | group | with / without | AUC (DeLong) | thumbnail's AUC | sensitivity | specificity |\n"
    return head + "|---|---|---|---|---|---|---|\n" + "\n".join(rows)


def _short(figure: Figures) -> str:
    return "-" if figure["value"] is None else f"{figure['value']:.3f} ({figure['hits']}/{figure['n']})"


def _calibrated(group: Figures) -> str:
    before, after = group["test"]["before_calibration"], group["test"]["after_calibration"]
    scaling = group["calibration"]
    how = (
        "isotonic"
        if scaling["method"] == "isotonic"
        else (f"sigmoid(logit(score) / {scaling['temperature']} + {scaling['bias']})")
    )
    return (
        f"Brier {before['brier']} before and {after['brier']} after calibration, ECE (15 bins) {before['ece_15_bins']}"
        f" and {after['ece_15_bins']}. Each pass is calibrated: {how}. The calibration gives both classes equal weight:"
        " a probability of 0.5 is a picture that speaks for neither, not the prevalence of any hospital."
    )


def _doubt(doubt: Figures) -> str:
    """Which figure of doubt finds the errors."""
    if doubt["winner"] is None:
        return "There was no error among the images looked at, so no figure of doubt could be told from another."
    rows = "\n".join(
        f"| {row['name']} | {row['aurc']:.5f} | {row.get('against_plain', '')} |" for row in doubt["orderings"].values()
    )
    return (
        f"Which figure of doubt finds the {doubt['errors']} errors among {doubt['n']} images (AURC, the mean risk over"
        f" all coverages: small is good; a perfect order has {doubt['aurc_of_a_perfect_order']:.5f}):"
        f" {doubt['orderings'][doubt['winner']]['name']} does best here.\n\n"
        f"| figure of doubt | AURC | against maximum probability |\n|---|--:|---|\n{rows}"
    )


def _refused(figures: Figures) -> str:
    rows = [
        f"| {row['set']} | {row['told']} | {row['expected']} | {_share(row['not_analysed'])} |"
        for row in figures["refused"]
    ]
    if not rows:
        return ""
    held_out = "; ".join(f"{group['name']} {_share(group['test']['refused'])}" for group in figures["groups"])
    return (
        f"## What the gate refuses\n\nOf the held-out images: {held_out}. No axis, scale or threshold was fitted to any"
        " set below, nor to the test split. But which layers feed the gate was chosen among candidates with these sets"
        " and the test split's refused share in view, so the table is a check, not independent evidence.\n\n"
        "| set | age | expected | not analysed |\n|---|---|---|---|\n" + "\n".join(rows)
    )


def _uncertainty(manifest: Manifest, figures: Figures) -> str:
    mc = manifest.uncertainty
    text = f"## Uncertainty\n\n{mc.text[0].upper()}{mc.text[1:]} (dropout {mc.dropout}, seed {mc.seed})."
    for group in figures["groups"]:
        sd = group["test"]["sd"]
        text += (
            f" {group['name'].capitalize()}: median {sd['median']}, 95th percentile {sd['p95']}, greatest"
            f" {sd['greatest']}; median {sd['median_where_right']} where the finding was right and"
            f" {sd['median_where_wrong']} where it was wrong."
        )
    rules = [(f"{group.name}: ", group.abstention) for group in manifest.age_groups] or [("", manifest.abstention)]
    for whom, rule in rules:
        if rule:
            text += f"\n\nAbstention, {whom}{rule.by} beyond {rule.threshold:g}. {rule.text[0].upper()}{rule.text[1:]}."
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
