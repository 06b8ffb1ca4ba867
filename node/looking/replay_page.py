"""What `replay` found, as one page that needs no other file: every changed study with its images."""

import base64
import html
import io
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from string import Template

from PIL import Image

from ledger.figures import with_sd
from ledger.records import ImageResult, TriagePriority
from ledger.store import Store
from node.looking.replaying import ImageChange, Replayed, Tally

THUMB_PIXELS = 320
IMAGES_SHOWN = 6  # of one study, those that weigh most
ORDER: tuple[TriagePriority | None, ...] = (*TriagePriority, None)


def word(priority: TriagePriority | None) -> str:
    """LOW is never shown to a person."""
    if priority is None:
        return "no model"
    return "unflagged" if priority is TriagePriority.LOW else priority.value.replace("_", " ")


def page(heading: str, tally: Tally, changed: Iterable[Replayed], stores: tuple[Store, Store]) -> str:
    """stores: of the command's own pictures, and the node's."""
    template = Template((files("node") / "templates" / "replay.html").read_text(encoding="utf-8"))
    return template.substitute(
        heading=html.escape(heading),
        summary=html.escape(summary(tally)),
        table=_table(tally),
        studies="\n".join(_study(one, stores) for one in changed),
    )


def summary(tally: Tally) -> str:
    """In one line."""
    left = f"; {sum(tally.not_replayed.values())} not decided anew" if tally.not_replayed else ""
    return f"{tally.replayed} studies decided anew: {tally.raised} more urgent, {tally.lowered} less urgent{left}."


def _table(tally: Tally) -> str:
    known = [one for one in ORDER if any(one in pair for pair in tally.pairs)]
    head = "".join(f"<th>now {word(one)}</th>" for one in known)
    rows = "".join(
        f"<tr><td>was {word(before)}</td>"
        + "".join(f"<td>{tally.pairs[before, after]}</td>" for after in known)
        + "</tr>"
        for before in known
    )
    left = "".join(f"<li>{count}: {html.escape(why)}</li>" for why, count in sorted(tally.not_replayed.items()))
    return f"<table><tr><th></th>{head}</tr>{rows}</table>" + (
        f"<p>Not decided anew:</p><ul>{left}</ul>" if left else ""
    )


def _study(one: Replayed, stores: tuple[Store, Store]) -> str:
    way = "rises" if one.rises else "falls"
    shown = "".join(_figure(change, stores) for change in one.images[:IMAGES_SHOWN])
    more = len(one.images) - IMAGES_SHOWN
    return (
        f'<article class="{way}"><h2>{word(one.before)} → {word(one.after)}: {one.study.study_instance_uid}</h2>'
        f"<p>first received {one.study.first_received_at.astimezone():%Y-%m-%d %H:%M}</p>{shown}"
        + (f"<p>and {more} more images</p>" if more > 0 else "")
        + "</article>"
    )


def _figure(change: ImageChange, stores: tuple[Store, Store]) -> str:
    encoded = _thumb(change, stores)
    picture = f'<img alt="the image" src="data:image/jpeg;base64,{encoded}">' if encoded else ""
    words = f"was: {said(change.before)}<br>now: {said(change.after)}"
    return f"<figure>{picture}<figcaption>{change.image.sop_instance_uid}<br>{words}</figcaption></figure>"


def said(results: Iterable[ImageResult]) -> str:
    """What the models say of one image, in a line."""
    return html.escape("; ".join(_words(result) for result in results) or "nothing")


def _words(result: ImageResult) -> str:
    who = f"{result.model.name} {result.model.version}" if result.model else "no model"
    findings = ", ".join(
        f"{one.label} {with_sd(one.probability, one.probability_sd)}"
        f"{' present' if one.present else ''}{' in doubt' if one.in_doubt else ''}"
        for one in result.findings
    )
    return f"{who}: {findings or result.reason or result.status}"


def _thumb(change: ImageChange, stores: tuple[Store, Store]) -> str:
    """Of the picture that either look has made; they make one of flagged images only."""
    for results, store in ((change.after, stores[0]), (change.before, stores[1])):
        for result in results:
            path = store.path(result.display_path) if result.display_path else None
            if path is not None and path.is_file():
                return _small(path)
    return ""


def _small(path: Path) -> str:
    with Image.open(path, formats=("PNG",)) as picture:
        picture.thumbnail((THUMB_PIXELS, THUMB_PIXELS))
        buffer = io.BytesIO()
        picture.convert("L").save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()
