"""Words that every model card has: how a figure is written, how a card opens, what it says of licences."""

from typing import Any

from inference.manifest import Manifest

Figures = dict[str, Any]


def opening(manifest: Manifest) -> list[str]:
    """Title, intended use and its limits, a paragraph each."""
    return [f"# {manifest.name} {manifest.version}", manifest.intended_use, f"**Not for:** {manifest.not_for}"]


def share(figure: Figures) -> str:
    """figure: as validation.statistics.proportion gives it."""
    if figure["value"] is None:
        return "none to count"
    low, high = figure["wilson95"]
    return f"{figure['value']:.3f} ({low:.3f} to {high:.3f}; {figure['hits']} of {figure['n']})"


def auc(figure: Figures) -> str:
    """figure: as validation.roc.auc_by_group gives it."""
    low, high = figure.get("interval95") or figure["bootstrap95_by_patient"]
    return f"{figure['value']:.4f} ({low:.4f} to {high:.4f}; n = {figure['n']}, {figure['patients']} patients)"


def capital(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"


def uncertainty(manifest: Manifest) -> str:
    """What an sd is here, and the dropout it rests on."""
    mc = manifest.uncertainty
    return f"{capital(mc.text)} (dropout {mc.dropout}, seed {mc.seed})."


def no_rule(manifest: Manifest, why: str) -> str:
    """A paragraph, with the gap before it, where the package never abstains; "" where it has a rule.

    why: goes on "it would have to"."""
    if manifest.abstention is not None:
        return ""
    return f"\n\nAbstention: no rule was fitted, so no answer is withheld for doubt; it would have to {why}."


def licence(manifest: Manifest, terms: str = "") -> str:
    """terms: a sentence on what the weights' licence asks for, with a space before it."""
    data = "\n".join(f"- {part.name}. {part.licence}. {part.attribution}" for part in manifest.licence.data)
    return f"## Licence\n\nWeights: {manifest.licence.weights}.{terms} Data:\n\n{data}"
