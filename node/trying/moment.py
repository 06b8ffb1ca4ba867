"""A sample made a study of this moment."""

from datetime import datetime

from pydicom.dataset import FileDataset
from pydicom.uid import generate_uid


def make_new(ds: FileDataset, now: datetime) -> None:
    """UIDs of its own, and every date and time now's, in now's time zone."""
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(prefix=None), generate_uid(prefix=None)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
    ds.TimezoneOffsetFromUTC = f"{now:%z}"
    for name in ("Study", "Series", "Acquisition", "Content"):
        setattr(ds, f"{name}Date", f"{now:%Y%m%d}")
        setattr(ds, f"{name}Time", f"{now:%H%M%S}")
