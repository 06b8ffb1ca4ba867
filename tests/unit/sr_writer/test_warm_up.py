from config import Settings
from config.settings import Destination
from sr_writer import warm_up as module
from sr_writer.profiles import Plan
from sr_writer.warm_up import warm_up


def test_warming_up_builds_every_kind_of_object(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    kinds: list[str] = []
    build = module.build_objects

    def watched(*arguments):  # type: ignore[no-untyped-def]
        made = build(*arguments)
        kinds.extend(item.kind for item in made)
        return made

    monkeypatch.setattr(module, "build_objects", watched)
    warm_up(Settings())
    assert set(kinds) == {"measurement_sr", "text_sr", "secondary_capture", "key_objects"}


def test_warming_up_builds_what_the_site_sends(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    built: list[Plan] = []
    monkeypatch.setattr(module, "build_objects", lambda *arguments: built.append(arguments[-1]))
    names = [("one", "ohif"), ("two", "triage-only"), ("three", "ohif")]
    sites = [Destination(name=n, ae_title="A", host="h", port=1, profile=p) for n, p in names]  # type: ignore[arg-type]
    warm_up(Settings(destinations=tuple(sites)))
    assert sorted(plan.picture for plan in built) == ["banner", "whole"]
