"""What a card says of one group of ages: held-out figures beside the thumbnail's, groups, calibration, doubt."""

import math

from training.packaging.card_words import Figures, auc, share


def of_group(group: Figures, label: str) -> str:
    """One group of ages beside its thumbnail baseline."""
    test, baseline, point = group["test"], group["baseline_8x8_thumbnail"], group["operating_point"]
    alarm = {True: " It may raise a study's priority.", False: " It raises no priority.", None: ""}
    may = alarm[group["may_raise_priority"]]
    return f"""## {group["name"].capitalize()}: held-out patients, through the node's own code path

`{label}` is present at a probability of {point["threshold"]} or more ({point["chosen_on"]}).{may}
95 % intervals: Wilson for shares, bootstrap over patients for AUC. For the model a refused image, or one
withheld for doubt, counts as an error in both shares; the baseline, which refuses nothing, is scored on the images that
the model looked at.

| | this model | ridge on an 8 x 8 thumbnail |
|---|---|---|
| AUC | {auc(test["auc_of_those_looked_at"])} | {auc(baseline["auc"])} |
| sensitivity | {share(test["sensitivity"])} | {share(baseline["sensitivity"])} |
| specificity | {share(test["specificity"])} | {share(baseline["specificity"])} |

The baseline sees no lung: what it reaches is what the acquisition alone gives away in this set.{_against(group)}

{_confusion(test["confusion"])}

{_subgroups(group)}

{_calibrated(group)}

{_doubt(test["doubt"])}"""


def not_better(group: Figures) -> str:
    """A sentence where the model at its operating point is not better than the thumbnail; "" where it is."""
    test, baseline = group["test"], group["baseline_8x8_thumbnail"]
    model, plain = (_sum(part) for part in (test, baseline))
    if model is None or plain is None or model > plain:
        return ""
    return (
        f"At its operating point the model is not better for {group['name']} than a regression on an 8 x 8 thumbnail:"
        f" sensitivity and specificity on held-out patients sum to {model:.3f}, the thumbnail's to {plain:.3f}."
    )


def _sum(part: Figures) -> float | None:
    shares = part["sensitivity"]["value"], part["specificity"]["value"]
    return None if None in shares else sum(shares)


def _against(group: Figures) -> str:
    sentence = not_better(group)
    return f" **{sentence}**" if sentence else ""


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
            low, high = one.get("auc_interval95") or one["auc_delong95"] or (math.nan, math.nan)
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
        f"\n\n{_reliability(group['test'])}"
    )


def _reliability(test: Figures) -> str:
    """What each bin stated and what was true; bins whose statement the images contradict by name."""
    bins = test["reliability"]
    rows = [f"| {one['stated']:.3f} | {share(one['observed'])} |" for one in bins]
    table = "| stated, mean of the bin | observed (95 % Wilson) |\n|--:|---|\n" + "\n".join(rows)
    outside = [one for one in bins if not _holds(one)]
    if not outside:
        return f"{table}\n\nIn every bin the stated probability lies within the interval of what was observed."
    named = "; ".join(
        f"{one['stated']:.1%} stated, {one['observed']['value']:.1%} observed"
        f" ({one['observed']['wilson95'][0]:.1%} to {one['observed']['wilson95'][1]:.1%})"
        for one in outside
    )
    return (
        f"{table}\n\nIn {len(outside)} of {len(bins)} bins the stated probability lies outside the interval of what was"
        f" observed, so do not read it as a share there: {named}. Of these images"
        f" {test['with'] / max(1, test['images']):.0%} have the finding, which equal weight does not know."
    )


def _holds(one: Figures) -> bool:
    low, high = one["observed"]["wilson95"]
    return bool(low <= one["stated"] <= high)


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
        f"| figure of doubt | AURC | against maximum probability |\n|---|--:|---|\n{rows}\n\n"
        "Of a single label predictive entropy orders images as maximum probability does, and has no row of its own."
    )
