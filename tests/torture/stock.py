"""pynetdicom as its documentation shows it: the negative control of the network experiments.

python -m tests.torture.stock [--slow SECONDS] [--associations N] [--tls CERTIFICATE KEY]: prints its port.
"""

import argparse
import ssl
import threading
import time
from typing import Any

from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--associations", type=int, default=10)
    parser.add_argument("--tls", nargs=2)
    arguments = parser.parse_args()

    def store(event: Any) -> int:
        time.sleep(arguments.slow)
        return 0x0000

    ae = AE("OPENTRIAGE")
    ae.supported_contexts = AllStoragePresentationContexts
    ae.add_supported_context(Verification)
    ae.maximum_associations = arguments.associations
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 2.0 if not arguments.slow else 60.0
    context = None
    if arguments.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*arguments.tls)
    handlers: list[Any] = [(evt.EVT_C_STORE, store)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers, ssl_context=context)
    assert server is not None
    print(server.server_address[1], flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
