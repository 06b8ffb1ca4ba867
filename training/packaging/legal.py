"""The LICENSE file of a package: what the weights are licensed under, what they were fitted to, what was changed."""

import textwrap
from collections.abc import Sequence

from inference.manifest import DataSource

LEGAL_CODE = {
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/legalcode",
    "CC-BY-NC-SA-4.0": "https://creativecommons.org/licenses/by-nc-sa/4.0/legalcode",
}
TERMS = {"CC-BY-NC-SA-4.0": ": no commercial use; what is built on them is passed on under the same terms"}


def licence_text(weights: str, sources: Sequence[DataSource], changes: str) -> str:
    """weights: the licence by its SPDX name. changes: what was done to the images, as a list in words."""
    legal_code = f"\n({LEGAL_CODE[weights]})" if weights in LEGAL_CODE else ""
    fitted_to = "".join(f"  {one.name}\n  Licence: {one.licence}\n  {one.attribution}\n\n" for one in sources)
    changed = (
        f"Changes made: {changes}, used to fit the weights. No image is part of this package; golden.npz holds made-up"
        " pictures only. When you pass the package on, keep this file with it. Provided as is, without warranty of any"
        " kind."
    )
    return (
        f"The weights in model.onnx and the figures in gate.npz are licensed {weights}{legal_code}"
        f"{TERMS.get(weights, '')}.\n\nThey were fitted to:\n\n{fitted_to}{textwrap.fill(changed, 110)}\n"
    )
