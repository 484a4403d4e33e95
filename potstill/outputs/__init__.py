"""Teachers' outputs: recorded once (`record`, `open`), brought as an array, or asked live."""

from potstill.outputs.arrays import from_array
from potstill.outputs.live import Live
from potstill.outputs.manifest import Header, Manifest, Shard
from potstill.outputs.opening import open
from potstill.outputs.record import record
from potstill.outputs.store import Stored

__all__ = ["Header", "Live", "Manifest", "Shard", "Stored", "from_array", "open", "record"]
