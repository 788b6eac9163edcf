"""Tasks of radio-map prediction: inputs, targets, and their batches from a store.

>>> task = Task(targets=("path_gain_db",), prior="free_space")
>>> Task.of(task.describe()) == task
True
"""

from radiomaps.tasks.encoding import TARGETS, Encoding
from radiomaps.tasks.observations import Observations
from radiomaps.tasks.task import Task

__all__ = ["TARGETS", "Encoding", "Observations", "Task"]
