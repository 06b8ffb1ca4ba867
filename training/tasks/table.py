"""Task -> command -> function. What stands in no row is refused with what the command is for and what there is."""

from collections.abc import Callable, Mapping

from training.recipe_file import CLASSIFICATION, DETECTION, SEGMENTATION, RecipeError, task_of
from training.tasks import classification, detection, segmentation
from training.tasks.order import Order

Action = Callable[[Order], None]

COMMANDS: Mapping[str, Mapping[str, Action]] = {
    CLASSIFICATION: {
        "fit": classification.fit,
        "preview": classification.preview,
        "pretrain": classification.pretrain,
        "uncertain": classification.uncertain,
        "compare": classification.compare,
        "export": classification.export,
        "validate": classification.validate,
        "package": classification.package,
        "samples": classification.samples,
    },
    DETECTION: {
        "fit": detection.fit,
        "preview": detection.preview,
        "export": detection.export,
        "package": detection.package,
    },
    SEGMENTATION: {
        "fit": segmentation.fit,
        "preview": segmentation.preview,
        "export": segmentation.export,
        "package": segmentation.package,
    },
}
INSTEAD = {"validate": "; `package` exports and measures it in one go, and `opentriage validate` measures any package"}


def perform(command: str, order: Order) -> None:
    """Raises RecipeError where the recipe's task has no such command."""
    task = task_of(order.recipe)
    action = COMMANDS[task].get(command)
    if action is None:
        tasks = " and ".join(name for name, row in COMMANDS.items() if command in row)
        raise RecipeError(
            f"{command} is for {tasks} recipes, and {order.recipe.name} is one for {task}: for it there are"
            f" {', '.join(COMMANDS[task])}{INSTEAD.get(command, '')}"
        )
    # an option that would be passed over in silence is refused
    if (order.leave_out or order.folds) and task != SEGMENTATION:
        raise RecipeError("--leave-out and --fold are for slice models; other recipes say hold_out themselves")
    if order.members and task != CLASSIFICATION:
        raise RecipeError(f"--member is for {CLASSIFICATION} recipes, and {order.recipe.name} is one for {task}")
    action(order)
