"""Tracking: a `Tracker` appends to a spool on disk, a `Shipper` carries the spool to MLflow in the background.

Neither import loads MLflow: the shipper's thread does, so that a driver's start does not wait for it. `EventFiles` are
TensorBoard's.
"""

from tunery.cluster.tracking.shipper import Shipper
from tunery.cluster.tracking.spool import Status, Tracker
from tunery.cluster.tracking.tensorboard import EventFiles

__all__ = ["EventFiles", "Shipper", "Status", "Tracker"]
