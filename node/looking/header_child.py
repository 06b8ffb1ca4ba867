"""The process that reads whose a stored image is: a decode child (inference/decode_child.py) which decodes no pixels.

Under the same limits, and as little left to it: what a stranger wrote into a header is taken apart here and nowhere
else for a page. Run by node/looking/header.py, never imported by the node.
"""

from pathlib import Path
from typing import Any

from inference import decode_child
from inference.errors import CannotLook
from sr_writer.errors import SourceUnreadable
from sr_writer.whose import read_whose


def header(request: dict[str, Any]) -> dict[str, Any]:
    """path: of the image. A disk that fails says nothing of what is in the file."""
    try:
        return {"header": read_whose(Path(request["path"]))}
    except SourceUnreadable as error:
        if isinstance(error.__context__, OSError):
            raise CannotLook("not_now", "The file cannot be read.") from None
        raise CannotLook("unreadable", "The header cannot be read.") from None


def main() -> None:
    decode_child.main({"header": header})
