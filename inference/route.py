"""Which packages are meant for an image: by modality, by a known body part, by a known view, by a series' name.

What a header does not say keeps nobody away: the gate looks at the pixels then. The name of a series is the exception
(docs/adr/0009): a model of one MR contrast reads only what is called by it. So is the modality, but for the radiograph
that an old gateway or a digitiser packs as a Secondary Capture of modality OT, or of none.
"""

from dataclasses import dataclass

from inference.body_parts import any_word
from inference.header import OWN_ELEMENTS, HeaderFacts
from inference.manifest import Reads
from inference.package import Package
from ledger.records import NO_MODEL


@dataclass(frozen=True)
class NotMeantFor:
    """Why a package does not read this image. `progress` counts how many of the questions it had passed."""

    reason_code: str
    reason: str
    progress: int = 0


@dataclass(frozen=True)
class Routing:
    packages: tuple[Package, ...]
    otherwise: NotMeantFor  # of the package that came nearest, when there is none
    nobody: bool = False  # an image on a node without any package: nobody knows whether one would have been meant


NOBODY_LOOKS = NotMeantFor(NO_MODEL, "No model is installed.")
_RADIOGRAPHS = frozenset({"CR", "DX"})
_SECONDARY_CAPTURES = frozenset(f"1.2.840.10008.5.1.4.1.1.7{end}" for end in ("", ".2", ".3"))  # of one bit, colour: no


def route(facts: HeaderFacts, packages: tuple[Package, ...]) -> Routing:
    """Which of the packages are meant for this image."""
    answers = [(package, _question(facts, package.manifest.reads)) for package in packages]
    refusals = [answer for _, answer in answers if answer]
    nearest = max(refusals, key=lambda refusal: refusal.progress, default=NOBODY_LOOKS)
    nobody = not packages and facts.has_pixels and not facts.secondary
    return Routing(tuple(package for package, refusal in answers if refusal is None), nearest, nobody)


def meant_for(facts: HeaderFacts, reads: Reads) -> bool:
    """Whether a package that reads this would be asked; of an unknown body part it would."""
    return _question(facts, reads) is None


def _question(facts: HeaderFacts, reads: Reads) -> NotMeantFor | None:
    if facts.modality not in reads.modalities and not _packed_radiograph(facts, reads):
        return NotMeantFor("modality_not_read", f"No model reads the modality {facts.modality or '(none)'}.")
    if facts.secondary:  # an overlay or a printout beside the image itself: no second opinion, and no alarm, on those
        return NotMeantFor("secondary_image", "The image is a secondary one, made from others.", 1)
    if facts.body_part is not None and facts.body_part not in reads.body_parts:
        return NotMeantFor("body_part_not_read", f"No model reads {facts.modality} of this body part.", 2)
    if reads.views and facts.view is not None and not _view_fits(facts.view, reads.views):
        return NotMeantFor("view_not_read", f"No model reads the {facts.view.lower()} view.", 3)
    if not facts.unverified and not _called(facts.series_texts, reads):  # a bare picture is what its giver says
        return NotMeantFor("series_not_read", "No model reads a series that is called what this one is called.", 4)
    return None


def _packed_radiograph(facts: HeaderFacts, reads: Reads) -> bool:
    """A grey Secondary Capture of OT or no modality, whose own elements name the body part that a model of radiographs
    reads. What the study is called does not count: a page of a chest CT lies in a study of that name too. Whether it is
    such a radiograph is for the gate to say, and if it is not, that it cannot be assessed."""
    return (
        facts.modality in (None, "OT")
        and not _RADIOGRAPHS.isdisjoint(reads.modalities)
        and facts.sop_class_uid in _SECONDARY_CAPTURES
        and facts.photometric.startswith("MONOCHROME")
        and facts.body_part in reads.body_parts
        and facts.body_part_source in OWN_ELEMENTS
    )


def _called(texts: tuple[str, ...], reads: Reads) -> bool:
    if any(any_word(words, reads.not_descriptions) for words in texts):
        return False
    return not reads.descriptions or any(any_word(words, reads.descriptions) for words in texts)


def _view_fits(view: str, views: tuple[str, ...]) -> bool:
    return view in views or (view == "FRONTAL" and not {"PA", "AP"}.isdisjoint(views))
