"""The stack: installs, configures and supervises the parts of a system on one machine, without containers.

For tests and scripts: `local_part(settings, "postgres")` is one part that can be run by hand, and `parts(settings)` all
of them. Settings with free ports and a DATA_DIR of their own make a system that is apart from every other.
"""

from stack.errors import StackError, Unhealthy
from stack.part import Part, Port
from stack.plan import local_part, parts

__all__ = ["Part", "Port", "StackError", "Unhealthy", "local_part", "parts"]
