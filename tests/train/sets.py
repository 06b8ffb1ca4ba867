"""Small made-up image sets and recipes: the finding is a bright patch in the right lung, the domain a grey level."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from training.data.images import LabelledImages
from training.recipe import Recipe, parse_recipe

SIZE = 32
ONE_EPOCH = {"batch": 8, "max_lr": 3e-3, "autocast": False, "device": "cpu", "stages": [{"size": SIZE, "epochs": 1}]}


def recipe(**changes: Any) -> Recipe:
    """Two domains, one small network, one short stage. changes: top-level tables, in place of the default's."""
    fields: dict[str, Any] = {
        "name": "toy",
        "labels": ["opacity"],
        "size": SIZE,
        "seed": 7,
        "data": [
            {"reader": "csv", "folder": name, "domain": name, "split": {"train": 0.6, "calibration": 0.2, "test": 0.2}}
            for name in ("north", "south")
        ],
        "model": {"architecture": "small-cnn", "dropout": 0.1, "attention_ratio": None},
        "augment": {"rotation_deg": 0.0, "scale": [1.0, 1.0], "shift": 0.0, "erase_corners": 0.0},
        "fit": {"batch": 8, "max_lr": 3e-3, "ema_decay": 0.5, "stages": [{"size": SIZE, "epochs": 2}]},
    }
    return parse_recipe(fields | changes)


def pictures(n: int, domain: str = "north", seed: int = 0, share: float = 0.5) -> LabelledImages:
    """n images of n / 2 patients; the first `share` have the finding."""
    rng = np.random.default_rng(seed)
    ill = np.arange(n) < share * n
    pixels = rng.integers(0, 60, (n, SIZE, SIZE)) + (60 if domain == "north" else 100)
    pixels[ill, 8:20, 4:12] += 80
    return LabelledImages(
        tuple(f"{domain}-{i}.png" for i in range(n)),
        pixels.astype(np.uint8),
        ill.astype(np.float32)[:, None],
        tuple(f"{domain}-{i // 2}" for i in range(n)),
        {
            "domain": np.full(n, domain),
            "age_years": rng.uniform(1, 90, n),
            "sex": np.where(np.arange(n) % 2 == 0, "F", "M"),
            "view": np.full(n, "AP"),
        },
    )


def write_csv_set(folder: Path, n: int = 60, seed: int = 0) -> None:
    """A table in CheXpert's style with its pictures: a third of the labels uncertain, one lateral film."""
    data = pictures(n, seed=seed)
    lines = ["Path,Sex,Age,Frontal/Lateral,AP/PA,Opacity"]
    for i in range(n):
        name = f"train/patient{i:05d}/view1.jpg"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.pixels[i]).save(folder / name)
        cell = "-1.0" if i % 3 == 0 else "1.0" if data.labels[i, 0] else "0.0" if i % 2 else ""
        lines.append(f"{name},Female,{20 + i % 60},Frontal,AP,{cell}")
    lines.append("train/patient00000/view2_lateral.jpg,Female,20,Lateral,,1.0")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
