"""How well each measure predicts generalization, how sure that is, and what it adds to the others (NumPy, SciPy)."""

from .composition import judge
from .verdict import Matrix, Verdict, format_table, write

__all__ = ["Matrix", "Verdict", "format_table", "judge", "write"]
