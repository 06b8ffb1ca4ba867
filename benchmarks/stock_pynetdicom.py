"""A storage SCP as pynetdicom's documentation shows it: python -m benchmarks.stock_pynetdicom PORT FOLDER

Nothing is tuned but the number of associations, which is 10 as shipped.
"""

import sys
from pathlib import Path
from typing import Any

from pydicom.filewriter import write_file_meta_info
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

MANY = 2000


def _store(event: Any, folder: Path) -> int:
    with (folder / f"{event.request.AffectedSOPInstanceUID}.dcm").open("wb") as file:
        file.write(b"\x00" * 128)
        file.write(b"DICM")
        write_file_meta_info(file, event.file_meta)  # type: ignore[arg-type]
        file.write(event.request.DataSet.getvalue())
    return 0x0000


def main() -> None:
    ae = AE("OPENTRIAGE")
    ae.maximum_associations = MANY
    ae.supported_contexts = AllStoragePresentationContexts
    ae.add_supported_context(Verification)
    handlers: list[Any] = [(evt.EVT_C_STORE, _store, [Path(sys.argv[2])])]
    ae.start_server(("127.0.0.1", int(sys.argv[1])), block=True, evt_handlers=handlers)


if __name__ == "__main__":
    main()
