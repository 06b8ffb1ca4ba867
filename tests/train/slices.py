"""An invented set in the shape of brain_flair, and a recipe that fits it in seconds."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from training.segmentation_recipe import SegmentationRecipe, read_segmentation_recipe

SIDE, SLICES = 64, 10

RECIPE = """
task = "segmentation"
name = "tiny-brain"
folder = "brain"
size = 64
test_time = ["as_is", "mirrored"]
seed = 1
[split]
calibration = 0.25
test = 0.25
[model]
widths = [4, 4, 8, 8, 8]
mc_passes = 8
[fit]
batch = 8
epoch_slices = 16
stages = [{ size = 64, epochs = 1 }]
fold_stages = [{ size = 64, epochs = 1 }]
[package]
version = "0.1.0"
created = "2026-11-21"
intended_use = "Tests."
not_for = "Anybody."
weights_licence = "CC-BY-NC-SA-4.0"
non_commercial = true
may_raise_priority = false
label = "tumour"
code = { value = "108369006", scheme = "SCT", meaning = "Neoplasm" }
site = { value = "12738006", scheme = "SCT", meaning = "Brain" }
[package.reads]
modalities = ["MR"]
body_parts = ["BRAIN", "HEAD"]
descriptions = ["flair"]
not_descriptions = ["t1"]
min_side_pixels = 32
[[package.sources]]
name = "Invented heads"
licence = "CC0"
"""


def tiny_recipe(folder: Path) -> SegmentationRecipe:
    path = folder / "recipe.toml"
    path.write_text(RECIPE)
    return read_segmentation_recipe(path)


def make_slices(root: Path, patients: dict[str, int]) -> Path:
    """root/brain with that many invented patients of each institution: ten slices each, the first of one grey, the
    middle ones with a bright square. Returns `root`."""
    folder, rng, rows = root / "brain", np.random.default_rng(5), []
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for home, n in patients.items():
        for i in range(n):
            top, left = rng.integers(16, 36, 2)
            for k in range(SLICES):
                pixels = rng.normal(60.0, 6.0, (SIDE, SIDE)) if k else np.zeros((SIDE, SIDE))
                mask = np.zeros((SIDE, SIDE), np.uint8)
                if 3 <= k <= 6:
                    mask[top : top + 12, left : left + 12] = 255
                    pixels[mask > 0] += 120.0
                stem = f"{home}_{i}_{k + 1}"
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{stem}.png")
                if mask.any():
                    Image.fromarray(mask).save(folder / "masks" / f"{stem}.png")
                told = f"{stem}.png" if mask.any() else ""
                rows.append((f"{stem}.png", told, f"{home}_{i}", home, k + 1, int((mask > 0).sum())))
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "mask", "patient", "institution", "slice", "tumour_pixels"))
        writer.writerows(rows)
    return root
