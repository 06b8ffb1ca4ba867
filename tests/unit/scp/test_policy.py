"""Who may associate, and what is negotiated."""

import pytest
from pydicom._uid_dict import UID_dictionary

from config.settings import ReceiveSettings
from scp.network.contexts import negotiation_table, storage_classes, transfer_syntaxes
from scp.network.engine import printable
from scp.network.policy import AssociationPolicy, Refusal

LE = "1.2.840.10008.1.2"


def policy(failed: bool = False, **settings: object) -> AssociationPolicy:
    return AssociationPolicy(ReceiveSettings.model_validate(settings), has_failed=lambda: failed)


def test_refusals_are_those_of_the_standard() -> None:
    assert policy().refusal("ANY", "OPENTRIAGE ", 0) is None
    assert policy().refusal("ANY", "OTHER", 0) is Refusal.CALLED_AE_TITLE
    assert policy(require_called_ae_title=False).refusal("ANY", "OTHER", 0) is None
    restricted = policy(allowed_calling_ae_titles=("CT1", "CT2"))
    assert restricted.refusal("CT2 ", "OPENTRIAGE", 0) is None
    assert restricted.refusal("CT3", "OPENTRIAGE", 0) is Refusal.CALLING_AE_TITLE
    assert policy(max_associations=2).refusal("ANY", "OPENTRIAGE", 1) is None
    assert policy(max_associations=2).refusal("ANY", "OPENTRIAGE", 2) is Refusal.LOCAL_LIMIT
    assert policy(failed=True).refusal("ANY", "OPENTRIAGE", 0) is Refusal.TEMPORARY_CONGESTION
    assert Refusal.CALLING_AE_TITLE.value == (1, 1, 3)
    assert Refusal.CALLED_AE_TITLE.value == (1, 1, 7)
    assert Refusal.TEMPORARY_CONGESTION.value == (2, 3, 1)
    assert Refusal.LOCAL_LIMIT.value == (2, 3, 2)


@pytest.mark.parametrize("title", ["STOW:operate", " STOW:", "stow:anna"])
def test_no_caller_takes_the_name_of_who_sends_by_stow(title: str) -> None:
    assert policy().refusal(title, "OPENTRIAGE", 0) is Refusal.CALLING_AE_TITLE
    allowed = policy(allowed_calling_ae_titles=(title,))
    assert allowed.refusal(title, "OPENTRIAGE", 0) is Refusal.CALLING_AE_TITLE
    assert policy().refusal("STOW", "OPENTRIAGE", 0) is None


@pytest.mark.parametrize(
    ("address", "admitted"),
    [
        ("10.1.2.3", True),
        ("10.2.0.1", False),
        ("::ffff:10.1.2.3", True),
        ("fd00::1", True),
        ("fe80::1%eth0", False),
    ],
)
def test_networks_are_allowed_by_configuration(address: str, admitted: bool) -> None:
    assert policy(allowed_networks=("10.1.0.0/16", "fd00::/8")).admits_peer(address) is admitted
    assert policy().admits_peer(address)


def test_every_composite_storage_class_is_accepted_retired_ones_included() -> None:
    classes = set(storage_classes())
    assert len(classes) > 190
    retired = {"1.2.840.10008.5.1.4.1.1.3", "1.2.840.10008.5.1.4.1.1.5", "1.2.840.10008.5.1.4.1.1.6",
               "1.2.840.10008.5.1.4.1.1.12.3", "1.2.840.10008.5.1.4.1.1.88.1"}  # fmt: skip
    assert retired <= classes
    assert "1.2.840.10008.1.3.10" not in classes  # a media directory
    assert "1.2.840.10008.1.20.1" not in classes  # storage commitment
    assert "1.2.840.10008.5.1.4.38.1" not in classes  # hanging protocols have no patient


def test_private_classes_come_from_the_configuration() -> None:
    private = "1.3.12.2.1107.5.9.1"
    assert private not in negotiation_table(ReceiveSettings())
    assert private in negotiation_table(ReceiveSettings(private_sop_classes=(private,)))


def test_uncompressed_is_preferred_then_lossless_then_lossy() -> None:
    order = transfer_syntaxes(ReceiveSettings())
    assert order[:2] == (LE + ".1", LE)
    last_lossless = max(order.index(LE + s) for s in (".4.70", ".4.80", ".4.90", ".5", ".4.201", ".4.110"))
    first_lossy = min(order.index(LE + s) for s in (".4.50", ".4.51", ".4.81", ".4.91", ".4.203", ".4.112"))
    assert last_lossless < first_lossy
    assert first_lossy < order.index(LE + ".4.100")
    assert len(set(order)) == len(order)


def test_deflated_and_big_endian_only_by_configuration() -> None:
    usual = set(transfer_syntaxes(ReceiveSettings()))
    assert not usual & {LE + ".1.99", LE + ".2", LE + ".8.1"}
    assert LE + ".1.99" in transfer_syntaxes(ReceiveSettings(accept_deflated=True))
    assert LE + ".2" in transfer_syntaxes(ReceiveSettings(accept_big_endian=True))


def test_every_transfer_syntax_of_the_dictionary_is_accepted_or_left_out_on_purpose() -> None:
    known = {uid for uid, (_, kind, *_rest) in UID_dictionary.items() if kind == "Transfer Syntax"}
    everything = set(transfer_syntaxes(ReceiveSettings(accept_deflated=True, accept_big_endian=True)))
    assert everything <= known
    jpip = {LE + f".4.{n}" for n in (94, 95, 204, 205)}
    not_files = {LE + ".6.1", LE + ".6.2", LE + ".7.1", LE + ".7.2", LE + ".7.3", "1.2.840.10008.1.20"}
    assert known - everything == jpip | not_files


@pytest.mark.parametrize(
    ("title", "logged"),
    [
        ("CT1", "CT1"),
        ("  CT1  ", "CT1"),
        ('A"\n{x}\x1b[31m\x00', 'A"?{x}?[31m?'),
        ("É" * 3, "???"),
        ("X" * 40, "X" * 16),
    ],
)
def test_a_strangers_title_is_logged_in_printable_ascii(title: str, logged: str) -> None:
    assert printable(title) == logged


def test_who_may_store_may_say_what_it_stored_and_nobody_else() -> None:
    open_to_all = AssociationPolicy(ReceiveSettings(), lambda: False)
    assert open_to_all.may_request("CT1", "OPENTRIAGE")
    assert not open_to_all.may_request("CT1", "SOMEBODY_ELSE")
    closed = AssociationPolicy(ReceiveSettings(allowed_calling_ae_titles=("CT1",)), lambda: False, requestors={"CT2"})
    assert closed.may_request("CT1", "OPENTRIAGE")
    assert not closed.may_request("CT2", "OPENTRIAGE")


def test_where_lists_are_not_kept_only_those_may_ask_that_are_promised_something() -> None:
    settings = ReceiveSettings(keep_stated_lists=False)
    policy = AssociationPolicy(settings, lambda: False, requestors={"CT1"})
    assert policy.may_request("CT1 ", "OPENTRIAGE")
    assert not policy.may_request("CT2", "OPENTRIAGE")
