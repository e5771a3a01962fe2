"""The composition root: :class:`Chassis` alone knows every component."""

from chassis.service._chassis import Chassis, chassis_of, examining
from chassis.service._examination import Examination
from chassis.service._options import ChassisOptions, ServiceLocation, local_options
from chassis.service._tasks import TaskFailed

__all__ = [
    "Chassis",
    "ChassisOptions",
    "Examination",
    "ServiceLocation",
    "TaskFailed",
    "chassis_of",
    "examining",
    "local_options",
]
