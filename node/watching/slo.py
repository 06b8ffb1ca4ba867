"""What [slo] promises, by kind of report and priority. Only what leaves at once is held to high_s: a report that waits
for its study to be complete cannot be there before."""

from config.keeping import SloSettings
from ledger.records import ReportKind, TriagePriority
from ledger.slo import Promise


def targets(slo: SloSettings) -> dict[Promise, float]:
    """Seconds from the last byte to the destination's yes."""
    final = {
        TriagePriority.HIGH: slo.medium_s,  # what only the whole study shows, such as a volume
        TriagePriority.MEDIUM: slo.medium_s,
        TriagePriority.NOT_ASSESSED: slo.not_assessed_s,
        TriagePriority.LOW: slo.low_s,
    }
    return {
        (ReportKind.PROVISIONAL, TriagePriority.HIGH): slo.high_s,
        **{(ReportKind.FINAL, priority): limit_s for priority, limit_s in final.items()},
    }
