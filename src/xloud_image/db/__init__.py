"""Rows: tables, statements, migrations. Whether a change is allowed is decided by the callers."""
