"""MODEL_CARD.md out of a manifest and the figures of validation.json. No figure stands here that was not measured."""

from inference.gate import age_words
from inference.manifest import Manifest
from training.packaging.card_words import Figures, capital, licence, opening, share, uncertainty
from training.packaging.group_card import of_group
from validation.doubt import NAMES


def card(manifest: Manifest, figures: Figures, training: str) -> str:
    """training: a paragraph on how the weights came about."""
    parts = [
        *opening(manifest),
        _reads(manifest),
        _beyond_one_pass(manifest),
        _told_in_training(figures),
        f"## How it was made\n\n{training}",
        _splits(figures),
        *(of_group(group, figures["label"]) for group in figures["groups"]),
        _refused(figures),
        _uncertainty(manifest, figures),
        licence(manifest),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _reads(manifest: Manifest) -> str:
    reads = manifest.reads
    return (
        f"Reads {'/'.join(reads.modalities)}, {'/'.join(reads.body_parts)}, {'/'.join(reads.views)},"
        f" {age_words(manifest.ages_years)}. Input {manifest.input.height} x {manifest.input.width}, aspect ratio"
        f" squashed, stretched to the percentiles {manifest.input.percentiles}."
    )


def _beyond_one_pass(manifest: Manifest) -> str:
    """Of an ensemble, or of a package that looks more than once."""
    views, members = manifest.input.test_time, len(manifest.members)
    if members == len(views) == 1:
        return ""
    seen = f"shown each picture {', '.join(view.replace('_', ' ') for view in views)}"
    if members == 1:
        return f"Its network is {seen}; all figures are means over these views."
    return (
        f"An ensemble of {members} networks, each {seen}; all figures are means over networks and views. What follows"
        " on how it was made is the first network's; the others are further runs over the same patients, each with"
        " masks of a seed of its own."
    )


def _told_in_training(figures: Figures) -> str:
    told = figures.get("told_in_training_alone")
    if not told:
        return ""
    return (
        f"Training told the network each patient's {' and '.join(told)} beside the picture, as far as known. The node"
        " tells it the picture alone: this graph takes them as unknown, and every figure here was measured that way."
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


def _refused(figures: Figures) -> str:
    rows = [
        f"| {row['set']} | {row['told']} | {row['expected']} | {share(row['not_analysed'])} |"
        for row in figures["refused"]
    ]
    if not rows:
        return ""
    held_out = "; ".join(f"{group['name']} {share(group['test']['refused'])}" for group in figures["groups"])
    return (
        f"## What the gate refuses\n\nOf the held-out images, those withheld for doubt included: {held_out}. No axis,"
        " scale or threshold was fitted to any set below, nor to the test split. But which layers feed the gate was"
        " chosen among candidates with these sets and the test split's refused share in view, so the table is a check,"
        " not independent evidence.\n\n"
        "| set | age | expected | not analysed |\n|---|---|---|---|\n" + "\n".join(rows)
    )


def _abstention(manifest: Manifest, figures: Figures) -> list[str]:
    """Each rule, or why there is none; and what it withheld of the held-out images."""
    reasons = figures.get("no_abstention", {})
    withheld = {group["name"]: group.get("abstained") for group in figures["groups"]}
    rules = {group.name: group.abstention for group in manifest.age_groups}
    if not rules or manifest.abstention or "" in reasons:
        rules[""] = manifest.abstention
    lines = []
    for name, rule in rules.items():
        whom = name or ("patients of unknown age" if manifest.age_groups else "everybody")
        if rule:
            line = f"Abstention, {whom}: {NAMES[rule.by]} beyond {rule.threshold:g}. {capital(rule.text)}."
        elif name in reasons:
            line = f"Abstention, {whom}: {reasons[name]}. No answer of theirs is withheld for doubt."
        else:
            continue
        held_back = withheld.get(name or "everybody")
        lines.append(line + (f" Of the held-out images: {share(held_back)}." if rule and held_back else ""))
    return lines


def _uncertainty(manifest: Manifest, figures: Figures) -> str:
    text = f"## Uncertainty\n\n{uncertainty(manifest)}"
    for group in figures["groups"]:
        sd = group["test"]["sd"]
        text += (
            f" {group['name'].capitalize()}: median {sd['median']}, 95th percentile {sd['p95']}, greatest"
            f" {sd['greatest']}; median {sd['median_where_right']} where the finding was right and"
            f" {sd['median_where_wrong']} where it was wrong."
        )
    text += "".join(f"\n\n{line}" for line in _abstention(manifest, figures))
    if "float16_weights" in figures:
        half = figures["float16_weights"]
        text += (
            f"\n\n## File\n\nWeights stored as float16 ({half['bytes'] / 1e6:.1f} MB instead of"
            f" {half['bytes_float32'] / 1e6:.1f} MB), computed in float32. Over the {half['images']} test images no"
            f" score differs from the float32 graph by more than {half['greatest_score_difference']};"
            f" {half['findings_changed']} findings and {half['refusals_changed']} refusals changed."
        )
    text += f" {figures['too_large']}" if "too_large" in figures else ""
    if "export_parity" in figures:
        exact = figures["export_parity"]["fp32_against_torch"]
        text += (
            f" The float32 graph's scores differ from torch's, on the same masks and {exact['images']} test images, by"
            f" at most {exact['scores']:.1e}."
        )
    return text
