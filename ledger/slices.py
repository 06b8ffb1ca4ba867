"""What slices say of their study together: how many are marked, how many were refused, and what that means for it.

A slice model's images speak for their series. One that the model could not judge is a remark beside what the others
show; only where a series was not assessed does the study count as not assessed. Ledger and writer share this rule.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from ledger.records import ImageResult, InstanceResults, ResultStatus, TriagePriority, most_urgent

# The largest share of a series' slices that may be refused while the series counts as assessed. A volume ends in slices
# of air or of the crown, which no model knows: a few percent of it. More than a tenth is a part of the organ where
# nobody looked, thick enough to hold a finding.
MOST_REFUSED = 0.1

Said = Sequence[tuple[str, ImageResult]]  # Series Instance UID, and what one model said of one of its images
Counted = tuple[tuple[str, int, int], ...]  # (label or reason, how many slices, of how many in all)


def results_of(looked_at: Iterable[InstanceResults]) -> list[tuple[str, ImageResult]]:
    """All results of some images, each with its series."""
    return [(item.instance.series_instance_uid, result) for item in looked_at for result in item.results]


def is_slice(result: ImageResult) -> bool:
    """Whether its model reads slices: it says nothing by itself, and with the others something of their series."""
    return result.model is not None and result.model.volume_rule is not None


def unjudged(result: ImageResult) -> bool:
    """A model was meant to look and could not."""
    return result.status in (ResultStatus.NOT_ASSESSED, ResultStatus.FAILED)


def assessed(slices: int, refused: int) -> bool:
    """Whether a series was, of which so many slices were meant for a model and so many of those were refused."""
    return refused < slices and refused <= MOST_REFUSED * slices


def remarks(said: Said) -> list[bool]:
    """Of each, whether it is no more than a remark: a refused slice of a series that was assessed all the same."""
    stacks = [(series, result.model.digest if result.model else "") for series, result in said]
    meant = Counter(stack for stack, (_, result) in zip(stacks, said, strict=True) if is_slice(result))
    refused = Counter(stack for stack, (_, result) in zip(stacks, said, strict=True) if _refused(result))
    return [
        _refused(result) and assessed(meant[stack], refused[stack])
        for stack, (_, result) in zip(stacks, said, strict=True)
    ]


def study_priority(said: Said) -> TriagePriority | None:
    """The most urgent of all that is more than a remark; None where no model was meant for anything."""
    weighed = [result for (_, result), remark in zip(said, remarks(said), strict=True) if not remark]
    found = [result.priority for result in weighed if result.priority is not None]
    return most_urgent(found) if found else None


def slices_marked(said: Said) -> Counted:
    """Each label that any slice marks and holds for present."""
    slices = [result for _, result in said if is_slice(result)]
    marked = Counter(
        label
        for result in slices
        if result.status is ResultStatus.ANALYSED
        for label in {f.label for f in result.findings if f.present} & {mask.label for mask in result.masks}
    )
    return tuple((label, count, len(slices)) for label, count in sorted(marked.items()))


def slices_refused(said: Said) -> Counted:
    """Each reason why slices could not be assessed."""
    refused = Counter(result.reason for _, result in said if _refused(result))
    total = sum(is_slice(result) for _, result in said)
    return tuple((reason, count, total) for reason, count in sorted(refused.items()))


def why_not_assessed(said: Said) -> str:
    """Of an image, else of slices, in the words for those. Empty where nothing stands against the study."""
    left = [result for (_, result), remark in zip(said, remarks(said), strict=True) if unjudged(result) and not remark]
    alone = next((result.reason for result in left if not is_slice(result)), "")
    return alone or (refused_words(slices_refused(said)) if left else "")


def marked_words(marked: Counted) -> list[str]:
    """For a person."""
    return [f"{label} marked in {count} of {total} slices, no alarm" for label, count, total in marked]


def refused_words(refused: Counted, where: str = "") -> str:
    """For a person, without a full stop: "2 of 56 slices could not be assessed: The image shows one grey only". Of
    several reasons each has its number. Empty where none was refused."""
    if not refused:
        return ""
    reasons = [(reason.rstrip(". "), f" ({count})" if len(refused) > 1 else "") for reason, count, _ in refused]
    many = f"{sum(count for _, count, _ in refused)} of {refused[0][2]} slices{where}"
    return f"{many} could not be assessed: {'; '.join(map(''.join, reasons))}"


def as_objects(counted: Counted, name: str) -> list[dict[str, str | int]]:
    """For JSON; name: of what is counted, label or reason."""
    return [{name: said, "slices": count, "of": total} for said, count, total in counted]


def _refused(result: ImageResult) -> bool:
    return is_slice(result) and unjudged(result)
