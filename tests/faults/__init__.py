"""Attacks and oddities from outside: what strangers, clients and servers did that once went wrong, each as a row.

`python -m tests.faults` runs them all against fresh services and real servers and prints what each answers now beside
what it should; `test_rows.py` does the same in `make test`. One module an area; a row is a function with `@row`.
"""
