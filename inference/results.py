"""What is said of one image, as records for the ledger: analysed, refused, not applicable, or failed."""

from dataclasses import dataclass

from inference.errors import CannotLook
from inference.header import HeaderFacts
from inference.package import Package, Refused, identity
from inference.route import NOBODY_LOOKS, NotMeantFor
from ledger.records import ImageResult, ModelIdentity, ResultStatus, TriagePriority


@dataclass(frozen=True)
class Results:
    """Makes results of one node. recommendation: the sentence that stands beside "not assessed"; empty: none."""

    settings_hash: str
    recommendation: str

    def analysed(
        self, facts: HeaderFacts, shape: tuple[int, int] | None, package: Package, priority: TriagePriority
    ) -> ImageResult:
        """Without its findings, which the caller adds. shape: (rows, columns) of what was decoded."""
        return self._result(facts, shape, package.identity, ResultStatus.ANALYSED, priority, "", "")

    def refused(
        self, facts: HeaderFacts, shape: tuple[int, int] | None, package: Package, refusal: CannotLook
    ) -> ImageResult:
        return self._not_assessed(facts, shape, package.identity, refusal.reason_code, refusal.reason)

    def package_refused(self, facts: HeaderFacts, refused: Refused) -> ImageResult:
        """A package is meant for the image and cannot be used. Which file is at fault is not for a radiologist."""
        model = identity(refused.manifest, refused.digest) if refused.manifest else None
        why = f"Package refused: {refused.name} is meant for this image and cannot be used on this node."
        return self._not_assessed(facts, None, model, "package_refused", why)

    def no_model(self, facts: HeaderFacts) -> ImageResult:
        """Somebody forgot to install one, or its volume is not mounted: that nobody looked is said of every image."""
        return self._not_assessed(facts, None, None, NOBODY_LOOKS.reason_code, NOBODY_LOOKS.reason)

    def not_applicable(self, facts: HeaderFacts, shape: tuple[int, int] | None, why: NotMeantFor) -> ImageResult:
        return self._result(facts, shape, None, ResultStatus.NOT_APPLICABLE, None, why.reason_code, why.reason)

    def failed(
        self,
        facts: HeaderFacts,
        shape: tuple[int, int] | None = None,
        package: Package | None = None,
        reason_code: str = "internal_error",
        reason: str = "The node failed on this image; its log says why.",
    ) -> ImageResult:
        status, priority = ResultStatus.FAILED, TriagePriority.NOT_ASSESSED
        model = package.identity if package else None
        return self._result(facts, shape, model, status, priority, reason_code, reason)

    def _not_assessed(
        self,
        facts: HeaderFacts,
        shape: tuple[int, int] | None,
        model: ModelIdentity | None,
        reason_code: str,
        reason: str,
    ) -> ImageResult:
        status, priority = ResultStatus.NOT_ASSESSED, TriagePriority.NOT_ASSESSED
        return self._result(facts, shape, model, status, priority, reason_code, reason, (self.recommendation,))

    def _result(
        self,
        facts: HeaderFacts,
        shape: tuple[int, int] | None,
        model: ModelIdentity | None,
        status: ResultStatus,
        priority: TriagePriority | None,
        code: str,
        reason: str,
        recommendations: tuple[str, ...] = (),
    ) -> ImageResult:
        rows, columns = shape or (facts.rows, facts.columns)
        return ImageResult(
            status=status,
            reason=reason,
            reason_code=code,
            priority=priority,
            model=model,
            recommendations=recommendations,
            unverified_input=facts.unverified,
            source_rows=rows,
            source_columns=columns,
            settings_hash=self.settings_hash,
        )
