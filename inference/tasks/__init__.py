"""What a model's outputs mean differs by task; everything else of looking is shared.

A task is one module here with one `TaskReader`; `reader(manifest)` finds it by the manifest's `task`.
"""

from inference.manifest import Manifest, Task
from inference.tasks.classification import Classification
from inference.tasks.detection import Detection
from inference.tasks.segmentation import Segmentation
from inference.tasks.task import Said, SeenImage, TaskReader

READERS: dict[Task, TaskReader] = {
    "classification": Classification(),
    "segmentation": Segmentation(),
    "detection": Detection(),
}

__all__ = ["Said", "SeenImage", "TaskReader", "reader"]


def reader(manifest: Manifest) -> TaskReader:
    return READERS[manifest.task]
