"""An epoch gives neither the domain nor the class away; the loss leaves out what is not known."""

import collections

import numpy as np
import pytest
import torch

from tests.train.sets import pictures, recipe
from training.data.distribution import count_classes, report
from training.data.images import join
from training.data.sampler import Sampler
from training.fitting.loss import LabelLoss, class_weights
from training.recipe import LossPlan


@pytest.fixture(scope="module")
def data():
    """240 of the north, three quarters with the finding; 40 of the south, a quarter with it; 10 without a label."""
    north, south, bare = pictures(240, "north", 1, 0.75), pictures(40, "south", 2, 0.25), pictures(10, "south", 3)
    bare.labels[:] = np.nan
    return join([north, south, bare])


def drawn(data, seed=0, **plan):
    sampler = Sampler(data, recipe(sampler=plan))
    return data.take(sampler.epoch(torch.Generator().manual_seed(seed)))


def cells(epoch):
    domains = epoch.column("domain").tolist()
    return collections.Counter(zip(domains, (epoch.labels[:, 0] > 0.5).tolist(), strict=True))


def test_every_cell_of_domain_and_class_weighs_the_same(data):
    found = cells(drawn(data, method="weighted", domains="balanced", classes="balanced", epoch_images=4000))
    assert len(found) == 4
    assert all(count == pytest.approx(1000, abs=120) for count in found.values())


def test_a_domain_gets_the_share_of_its_set(data):
    plan = recipe(
        data=[part.model_dump() | {"share": share} for part, share in zip(recipe().data, (3.0, 1.0), strict=True)],
        sampler={"method": "weighted", "domains": "balanced", "epoch_images": 4000},
    )
    epoch = data.take(Sampler(data, plan).epoch(torch.Generator().manual_seed(0)))
    assert collections.Counter(epoch.column("domain").tolist())["north"] == pytest.approx(3000, abs=120)


def test_oversampling_shows_every_image_and_undersampling_none_twice(data):
    over = drawn(data, method="over", domains="balanced", classes="balanced")
    assert set(over.names) == set(data.labelled().names)
    assert set(cells(over).values()) == {180}
    under = drawn(data, method="under", domains="balanced", classes="balanced")
    assert len(set(under.names)) == len(under)
    assert set(cells(under).values()) == {10}


def test_classes_alone_are_balanced_over_all_domains(data):
    epoch = drawn(data, method="over", classes="balanced")
    assert float(epoch.labels.mean()) == 0.5


def test_shuffling_shows_every_labelled_image_once_and_follows_its_seed(data):
    one = drawn(data)
    assert sorted(one.names) == sorted(data.labelled().names)
    assert one.names == drawn(data).names
    assert one.names != drawn(data, seed=1).names


def test_the_classes_are_counted_before_and_after(data, tmp_path):
    counts = {c.domain: c for c in count_classes(data, ("opacity",))}
    assert (counts["south"].with_it, counts["south"].without, counts["south"].unknown) == (10, 30, 10)
    plan = recipe(sampler={"method": "over", "domains": "balanced", "classes": "balanced"})
    report({"train": data}, plan, tmp_path)
    text = (tmp_path / "distribution.txt").read_text()
    assert "train split" in text
    assert "one epoch, sampler over" in text
    assert "0.500" in text


def test_what_is_not_known_gives_no_gradient():
    labels = torch.tensor([[1.0, np.nan], [0.0, 1.0], [np.nan, np.nan]])
    logits = torch.zeros(3, 2, requires_grad=True)
    loss = LabelLoss(LossPlan(), labels.numpy(), torch.device("cpu"))(logits, labels)
    loss.backward()
    assert loss.item() == pytest.approx(np.log(2.0), abs=1e-6)
    assert (logits.grad == 0).tolist() == [[False, True], [False, False], [True, True]]
    assert LabelLoss(LossPlan(), labels.numpy(), torch.device("cpu"))(logits[2:], labels[2:]).item() == 0.0


def test_class_weights_balance_what_the_labels_lack():
    labels = np.array([[1.0], [0.0], [0.0], [0.0], [np.nan]], np.float32)
    assert class_weights(LossPlan(class_weight="pos_weight"), labels)[:, 0].tolist() == [1.0, 3.0]
    low, high = class_weights(LossPlan(class_weight="balanced"), labels)[:, 0].tolist()
    assert (3 * low, high) == (pytest.approx(2.0), pytest.approx(2.0))
    assert class_weights(LossPlan(), labels)[:, 0].tolist() == [1.0, 1.0]


def test_focal_loss_plays_down_what_is_easy():
    labels = torch.tensor([[1.0], [1.0]])
    logits = torch.tensor([[3.0], [-1.0]])

    def each(plan):
        loss = LabelLoss(plan, labels.numpy(), torch.device("cpu"))
        return [loss(logits[i : i + 1], labels[i : i + 1]).item() for i in range(2)]

    plain, focal = each(LossPlan()), each(LossPlan(kind="focal", gamma=2.0))
    assert focal[0] / plain[0] == pytest.approx((1 - 1 / (1 + np.exp(-3.0))) ** 2, rel=1e-4)
    assert focal[1] / plain[1] > 0.5


def test_label_smoothing_asks_for_less_than_certainty():
    labels = torch.tensor([[1.0]])
    loss = LabelLoss(LossPlan(label_smoothing=0.1), labels.numpy(), torch.device("cpu"))
    at = torch.tensor([[2.1972245]], requires_grad=True)  # the logit of 0.9
    loss(at, labels).backward()
    assert at.grad.abs().item() < 1e-5
