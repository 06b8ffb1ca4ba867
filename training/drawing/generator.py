"""A small generative model of children's chests: shape and appearance, each a principal subspace with a Gaussian in it.

Every training picture is bent onto a common template (a smooth field of displacements that maximises local
correlation), so that ribs lie on ribs and heart on heart. Principal components are then taken of the bent pictures
(appearance, one Gaussian per class) and of the fields (shape). A draw combines random coefficients of both, adds grain
with the spectrum and the local strength of what the components leave out, and bends the result back. Each draw mixes
hundreds of children; training/drawing/nearness.py measures that it is none of them.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

GRID = 12  # control points of a displacement field, per side
REGISTER_AT = 112  # pixels
WINDOW = 11  # pixels of the local correlation


@dataclass(frozen=True)
class Gaussian:
    """mean (K,), root (K, K): a draw is mean + root @ z."""

    mean: NDArray[np.float64]
    root: NDArray[np.float64]

    def draw(self, rng: np.random.Generator, temperature: float) -> NDArray[np.float64]:
        return self.mean + temperature * (self.root @ rng.standard_normal(len(self.mean)))


@dataclass(frozen=True)
class Subspace:
    """mean (P,), components (K, P) with orthonormal rows, a Gaussian of the coefficients for each class 0 and 1."""

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    classes: tuple[Gaussian, Gaussian]

    def draw(self, ill: bool, rng: np.random.Generator, temperature: float) -> NDArray[np.float32]:
        coefficients = self.classes[int(ill)].draw(rng, temperature)
        return np.asarray(self.mean + coefficients.astype(np.float32) @ self.components)


@dataclass(frozen=True)
class Generator:
    """size: side of a picture in pixels. grain: (size, size) local sd; spectrum: (size, size//2+1) mean amplitude."""

    size: int
    appearance: Subspace
    shape: Subspace
    grain: NDArray[np.float32]
    spectrum: NDArray[np.float32]

    def draw(self, ill: bool, seed: int, temperature: float = 0.8, grain: float = 0.7) -> NDArray[np.float32]:
        """One picture (size, size) float32 in [0, 1], the same for the same seed."""
        rng = np.random.default_rng(seed)
        flat = self.appearance.draw(ill, rng, temperature).reshape(self.size, self.size)
        noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(flat.shape)) * self.spectrum, s=flat.shape)
        flat = flat + grain * self.grain * (noise / noise.std())
        field = torch.from_numpy(self.shape.draw(ill, rng, temperature).reshape(1, 2, GRID, GRID).astype(np.float32))
        bent = bend(torch.from_numpy(flat.astype(np.float32))[None, None], invert(dense(field, self.size)))
        return np.clip(bent[0, 0].numpy(), 0.0, 1.0).astype(np.float32)


def dense(field: Tensor, size: int) -> Tensor:
    """Control points (N, 2, GRID, GRID) -> displacement (N, 2, size, size): x, y in units of half a side."""
    return F.interpolate(field, size=(size, size), mode="bicubic", align_corners=True)


def bend(pictures: Tensor, displacement: Tensor) -> Tensor:
    """out(x) = picture(x + displacement(x)). pictures: (N, 1, S, S); displacement: (N, 2, S, S)."""
    n, size = len(pictures), pictures.shape[-1]
    still = F.affine_grid(torch.eye(2, 3).expand(n, 2, 3), [n, 1, size, size], align_corners=True)
    where = still + displacement.permute(0, 2, 3, 1)
    return F.grid_sample(pictures, where, mode="bilinear", padding_mode="reflection", align_corners=True)


def invert(displacement: Tensor, rounds: int = 12) -> Tensor:
    """The field v with v(y) = -u(y + v(y)), by fixed-point iteration."""
    inverse = -displacement
    for _ in range(rounds):
        inverse = -torch.cat([bend(displacement[:, i : i + 1], inverse) for i in range(2)], dim=1)
    return inverse


def local_correlation(one: Tensor, other: Tensor) -> Tensor:
    """Mean correlation in windows, per picture. Both (N, 1, S, S). Returns (N,)."""

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, WINDOW, stride=2)

    a, b = mean(one), mean(other)
    cross, va, vb = mean(one * other) - a * b, mean(one * one) - a * a, mean(other * other) - b * b
    return (cross / (va.clamp(min=0) * vb.clamp(min=0) + 1e-5).sqrt()).mean(dim=(1, 2, 3))


def register(pictures: Tensor, template: Tensor, steps: int, start: Tensor | None = None) -> Tensor:
    """pictures: (N, 1, S, S); template: (1, 1, S, S). Returns control points (N, 2, GRID, GRID)."""
    field = (torch.zeros(len(pictures), 2, GRID, GRID) if start is None else start.clone()).requires_grad_()
    optimiser = torch.optim.Adam([field], lr=0.012)
    for _ in range(steps):
        optimiser.zero_grad()
        alike = local_correlation(bend(pictures, dense(field, pictures.shape[-1])), template.expand_as(pictures))
        rough = field.diff(dim=2).square().sum(dim=(1, 2, 3)) + field.diff(dim=3).square().sum(dim=(1, 2, 3))
        (0.35 * rough - alike).sum().backward()
        optimiser.step()
    return field.detach()


def align(pictures: Tensor, steps: int = 40, rounds: int = 2, chunk: int = 64) -> Tensor:
    """Control points for every picture (N, 1, S, S), against the mean of the pictures as bent so far."""
    small = F.interpolate(
        pictures, size=(REGISTER_AT, REGISTER_AT), mode="bilinear", antialias=True, align_corners=False
    )
    fields = torch.zeros(len(small), 2, GRID, GRID)
    for turn in range(rounds):
        template = bend(small, dense(fields, REGISTER_AT)).mean(dim=0, keepdim=True)
        for at in tqdm(range(0, len(small), chunk), desc=f"aligning, round {turn + 1}", unit="chunk", mininterval=5):
            part = slice(at, at + chunk)
            fields[part] = register(small[part], template, steps, fields[part])
        fields -= fields.mean(dim=0, keepdim=True)  # the template keeps the mean shape
    return fields


def subspace(rows: NDArray[np.float32], ill: NDArray[np.bool_], components: int) -> Subspace:
    """rows: (N, P); ill: (N,). Principal components over all rows, a Gaussian of the coefficients for each class."""
    mean = rows.mean(axis=0)
    centred = rows - mean
    values, vectors = np.linalg.eigh((centred @ centred.T).astype(np.float64))
    keep = np.argsort(values)[::-1][: min(components, len(rows) - 1)]
    axes = (vectors[:, keep].T.astype(np.float32) @ centred) / np.sqrt(values[keep])[:, None].astype(np.float32)
    coefficients = (centred @ axes.T).astype(np.float64)
    return Subspace(mean, axes, (_gaussian(coefficients[~ill]), _gaussian(coefficients[ill])))


def _gaussian(coefficients: NDArray[np.float64]) -> Gaussian:
    covariance = np.cov(coefficients, rowvar=False)
    values, vectors = np.linalg.eigh(covariance)
    return Gaussian(coefficients.mean(axis=0), vectors * np.sqrt(np.maximum(values, 0.0)))


def fit_generator(
    pixels: NDArray[np.uint8], ill: NDArray[np.bool_], appearance: int = 240, shape: int = 30
) -> Generator:
    """pixels: (N, S, S) training pictures, ill: (N,)."""
    pictures = torch.from_numpy(pixels).float().unsqueeze(1) / 255.0
    size = pictures.shape[-1]
    fields = align(pictures)
    bent = bend(pictures, dense(fields, size)).squeeze(1).numpy()
    rows = bent.reshape(len(bent), -1)
    look = subspace(rows, ill, appearance)
    centred = rows - look.mean
    left = np.asarray(centred - (centred @ look.components.T) @ look.components).reshape(bent.shape)
    grain = np.sqrt(_smooth(np.mean(left**2, axis=0), 9))
    spectrum = np.sqrt(np.mean(np.abs(np.fft.rfft2(left / (grain + 1e-6))) ** 2, axis=0))
    return Generator(
        size,
        look,
        subspace(fields.flatten(1).numpy(), ill, shape),
        grain.astype(np.float32),
        spectrum.astype(np.float32),
    )


def _smooth(image: NDArray[np.float32], window: int) -> NDArray[np.float32]:
    tensor = torch.from_numpy(image)[None, None]
    out = F.avg_pool2d(tensor, window, stride=1, padding=window // 2, count_include_pad=False)
    return np.asarray(out[0, 0].numpy())
