"""Which objects a destination gets, in which SOP classes: one table of profiles, and the site's wishes on top of it.

A plan is what is built: destinations with equal plans get the very same objects, and a plan's name is a part of their
identity. Whether there is anything to put into an object of a plan is for its builder to say.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from config.settings import Contents, Destination, ProfileName
from ledger.records import TriagePriority

MEASUREMENT_SR = "measurement_sr"
TEXT_SR = "text_sr"
SECONDARY_CAPTURE = "secondary_capture"
KEY_OBJECTS = "key_objects"
PRESENTATION_STATE = "presentation_state"
PARAMETRIC_MAP = "parametric_map"
SEGMENTATION = "segmentation"
_NAMES = {
    MEASUREMENT_SR: "measurement report",
    TEXT_SR: "text report",
    SECONDARY_CAPTURE: "picture",
    KEY_OBJECTS: "key images",
    PRESENTATION_STATE: "marks on the image",
    PARAMETRIC_MAP: "activation map",
}

PictureKind = Literal["none", "whole", "banner"]  # banner: words alone, nothing of the image's inside
DEFAULT_PROFILE: ProfileName = "generic-pacs"

# Kinds that exist in one SOP class only; of the two reports the profiles say which, by preference.
SOP_CLASS_OF: Mapping[str, str] = MappingProxyType(
    {
        SECONDARY_CAPTURE: SecondaryCaptureImageStorage,
        KEY_OBJECTS: KeyObjectSelectionDocumentStorage,
        PRESENTATION_STATE: GrayscaleSoftcopyPresentationStateStorage,
        PARAMETRIC_MAP: ParametricMapStorage,
        SEGMENTATION: SegmentationStorage,
    }
)


@dataclass(frozen=True)
class Profile:
    """One row of the table.

    measurement_sr, text_sr: SOP classes, the preferred first; the destination gets the first that it accepts. Every
    profile has a text report; not all have measurements.
    boxes_only: no measurement report without a box, and no group in it without one: the viewer would go blank.
    text_alone: the text report goes only where no measurement report does.
    key_objects: for HIGH, where the site says "profile". may_have_*: the site may ask for it.
    place: whether any object says where in an image.
    """

    measurement_sr: tuple[str, ...] = ()
    text_sr: tuple[str, ...] = (EnhancedSRStorage,)
    boxes_only: bool = False
    text_alone: bool = False
    picture: PictureKind = "whole"
    key_objects: bool = False
    may_have_presentation_state: bool = False
    may_have_parametric_map: bool = False
    segmentation: bool = True
    place: bool = True

    def __post_init__(self) -> None:
        if not self.text_sr:
            raise ValueError("a profile without a text report could not be told that an earlier one is withdrawn")

    def sop_classes(self) -> dict[str, tuple[str, ...]]:
        """Every kind that a destination of this profile may get, with its SOP classes."""
        single = [
            kind
            for kind, offered in (
                (SECONDARY_CAPTURE, self.picture != "none"),
                (KEY_OBJECTS, True),  # the site may ask for them anywhere
                (PRESENTATION_STATE, self.may_have_presentation_state),
                (PARAMETRIC_MAP, self.may_have_parametric_map),
                (SEGMENTATION, self.segmentation),
            )
            if offered
        ]
        measured = {MEASUREMENT_SR: self.measurement_sr} if self.measurement_sr else {}
        return measured | {TEXT_SR: self.text_sr} | {kind: (SOP_CLASS_OF[kind],) for kind in single}


_MEASUREMENT = (ComprehensiveSRStorage, Comprehensive3DSRStorage, EnhancedSRStorage)
_AIR = (Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage)

PROFILES: Mapping[ProfileName, Profile] = MappingProxyType(
    {
        "generic-pacs": Profile(
            measurement_sr=_MEASUREMENT,
            key_objects=True,
            may_have_presentation_state=True,
            may_have_parametric_map=True,
        ),
        "ohif": Profile(measurement_sr=_MEASUREMENT, boxes_only=True),
        "orthanc-stone": Profile(measurement_sr=_MEASUREMENT, may_have_presentation_state=True),
        "air": Profile(
            measurement_sr=_AIR, text_sr=_AIR, text_alone=True, key_objects=True, may_have_parametric_map=True
        ),
        "triage-only": Profile(picture="banner", key_objects=True, segmentation=False, place=False),
    }
)


@dataclass(frozen=True)
class Plan:
    """The objects of one report for one or more destinations. Nothing, unless said otherwise."""

    measurement_sr: tuple[str, ...] = ()
    text_sr: tuple[str, ...] = ()
    boxes_only: bool = False
    text_alone: bool = False
    picture: PictureKind = "none"
    key_objects: bool = False
    presentation_state: bool = False
    parametric_map: bool = False
    segmentation: bool = False
    place: bool = True

    @property
    def name(self) -> str:
        """What is planned, in a form that stays the same: part of the identity of everything built by it."""
        parts = [f"{MEASUREMENT_SR} {' '.join(self.measurement_sr)}"] if self.measurement_sr else []
        parts += [f"{TEXT_SR} {' '.join(self.text_sr)}"] if self.text_sr else []
        parts += [f"{SECONDARY_CAPTURE} {self.picture}"] if self.picture != "none" else []
        parts += [kind for kind in (KEY_OBJECTS, PRESENTATION_STATE, PARAMETRIC_MAP, SEGMENTATION) if self.has(kind)]
        parts += [
            word for word, so in (("boxes only", self.boxes_only), ("text alone", self.text_alone)) if so and parts
        ]
        return ", ".join([*parts, *(() if self.place else ("no place",))])

    def has(self, kind: str) -> bool:
        return kind in self.kinds

    @property
    def kinds(self) -> tuple[str, ...]:
        """Those it has, in the order in which they are built and sent: what tells a reader first."""
        said = (
            (MEASUREMENT_SR, bool(self.measurement_sr)),
            (TEXT_SR, bool(self.text_sr)),
            (SECONDARY_CAPTURE, self.picture != "none"),
            (KEY_OBJECTS, self.key_objects),
            (PRESENTATION_STATE, self.presentation_state),
            (PARAMETRIC_MAP, self.parametric_map),
            (SEGMENTATION, self.segmentation),
        )
        return tuple(kind for kind, so in said if so)


NOTHING = Plan()


def contents(destination: Destination, flagged: bool) -> Contents:
    """What the site wants there of a study. flagged: see `plan_for`."""
    return destination.flagged if flagged else destination.unflagged


def plan_for(destination: Destination, priority: TriagePriority, flagged: bool) -> Plan:
    """What `destination` gets of a study.

    flagged: HIGH, MEDIUM, or something marked by a model that may not raise a priority. Pictures are of HIGH and
    MEDIUM studies only, key objects of HIGH ones. `sr` is everything but pictures; `text` the text report alone.
    """
    profile, wanted = PROFILES[destination.profile], contents(destination, flagged)
    if wanted == "none":
        return NOTHING
    if wanted == "text":
        return text_plan(destination)
    urgent = priority in (TriagePriority.HIGH, TriagePriority.MEDIUM)
    key_objects = profile.key_objects if destination.key_objects == "profile" else destination.key_objects == "high"
    pictures = wanted == "all"
    return Plan(
        measurement_sr=profile.measurement_sr,
        text_sr=profile.text_sr,
        boxes_only=profile.boxes_only,
        text_alone=profile.text_alone,
        picture=profile.picture if pictures and urgent else "none",
        key_objects=key_objects and priority is TriagePriority.HIGH,
        presentation_state=pictures
        and urgent
        and profile.may_have_presentation_state
        and destination.presentation_state,
        parametric_map=pictures and profile.may_have_parametric_map and destination.parametric_map,
        segmentation=profile.segmentation,
        place=profile.place,
    )


def name_of_kind(kind: str) -> str:
    """ "measurement report": what a reader calls an object of this kind."""
    return _NAMES.get(kind, kind.replace("_", " "))


def text_plan(destination: Destination) -> Plan:
    """The text report alone."""
    profile = PROFILES[destination.profile]
    return Plan(text_sr=profile.text_sr, place=profile.place)


def reports_alone(plan: Plan) -> Plan:
    """Of a plan what is words and numbers."""
    return replace(
        plan, picture="none", key_objects=False, presentation_state=False, parametric_map=False, segmentation=False
    )


def withdrawal_plan(destination: Destination, measured: bool) -> Plan:
    """What `destination` gets when an earlier report is taken back: reports alone, in its profile's classes.

    measured: the earlier report had a measurement report. A profile that shows boxes only gets none without a box: its
    text report names the earlier measurements too.
    """
    profile = PROFILES[destination.profile]
    classes = profile.measurement_sr if measured and not profile.boxes_only else ()
    return Plan(measurement_sr=classes, text_sr=profile.text_sr, text_alone=profile.text_alone, place=profile.place)


def plain(profile: ProfileName = DEFAULT_PROFILE) -> Destination:
    """A destination of this profile without wishes of its own: for results that are kept and sent nowhere."""
    return Destination(ae_title="NOWHERE", host="localhost", port=1, profile=profile)
