"""Which part of the body an image object shows, and its side: from the source, else from where the finding sits."""

from collections.abc import Sequence

from pydicom.dataset import Dataset

from ledger.records import Code
from sr_writer.source import SourceHeader

_UNPAIRED = frozenset(  # PS3.16 L: with any other part, Laterality is wanted
    " ".join(
        (
            "ABDOMEN ABDOMENPELVIS AORTA BACK BLADDER BRAIN CEREBELLUM CERVIX CHEST CHESTABDOMEN CHESTABDPELVIS",
            "CIRCLEOFWILLIS COCCYX COLON CORONARYARTERY CSPINE CTSPINE DUODENUM ESOPHAGUS FACE GALLBLADDER HEAD",
            "HEADNECK HEART ILEUM ILIUM JAW JEJUNUM LARYNX LIVER LSPINE LSSPINE MAXILLA MEDIASTINUM MOUTH NECK",
            "NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV NOSE PANCREAS PELVIS PENIS PHARYNX PROSTATE RECTUM SSPINE",
            "SCALP SKULL SPINE SPLEEN STERNUM STOMACH THYMUS THYROID TLSPINE TONGUE TRACHEA TSPINE UTERUS VAGINA VULVA",
            "WHOLEBODY",
        )
    ).split()
)
_SITE_OF_BODY = {"39607008": "CHEST", "12738006": "BRAIN"}  # SNOMED lung, brain


def put_body_part(ds: Dataset, header: SourceHeader, sites: Sequence[Code | None]) -> None:
    """Write BodyPartExamined and, for all but an unpaired part, Laterality (type 2C)."""
    named = [_SITE_OF_BODY.get(site.value, "") for site in sites if site]
    body_part = header.body_part or next((part for part in named if part), "")
    if body_part:
        ds.BodyPartExamined = body_part
    if body_part not in _UNPAIRED:
        ds.Laterality = header.laterality  # empty when the source does not say
