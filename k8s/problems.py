"""Problem: one thing wrong with a manifest, in the words of the mesh's errors; made by the checks, printed by the CLI.

The one invariant: a problem always says object, field, problem and fix.
"""

from dataclasses import dataclass

from k8s.names import Manifest


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem.

    Args:
        object: kind and name, like ``RayService/reelmesh``.
        field: dotted path in the object.
        problem: what is wrong, without a final full stop.
        fix: what to do.
    """

    object: str
    field: str
    problem: str
    fix: str

    @property
    def where(self) -> str:
        """``object:field``."""
        return f"{self.object}:{self.field}"

    def __str__(self) -> str:
        """``object:field: problem: fix``."""
        return f"{self.where}: {self.problem}: {self.fix}"


def identity(manifest: Manifest) -> str:
    """Kind and name of an object."""
    return f"{manifest.get('kind', '?')}/{manifest.get('metadata', {}).get('name', '?')}"
