"""Several commands for a deployment, each in a process of its own that has loaded the libraries already: their import
takes longer than what most of them do. What the commands do does not belong here."""

import importlib
import io
import json
import os
import sys
from collections.abc import Callable
from typing import Any, TypedDict

from xloud_image.errors import ConfigError

# what most of them need; anything else each one imports by itself
_LOADED = (
    "xloud_image.bootstrap.database",
    "xloud_image.bootstrap.keystone",
    "xloud_image.cli.ready",
    "xloud_image.config.check",
    "xloud_image.config.loader",
    "xloud_image.db.schema",
    "xloud_image.services.runtime",
    "xloud_image.services.store_check",
    "xloud_image.services.usage",
)


class Command(TypedDict, total=False):
    """`words`: of the command line, required. `must`: when it fails none of the others is run. `environment`: for it
    alone, name → the variable of ours that holds the value (which nobody reads in a list of processes)."""

    words: list[str]
    must: bool
    environment: dict[str, str]


def run(text: str, main: Callable[[], None]) -> str:
    """The commands of a JSON list, one after the other by `main`, which reads sys.argv and ends by `SystemExit`. A JSON
    list with `rc`, `stdout` and `stderr` of each that was run."""
    try:
        commands: list[Command] = json.loads(text)
        words = [[str(word) for word in command["words"]] for command in commands]
    except (ValueError, KeyError, TypeError):
        raise ConfigError("a batch is a JSON list of objects, each with a list of words") from None
    for module in _LOADED:
        importlib.import_module(module)
    done: list[dict[str, Any]] = []
    for command, own in zip(commands, words, strict=True):
        done.append(_one(own, command.get("environment", {}), main))
        if done[-1]["rc"] and command.get("must"):
            break
    return json.dumps(done)


def _one(words: list[str], environment: dict[str, str], main: Callable[[], None]) -> dict[str, Any]:
    with open(os.memfd_create("stdout"), "w+b") as out, open(os.memfd_create("stderr"), "w+b") as err:
        process = os.fork()
        if process == 0:
            for number, file in ((1, out), (2, err)):
                os.dup2(file.fileno(), number)
            os.environ.update({name: os.environ.get(variable, "") for name, variable in environment.items()})
            # none of them is written to before; these know no terminal
            sys.stdout, sys.stderr = (io.TextIOWrapper(os.fdopen(n, "wb"), write_through=True) for n in (1, 2))
            sys.argv[1:] = words
            main()
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        told = []
        for file in (out, err):
            file.seek(0)
            told.append(file.read().decode(errors="replace"))
    return {"rc": code, "stdout": told[0], "stderr": told[1]}
