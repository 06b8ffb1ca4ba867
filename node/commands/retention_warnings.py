"""What `opentriage check-config` says of shadow mode and of what is removed with time."""

from collections.abc import Iterator

from config import Settings


def retention_warnings(settings: Settings) -> Iterator[str]:
    """A sentence for each thing that somebody may not expect."""
    rules = settings.retention
    if settings.node.mode == "shadow":
        yield "node.mode: shadow, so nothing new is sent to anybody (docs/going-live.md)"
    if not rules.images_days:
        return
    blind = [one.key for one in settings.destinations if not one.proof]
    if blind and rules.without_proof == "keep":
        yield (
            f"retention: images of studies reported to {', '.join(blind)} are never removed: it cannot be asked what "
            "it holds, and retention.without_proof is keep"
        )
    yield from _rests_on_a_name(settings)
    for one in settings.commitment_requestors:
        if one.retention_days > rules.images_days:
            yield (
                f"retention.images_days: {rules.images_days:g}, but what {one.key} sent is kept for "
                f"{one.retention_days:g} days, as it is told"
            )


def _rests_on_a_name(settings: Settings) -> Iterator[str]:
    """Destinations on whose word images are deleted, and that show no certificate when they give it."""
    certified = {peer.key for peer in settings.peers if peer.names_certificates}
    named = [
        one.key for one in settings.destinations if "commitment" in one.proof and one.ae_title.strip() not in certified
    ]
    if named and settings.retention.without_proof == "keep":
        yield (
            f"retention.images_days: images go when {', '.join(named)} has answered that it keeps the report (Storage "
            "Commitment), and who answers is known by AE title and address alone: give it a [[peers]] entry with its "
            "certificate, with [receive.tls], or leave commitment out of its proof (docs/retention.md)"
        )
