"""OHIF and Orthanc's DICOMweb behind one address, as a site's web server would offer them."""

import json
import threading
from pathlib import Path
from types import TracebackType

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from tests.support.peers import free_port
from tests.support.waiting import wait_until

CONFIG = {
    "routerBasename": "/",
    "extensions": [],
    "modes": [],
    "customizationService": {"autoCineModalities": {"$set": []}},  # else film controls lie on a Secondary Capture
    "showStudyList": True,
    "maxNumberOfWebWorkers": 1,
    "showLoadingIndicator": True,
    "showErrorDetails": "always",
    "investigationalUseDialog": {"option": "never"},
    "maxNumRequests": {"interaction": 10, "thumbnail": 5, "prefetch": 5},
    "defaultDataSourceName": "dicomweb",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "dicomweb",
            "configuration": {
                "friendlyName": "Orthanc",
                "name": "orthanc",
                "wadoUriRoot": "/wado",
                "qidoRoot": "/dicom-web",
                "wadoRoot": "/dicom-web",
                "qidoSupportsIncludeField": True,
                "supportsReject": False,
                "imageRendering": "wadors",
                "thumbnailRendering": "wadors",
                "enableStudyLazyLoad": True,
                "supportsFuzzyMatching": False,
                "supportsWildcard": True,
                "omitQuotationForMultipartRequest": True,
            },
        }
    ],
}
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}


class ViewerServer:
    """Serves a folder with OHIF and passes /dicom-web on; a context manager. `url` has no slash at its end."""

    def __init__(self, folder: Path, orthanc_url: str) -> None:
        self._folder, self._orthanc = folder, orthanc_url
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        routes = [
            Route("/app-config.js", self._config),
            Route("/dicom-web/{path:path}", self._pass_on, methods=["GET", "POST"]),
            Route("/{path:path}", self._file),
        ]
        config = uvicorn.Config(Starlette(routes=routes), host="127.0.0.1", port=self._port, log_level="error")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> "ViewerServer":
        self._thread.start()
        wait_until(lambda: self._server.started, 30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(30)

    async def _config(self, request: Request) -> Response:
        return Response(f"window.config = {json.dumps(CONFIG)};", media_type="text/javascript")

    async def _file(self, request: Request) -> Response:
        """A file of OHIF; its first page for every address that its own router knows."""
        wanted = (self._folder / request.path_params["path"]).resolve()
        inside = wanted.is_file() and wanted.is_relative_to(self._folder.resolve())
        return FileResponse(wanted if inside else self._folder / "index.html", headers=ISOLATED)

    async def _pass_on(self, request: Request) -> Response:
        """Orthanc writes the addresses it gives as those of the host it was asked under."""
        headers = {"Accept": request.headers.get("accept", "*/*"), "Host": request.headers["host"]}
        target = f"{self._orthanc}/dicom-web/{request.path_params['path']}"
        async with httpx.AsyncClient(timeout=60) as client:
            got = await client.request(
                request.method, target, params=str(request.query_params), headers=headers, content=await request.body()
            )
        kind = {"Content-Type": got.headers.get("content-type", "application/octet-stream")}
        return Response(got.content, got.status_code, {**kind, **ISOLATED})
