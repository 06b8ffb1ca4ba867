"""A recipe is checked at the door: what is misspelt or contradicts itself is refused, with its name."""

from pathlib import Path

import pytest

from tests.train.sets import recipe
from training.recipe import RecipeError, read_recipe

RECIPES = Path(__file__).parents[2] / "training" / "recipes"


def test_an_unknown_key_is_refused_by_its_name():
    with pytest.raises(RecipeError, match=r"augment\.rotate: Extra inputs"):
        recipe(augment={"rotate": 5})


def test_every_fault_is_named_at_once():
    with pytest.raises(RecipeError) as refused:
        recipe(seed="soon", loss={"kind": "hinge"})
    assert "seed" in str(refused.value)
    assert "loss.kind" in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sampler": {"classes": "balanced"}}, "shuffle balances nothing"),
        ({"sampler": {"method": "over"}}, "need balanced"),
        (
            {"data": [{"reader": "csv", "folder": "a", "domain": "a", "split": {"train": 0.5, "calibration": 0.4}}]},
            "0.9",
        ),
        ({"data": [{"reader": "csv", "folder": "a", "domain": "a", "split": {"train": 1.0}}]}, "needs train and calib"),
    ],
)
def test_what_contradicts_itself_is_refused(changes, said):
    with pytest.raises(RecipeError, match=said):
        recipe(**changes)


def test_two_sets_of_one_domain_are_refused():
    one = recipe().data[0].model_dump()
    with pytest.raises(RecipeError, match="a domain of its own"):
        recipe(data=[one, one])


def test_earlier_weights_are_found_beside_the_recipe(tmp_path):
    text = (RECIPES / "chest-pneumonia-children.toml").read_text()
    (tmp_path / "r.toml").write_text(text.replace("[fit]\n", '[fit]\ninit = "before/weights.pt"\n'))
    assert read_recipe(tmp_path / "r.toml").fit.init == str(tmp_path / "before" / "weights.pt")


@pytest.mark.parametrize("name", ["chest-pneumonia", "chest-pneumonia-children"])
def test_the_shipped_chest_recipes_can_be_read(name):
    assert read_recipe(RECIPES / f"{name}.toml").labels == ("pneumonia",)
