"""`python -m tests.servers`: end what runs of the tests left that have ended, their processes and mounts."""

from tests.servers.place import end_run, ended_runs

for run in ended_runs():
    for line in end_run(run):
        print(f"left by a run that has ended ({run.name}): {line}")
