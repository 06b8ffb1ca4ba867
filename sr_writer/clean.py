"""Values of real headers, made fit to stand in our own objects; empty where nothing true can be made of them."""

import re
import unicodedata
from datetime import datetime, timedelta
from math import isfinite


def visible(text: str) -> str:
    """Of what names somebody: each control character as a sign that ids do not use, so that no two ids become one.

    Left out, "12<TAB>34" would be 1234, who may be somebody else: an archive that files by the id would show one
    patient's result to the other's doctor. Emptied, it would join all who have none. As "12␉34" it is filed beside
    nobody, and a person sees why. Padding is that of the standard alone, spaces, and the NUL that many write.
    """
    return "".join(_sign(c) if unicodedata.category(c) == "Cc" else c for c in text.lstrip(" ").rstrip(" \0"))


def _sign(control: str) -> str:
    """Unicode's picture of it (U+2400); those beyond ASCII have none: by their number."""
    code = ord(control)
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else f"\ufffd{code:02X}"


def is_broken(text: str) -> bool:
    """A control character within it: without it, a number would be another number."""
    return any(unicodedata.category(c) == "Cc" for c in text.strip().strip("\0"))


def printable(text: str) -> str:
    return "".join(c for c in text if unicodedata.category(c) != "Cc").strip()


def code_string(text: str) -> str:
    text = text.upper()
    return text if re.fullmatch(r"[A-Z0-9 _]{1,16}", text) else ""


def one_of(text: str, letters: str) -> str:
    return text if len(text) == 1 and text in letters else ""


def date(text: str) -> str:
    """A DA (PS3.5 6.2) or empty; the old form with dots is read too."""
    return _valid(text.replace(".", "") if re.fullmatch(r"\d{4}\.\d\d\.\d\d", text) else text, r"\d{8}", "%Y%m%d")


def time(text: str) -> str:
    """A TM (PS3.5 6.2) or empty; the old form with colons is read too."""
    text = text.replace(":", "")
    whole, _, fraction = text.partition(".")
    formats = {2: "%H", 4: "%H%M", 6: "%H%M%S"}
    if len(whole) not in formats or (fraction and not re.fullmatch(r"\d{1,6}", fraction)):
        return ""
    return text if _valid(whole, r"\d+", formats[len(whole)]) else ""


def _valid(text: str, shape: str, form: str) -> str:
    if not re.fullmatch(shape, text):
        return ""
    try:
        datetime.strptime(text, form)
    except ValueError:
        return ""
    return text


def offset_of(text: str) -> timedelta | None:
    match = re.fullmatch(r"([+-])(\d\d)(\d\d)", text)
    if match is None:
        return None
    value = timedelta(hours=int(match[2]), minutes=int(match[3]))
    return (-value if match[1] == "-" else value) if value <= timedelta(hours=14) else None


def numbers_in(text: str) -> tuple[float, ...]:
    """Empty when any of them is no number, or endless."""
    try:
        found = tuple(float(part) for part in text.split("\\") if part)
    except ValueError:
        return ()
    return found if all(map(isfinite, found)) else ()
