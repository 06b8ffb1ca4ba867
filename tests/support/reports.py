"""A report on its way into objects, as `build_objects` makes it, for builders that are tried by themselves."""

from io import BytesIO

from pydicom import dcmread
from pydicom.dataset import Dataset

from config.settings import Destination, ProfileName, Settings
from ledger.records import ResultObject, StudyFindings
from ledger.store import Store
from sr_writer.build import frames_looked_at, plan_of
from sr_writer.dress import Report
from sr_writer.identity import identity_of
from sr_writer.profiles import PROFILES, Plan, plain
from sr_writer.source import read_header

INSTALLATION = "2.25.7"


def wanting_everything(profile: ProfileName) -> Destination:
    """A destination with all that its profile may have."""
    row = PROFILES[profile]
    return Destination(
        ae_title="PACS",
        host="localhost",
        port=104,
        profile=profile,
        unflagged="all",
        key_objects="high",
        presentation_state=row.may_have_presentation_state,
        parametric_map=row.may_have_parametric_map,
    )


def report_of(
    findings: StudyFindings,
    store: Store,
    settings: Settings | None = None,
    plan: Plan | ProfileName = "generic-pacs",
) -> Report:
    """About the first image of the findings."""
    settings = settings or Settings()
    first = findings.looked_at[0].instance
    made = plan_of(plain(plan), findings) if isinstance(plan, str) else plan
    return Report(
        findings=findings,
        header=read_header(store.path(first.path), findings.study_instance_uid),
        header_of=first,
        settings=settings.report,
        identity=identity_of(findings, settings.results_hash, INSTALLATION, made.name),
        installation_uid=INSTALLATION,
        critical_flags=False,
        plan=made,
        frames=frames_looked_at((item.instance for item in findings.looked_at), store),
    )


def dataset(made: ResultObject) -> Dataset:
    return dcmread(BytesIO(made.content))
