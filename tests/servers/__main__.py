"""`python -m tests.servers`: end what runs of the tests left that have ended, their processes and mounts."""

from tests.servers.place import end_run, ended_runs

for run in ended_runs():
    end_run(run)
