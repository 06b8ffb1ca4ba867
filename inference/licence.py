"""Weights under a licence without commercial use are used only where the site has accepted that licence by name."""

from config.settings import LookSettings
from inference.manifest import Manifest


def unaccepted(manifest: Manifest, look: LookSettings) -> str:
    """Why the package may not be used, as a sentence; empty when it may."""
    licence = manifest.licence
    if not licence.non_commercial or licence.weights in look.accept_licences:
        return ""
    return (
        f"{manifest.name} {manifest.version}: its weights are licensed {licence.weights}, without commercial use;"
        " it is loaded only when look.accept_licences names that licence"
    )
