from config import Settings
from sr_writer import warm_up as module
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
