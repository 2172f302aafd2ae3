"""What goes over the wire: `shared` (requests and responses), `operations` (call results), `errors`."""

from . import errors, operations, shared

__all__ = ["errors", "operations", "shared"]
