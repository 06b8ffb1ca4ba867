"""How many instances of a study an archive lists: NumberOfStudyRelatedInstances by C-FIND (PS3.4 C.6.2), and by
series where it lists more than is here, because an archive holds what is no image and what we made ourselves."""

from dataclasses import dataclass

from pydicom.dataset import Dataset
from pynetdicom.association import Association

from config.settings import DeliverSettings, Destination
from sr_writer.association import asking, insisting
from sr_writer.find import STUDY_ROOT_FIND, matches


@dataclass(frozen=True)
class ListedSeries:
    """A series of the study. instances: None where the archive does not say."""

    series_instance_uid: str
    modality: str
    instances: int | None


@dataclass(frozen=True)
class Listed:
    """What an archive lists of one study. instances: None where it does not say. series: where they were asked for."""

    instances: int | None
    series: tuple[ListedSeries, ...] = ()


def listed(destination: Destination, settings: DeliverSettings, study_uid: str, here: int) -> Listed:
    """Ask; for the series too if there are more instances than `here`. Raises NotOffered, Unreachable."""

    def ask() -> Listed:
        with asking(destination, settings, STUDY_ROOT_FIND) as association:
            timeout_s = settings.response_timeout_s
            number = _study(association, destination, study_uid, timeout_s)
            if number is None or number <= here:
                return Listed(number)
            return Listed(number, _series(association, destination, study_uid, timeout_s))

    return insisting(ask, destination, "how many instances it has (C-FIND)")


def _study(association: Association, destination: Destination, study_uid: str, timeout_s: float) -> int | None:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.StudyInstanceUID = study_uid
    identifier.NumberOfStudyRelatedInstances = None
    found = [
        match
        for match in matches(association, destination, identifier, timeout_s)
        if match.get("StudyInstanceUID") == study_uid
    ]
    if not found:
        return 0
    numbers = [_number(match, "NumberOfStudyRelatedInstances") for match in found]
    return max((number for number in numbers if number is not None), default=None)


def _series(
    association: Association, destination: Destination, study_uid: str, timeout_s: float
) -> tuple[ListedSeries, ...]:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "SERIES"
    identifier.StudyInstanceUID = study_uid
    identifier.SeriesInstanceUID = None
    identifier.Modality = None
    identifier.NumberOfSeriesRelatedInstances = None
    return tuple(
        ListedSeries(
            str(match.get("SeriesInstanceUID", "")),
            str(match.get("Modality", "")),
            _number(match, "NumberOfSeriesRelatedInstances"),
        )
        for match in matches(association, destination, identifier, timeout_s)
        if match.get("StudyInstanceUID", study_uid) == study_uid
    )


def _number(match: Dataset, keyword: str) -> int | None:
    try:
        return max(0, int(match[keyword].value))
    except (KeyError, TypeError, ValueError):
        return None
