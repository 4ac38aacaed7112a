"""Tracking: a `Tracker` appends to a spool on disk, a `Shipper` carries the spool to MLflow in the background.

Neither import loads MLflow: the shipper's thread does, so that a driver's start does not wait for it.
"""

from tunery.cluster.tracking.shipper import Shipper
from tunery.cluster.tracking.spool import Status, Tracker

__all__ = ["Shipper", "Status", "Tracker"]
