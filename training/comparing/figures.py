"""What one trained variant says of the test split: per domain AUC, and both shares at a point chosen beforehand."""

import time
from collections.abc import Mapping
from itertools import compress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from training.data.images import LabelledImages
from training.fitting.network import device_of, predict
from training.recipe import Recipe
from validation.roc import auc_by_group, curve
from validation.statistics import proportion

Figures = dict[str, Any]
Floats = NDArray[np.float64]
FEWEST = 10  # of either kind: with fewer no figure is given
TIMED = 32  # images of a timed batch
REPEATS = 3


def figures_of(net: nn.Module, splits: Mapping[str, LabelledImages], recipe: Recipe) -> Figures:
    """Of the first label. Domains by name, and where a domain has both views, its views apart."""
    size = recipe.fit.stages[-1].size
    said = {name: predict(net, splits[name], recipe, size)[:, 0].astype(np.float64) for name in ("calibration", "test")}
    points = _points(splits["calibration"], said["calibration"])
    rows = {}
    for name, domain, chosen in parts_of(splits["test"]):
        row = _row(splits["test"], said["test"], chosen, points.get(domain))
        if row:
            rows[name] = row
    return {
        "parameters": sum(part.numel() for part in net.parameters()),
        "operating_points_logit": points,
        "domains": rows,
        "cpu_ms_per_image": cpu_ms(net, recipe, size),
    }


def parts_of(images: LabelledImages) -> list[tuple[str, str, NDArray[np.bool_]]]:
    """(name, domain, which images): each domain, and its views where it has several."""
    out = []
    views = images.column("view")
    for domain in dict.fromkeys(images.column("domain").tolist()):
        inside = np.asarray(images.column("domain") == domain)
        out.append((str(domain), str(domain), inside))
        seen = sorted({view for view in views[inside].tolist() if view})
        if len(seen) > 1:
            out += [(f"{domain} {view}", str(domain), inside & np.asarray(views == view)) for view in seen]
    return out


def operating_point(truth: Floats, score: Floats) -> float:
    """The cut with the greatest sum of sensitivity and specificity, halfway to the next image below."""
    steps, ill = curve(truth, score), float((truth > 0.5).sum())
    gain = steps["hits"] / ill - steps["false_alarms"] / (len(truth) - ill)
    best = int(np.argmax(gain))
    cuts = steps["threshold"]
    return float(cuts[best] if best + 1 == len(cuts) else (cuts[best] + cuts[best + 1]) / 2)


def _points(images: LabelledImages, score: Floats) -> dict[str, float]:
    """Per domain, from the calibration split."""
    points = {}
    domains = images.column("domain")
    for domain in dict.fromkeys(domains.tolist()):
        chosen = (domains == domain) & ~np.isnan(images.labels[:, 0])
        truth = images.labels[chosen, 0].astype(np.float64)
        if _enough(truth):
            points[str(domain)] = operating_point(truth, score[chosen])
    return points


def _enough(truth: Floats) -> bool:
    return bool(min((truth > 0.5).sum(), (truth <= 0.5).sum()) >= FEWEST)


def _row(images: LabelledImages, said: Floats, inside: NDArray[np.bool_], point: float | None) -> Figures | None:
    chosen = inside & ~np.isnan(images.labels[:, 0])
    truth, score = images.labels[chosen, 0].astype(np.float64), said[chosen]
    if not _enough(truth):
        return None
    row: Figures = {"auc": auc_by_group(truth, score, list(compress(images.groups, chosen)))}
    if point is not None:
        ill = truth > 0.5
        row["sensitivity"] = proportion(int((score[ill] >= point).sum()), int(ill.sum()))
        row["specificity"] = proportion(int((score[~ill] < point).sum()), int((~ill).sum()))
    return row


def cpu_ms(net: nn.Module, recipe: Recipe, size: int) -> dict[str, float]:
    """Processor time of an image, all cores together, the best of a few batches: what others do meanwhile matters less
    than on a clock. Leaves the network in eval mode, its weights and norms as they were."""
    kept = {key: value.clone() for key, value in net.state_dict().items()}
    device = device_of(recipe)
    image = torch.randn(TIMED, 1, size, size, device=device).contiguous(memory_format=torch.channels_last)
    net.train()
    training = min(_timed(net, image, recipe, True) for _ in range(REPEATS))
    net.zero_grad(set_to_none=True)
    net.load_state_dict(kept)
    net.eval()
    looking = min(_timed(net, image, recipe, False) for _ in range(REPEATS))
    return {"training": round(training, 2), "inference": round(looking, 2)}


def _timed(net: nn.Module, image: torch.Tensor, recipe: Recipe, learning: bool) -> float:
    began = time.process_time()
    with torch.set_grad_enabled(learning), torch.autocast(image.device.type, torch.bfloat16, recipe.fit.autocast):
        logits = net(image)
    if learning:
        logits.float().square().mean().backward()
    return (time.process_time() - began) * 1000.0 / len(image)
