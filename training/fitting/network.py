"""The recipe's network, its start, and what it says of images it does not learn from."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from training.data.images import LabelledImages
from training.networks.metadata import codes
from training.networks.registry import from_recipe
from training.recipe import Recipe, RecipeError

PREDICT_BATCH = 64


def build(recipe: Recipe) -> Any:
    """The network with random weights. Raises RecipeError for an architecture that there is none of."""
    try:
        return from_recipe(recipe.model_dump())
    except ValueError as error:
        raise RecipeError(f"{recipe.name}: {error}") from None


def start(net: nn.Module, path: Path) -> list[str]:
    """Load what fits of earlier weights (never a pickle that runs code). Returns what kept its random start.

    Raises RecipeError when nothing of the trunk fits."""
    if not path.is_file():
        raise RecipeError(f"fit.init: no file {path}")
    saved = torch.load(path, weights_only=True, map_location="cpu")
    own = net.state_dict()
    fitting = {key: value for key, value in saved.items() if key in own and own[key].shape == value.shape}
    if not any(key.startswith("features") for key in fitting):
        raise RecipeError(f"fit.init: {path} belongs to another architecture")
    net.load_state_dict(fitting, strict=False)
    return sorted(set(own) - set(fitting))


def device_of(recipe: Recipe) -> torch.device:
    if recipe.fit.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(recipe.fit.device)


def to_range(batch: Tensor, recipe: Recipe) -> Tensor:
    """(N, 1, H, W) in [0, 1] -> the same in the recipe's value range, channels last."""
    low, high = recipe.value_range
    return (batch * (high - low) + low).contiguous(memory_format=torch.channels_last)


def pixels_of(images: LabelledImages, index: NDArray[np.int64], device: torch.device) -> Tensor:
    """(M, 1, H, W) float32 in [0, 1]."""
    return torch.from_numpy(images.pixels[index]).to(device).float().unsqueeze(1) / 255.0


def known_of(images: LabelledImages, recipe: Recipe) -> Tensor | None:
    """For training: (N, 3) codes of age, sex and view, or None for a network that takes the picture alone."""
    if not recipe.model.metadata:
        return None
    ages = [None if np.isnan(age) else float(age) for age in images.column("age_years")]
    return codes(ages, images.column("sex").tolist(), images.column("view").tolist())


@torch.inference_mode()
def predict(net: nn.Module, images: LabelledImages, recipe: Recipe, size: int) -> NDArray[np.float32]:
    """Logits (N, L) without dropout, told the picture alone, as a node tells an exported graph."""
    net.eval()
    device = next(net.parameters()).device
    out = [torch.empty(0, len(recipe.labels))]
    for start_at in range(0, len(images), PREDICT_BATCH):
        index = np.arange(start_at, min(start_at + PREDICT_BATCH, len(images)))
        batch = pixels_of(images, index, device)
        if size != batch.shape[-1]:
            batch = F.interpolate(batch, size=(size, size), mode="bilinear", antialias=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.fit.autocast):
            out.append(net(to_range(batch, recipe)).float().cpu())
    return torch.cat(out).numpy()
