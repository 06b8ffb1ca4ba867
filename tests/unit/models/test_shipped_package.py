"""The package in models/ is what its manifest says, within the promises made for it. No torch is needed."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from inference.package import load_package
from inference.verify import verify

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "models" / "chest-pneumonia" / "1.0.0"


@pytest.fixture(scope="module")
def package():
    return load_package(FOLDER)


@pytest.fixture(scope="module")
def figures():
    return json.loads((FOLDER / "validation.json").read_text())


def test_it_verifies_and_replays_its_golden_vectors():
    assert verify(FOLDER) == []


def test_every_file_is_pinned(package):
    on_disk = {path.name for path in FOLDER.iterdir()} - {"manifest.json"}
    assert on_disk == set(package.manifest.files)
    for name, sha256 in package.manifest.files.items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == sha256


def test_the_weights_are_small_enough_to_ship():
    assert (FOLDER / "model.onnx").stat().st_size <= 20_000_000


def test_it_is_for_children_and_for_frontal_chests_alone(package):
    reads = package.manifest.reads
    assert reads.ages_years == (1.0, 6.0)
    assert reads.modalities == ("CR", "DX")
    assert reads.body_parts == ("CHEST",)
    assert reads.views == ("PA", "AP")


def test_its_licence_names_where_its_data_came_from(package):
    text = (FOLDER / "LICENSE").read_text()
    assert "CC-BY-4.0" in text
    assert "Kermany" in text
    assert "rscbjbr9sj" in text
    assert not package.manifest.licence.non_commercial


def test_it_may_raise_an_alarm_because_its_specificity_was_measured(package, figures):
    assert package.manifest.may_raise_priority
    assert figures["test"]["specificity"]["n"] > 100


def test_the_figures_keep_the_promises(figures):
    assert figures["test"]["refused"]["value"] <= 0.02
    assert figures["float16_weights"]["findings_changed"] == 0
    assert figures["float16_weights"]["greatest_score_difference"] <= 5e-3
    assert figures["export_parity"]["fp32_against_torch"]["scores"] <= 1e-4
    dogs = [row for row in figures["refused"] if row["set"].startswith("dog")]
    assert len(dogs) == 2
    assert all(row["not_analysed"]["value"] == 1.0 for row in dogs)


def test_the_card_states_the_measured_figures_beside_the_baseline(figures):
    card = (FOLDER / "MODEL_CARD.md").read_text()
    test = figures["test"]
    assert f"{test['auc_of_those_looked_at']['value']:.4f}" in card
    assert f"{test['baseline_8x8_thumbnail']['auc']['value']:.4f}" in card
    assert f"{test['specificity']['value']:.3f}" in card


def test_golden_pictures_are_made_up_and_scores_differ():
    with np.load(FOLDER / "golden.npz", allow_pickle=False) as golden:
        assert golden["images"].shape[1:] == (1, 224, 224)
        assert np.ptp(golden["scores"], axis=1).max() > 0
