"""Nobody fills the audit trail by knocking, whatever he calls himself."""

from scp.callers.alerts import KINDS_MAX, Alerts


def test_a_storm_of_invented_titles_is_a_handful_of_records_that_count_all() -> None:
    alerts = Alerts()
    for number in range(10_000):
        alerts.turned_away(f"10.0.{number % 256}.1", f"AE{number}", ("called_ae_title", "not_bound")[number % 2])
    events = alerts.take()
    assert len(events) <= KINDS_MAX + 2 <= 22
    assert sum(event.detail["count"] for event in events) == 10_000
    assert alerts.take() == []
