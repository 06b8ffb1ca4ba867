"""What every packager does alike: agreement with torch, and the LICENSE file."""

import math

import numpy as np
import pytest
import torch

from inference.manifest import DataSource
from training.packaging.graphs import PARITY_BATCH, agreement, parity, standardised
from training.packaging.legal import licence_text

IMAGES = np.random.default_rng(1).random((PARITY_BATCH + 3, 1, 4, 4), dtype=np.float32)


class Off:
    """A runtime whose outputs differ from torch's by so much on the last image."""

    names = ("scores", "masks")

    def __init__(self, scores=0.0, masks=0.0):
        self.off = (scores, masks)

    def run(self, batch):
        out = []
        for off in self.off:
            found = batch.mean(axis=(2, 3)).astype(np.float64)
            if len(batch) < PARITY_BATCH:
                found[-1] += off
            out.append(found)
        return tuple(out)


class Net(torch.nn.Module):
    def forward(self, x):
        return x.mean(dim=(2, 3)).double(), x.mean(dim=(2, 3)).double()


def test_the_greatest_difference_of_every_output_over_all_batches():
    found = parity(Net(), Off(0.25, 0.5), IMAGES)
    assert found == pytest.approx({"scores": 0.25, "masks": 0.5, "images": len(IMAGES)}, abs=1e-6)


@pytest.mark.parametrize(
    ("half", "exact", "at_most", "holds"),
    [
        (Off(0.004), Off(), {"scores": 0.005}, True),
        (Off(0.006), Off(), {"scores": 0.005}, False),
        (Off(), Off(0.001), {"scores": 0.005}, False),
        (Off(masks=0.9), Off(masks=0.9), {"scores": 0.005}, True),
        (Off(masks=0.9), Off(), {"scores": 0.005, "masks": 0.05}, False),
        (Off(math.nan), Off(), {"scores": 0.005}, False),
    ],
)
def test_a_graph_that_does_not_agree_is_no_package(half, exact, at_most, holds):
    if holds:
        assert set(agreement(Net(), half, exact, IMAGES, at_most)) == {"fp32_against_torch", "fp16_against_torch"}
        return
    with pytest.raises(RuntimeError, match="does not agree with torch"):
        agreement(Net(), half, exact, IMAGES, at_most)


def test_features_come_back_standardised_by_what_the_net_then_holds():
    class Standard:
        def standardise(self, features):
            self.feature_mean, self.feature_scale = features.mean(dim=0), features.std(dim=0)

    found = standardised(Standard(), list(torch.randn(90, 3, generator=torch.manual_seed(2)).split(32)))
    assert found.shape == (90, 3)
    assert found.mean(axis=0) == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize(
    ("weights", "says", "says_not"),
    [
        ("CC-BY-4.0", "(https://creativecommons.org/licenses/by/4.0/legalcode)", "no commercial use"),
        ("CC-BY-NC-SA-4.0", "no commercial use", "licenses/by/4.0"),
        ("Apache-2.0", "licensed Apache-2.0.", "creativecommons"),
    ],
)
def test_a_licence_names_its_own_legal_code_and_every_source(weights, says, says_not):
    sources = [DataSource(name=name, licence=f"L-{name}", attribution=f"by {name}") for name in ("one", "two")]
    text = licence_text(weights, sources, "images turned")
    assert says in text
    assert says_not not in text
    assert all(f"  {name}\n  Licence: L-{name}\n  by {name}\n" in text for name in ("one", "two"))
    assert "images turned, used to fit the weights" in text
