"""Everything that happened to one study, in words: the same in `explain` and on the study's page."""

from collections.abc import Iterator
from datetime import datetime

from ledger.delivery_records import DeliveryState, Proof
from ledger.figures import probability_words, sd_words
from ledger.notifications import Notification
from ledger.records import Finding, ImageResult, ReportKind
from ledger.views import ObjectDelivery
from node.telling.places import Made
from node.telling.triage_list import state_word
from sr_writer.profiles import name_of_kind


def result_lines(result: ImageResult) -> list[str]:
    """What one model said of one image, with every number it rests on."""
    lines = [f"{model_words(result)}: {result.status}{_priority(result)}, {result.duration_ms:.0f} ms"]
    if result.reason:
        lines.append(f"{result.reason_code}: {result.reason}")
    lines += [finding_line(finding) for finding in result.findings]
    lines += [f"{mask.label}: {mask.pixels} pixels marked" for mask in result.masks]
    lines += [f"flag {flag}" for flag in result.critical_flags]
    return lines + list(result.recommendations)


def model_words(result: ImageResult) -> str:
    """Name, version and the beginning of the digest."""
    return f"{result.model.name} {result.model.version} ({result.model.digest[:12]})" if result.model else "no model"


def _priority(result: ImageResult) -> str:
    return f", priority {result.priority}" if result.priority else ""


def finding_line(finding: Finding) -> str:
    return (
        f"{finding.label}: probability {probability_words(finding.probability)} "
        f"± {sd_words(finding.probability_sd, 3)}, {numbers_behind(finding)}"
        f"{', present' if finding.present else ''}{', in doubt' if finding.in_doubt else ''}"
    )


def numbers_behind(finding: Finding) -> str:
    """What the passes disagree about, and the thresholds."""
    return (
        f"mutual information {finding.mutual_information:.4f} nat, operating point {finding.operating_point:.3f}, "
        f"high {finding.high_operating_point:.3f}"
    )


def told_line(one: Notification) -> str:
    """What an adapter was told of one report."""
    what = "" if one.report_kind is ReportKind.WITHDRAWN else f", priority {one.priority}"
    return f"{one.adapter}: {one.report_kind} report{what}: {state_word(one.state)} {one.reason}".rstrip()


def object_lines(made: Made) -> Iterator[str]:
    """Each form that went, or is to go, anywhere; those that are not needed in one line."""
    for uid in dict.fromkeys(place.sop_instance_uid for place in made.places):
        yield f"{made.report_kind} report: {name_of_kind(made.kind)} {uid}"
        yield from (f"    {where(place)}" for place in made.places if place.sop_instance_uid == uid)
    if spare := spare_line(made):
        yield f"    {spare}"


def spare_line(made: Made) -> str:
    """The forms that nobody needs, or nothing."""
    if not made.spare:
        return ""
    forms = len({one.sop_instance_uid for one in made.spare})
    places = ", ".join(sorted({one.destination or "" for one in made.spare}))
    return f"{places}: not needed in {forms} other {'form' if forms == 1 else 'forms'}"


def where(made: ObjectDelivery) -> str:
    """One line for the delivery, one for the proof."""
    line = delivery_line(made)
    return line if made.proof is Proof.NONE or made.state is None else f"{line}\n    {proof_line(made)}"


def delivery_line(made: ObjectDelivery) -> str:
    if made.destination is None or made.state is None:
        return "no destination"
    if made.state is DeliveryState.SHADOW:
        return f"{made.destination}: {state_word(made.state)}"
    if made.tries == 0 and made.state is DeliveryState.WAITING:
        return f"{made.destination}: waiting, no answer yet {made.reason}".rstrip()
    answer = f" 0x{made.status:04X}" if made.status is not None else ""
    tries = {0: ", never sent,", 1: " after 1 try"}.get(made.tries, f" after {made.tries} tries")
    context = f" as {made.context}" if made.context else ""
    when = f"{tries}{_at(made.changed_at)}"
    return f"{made.destination}: {state_word(made.state)}{answer}{when}{context} {made.reason}".rstrip()


def proof_line(made: ObjectDelivery) -> str:
    if made.proof is Proof.WAITING:
        return "proof: not asked yet, or the answer is still to come"
    return f"proof: {made.proof}{_at(made.proven_at)} {made.proof_text}".rstrip()


def _at(moment: datetime | None) -> str:
    return f" at {moment.astimezone():%Y-%m-%d %H:%M:%S}" if moment else ""
