"""Tables and verdicts in files.

Tables come from records, from anyone's CSV or from the PGDL competition; verdicts are CSV and JSON.
"""

from prunegen_jax.judging.table import Table
from prunegen_jax.runs.tables.read import read_csv, read_pgdl
from prunegen_jax.runs.tables.records import from_records
from prunegen_jax.runs.tables.write import to_rows, write_csv

__all__ = ["Table", "from_records", "read_csv", "read_pgdl", "to_rows", "write_csv"]
