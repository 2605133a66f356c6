"""The commands that operators of Glance have in their fingers, as other names for words of `xloud-image`. They act on
this node's configuration and database and need no login.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

# glance-manage's words → ours; None: there is nothing left to do, or no such thing, and why
_DB: Final[Mapping[str, Sequence[str] | str]] = {
    "sync": ("db", "upgrade"),
    "upgrade": ("db", "upgrade"),
    "expand": ("db", "upgrade"),
    "migrate": "Nothing to do: `db expand` has done it.",
    "contract": "Nothing to do: `db expand` has done it, and nothing is taken away.",
    "version": ("db", "version"),
    "check": ("db", "check"),
    "purge": ("db", "purge"),
    "purge_images_table": ("db", "purge-images-table"),
    "load_metadefs": ("metadefs", "load"),
    "unload_metadefs": ("metadefs", "unload"),
    "export_metadefs": ("metadefs", "export"),
}
_CONFIG: Final = ("--config-file", "--config-dir")
# what oslo.config gives all of them; taken and not used
_FLAGS: Final = frozenset(
    {"--debug", "-d", "--nodebug", "--verbose", "-v", "--noverbose", "--use-syslog", "--nouse-syslog", "--use-journal",
     "--nouse-journal", "--use-json", "--nouse-json"}
)  # fmt: skip
_VALUES: Final = frozenset({"--log-config-append", "--log-file", "--logfile", "--log-dir", "--logdir",
                            "--log-date-format", "--syslog-log-facility"})  # fmt: skip


def manage() -> None:
    """`glance-manage`."""
    config, words = _taken(sys.argv[1:])
    if not words or words[0] in ("-h", "--help"):
        _say(f"usage: glance-manage [--config-file FILE] [--config-dir DIRECTORY] db {{{','.join(_DB)}}} …\n\n"
             "The same as words of xloud-image: `xloud-image db --help`.", 0 if words else 2)  # fmt: skip
    if words[0] == "db" and len(words) > 1:
        verb, rest = words[1], words[2:]
    else:  # the older form, db_sync
        verb, rest = words[0].removeprefix("db_") if words[0].startswith("db_") else "", words[1:]
    ours = _DB.get(verb.replace("-", "_"))
    if ours is None:
        _say(f"glance-manage: '{' '.join(words[:2])}' is not known; db {', '.join(_DB)} are", 2)
    if isinstance(ours, str):
        _say(ours, 0)
    _run([*ours, *_options(verb, rest), *config])


def scrubber() -> None:
    """`glance-scrubber`: deletions that are pending are worked off now, once, as the service does all the time."""
    config, words = _taken(sys.argv[1:])
    if words and words[0] in ("-h", "--help"):
        _say("usage: glance-scrubber [--config-file FILE] [--config-dir DIRECTORY]\n\nThe same as `xloud-image stores "
             "scrub`. The service works off pending deletions by itself: no daemon is needed.", 0)  # fmt: skip
    if "--daemon" in words or "-D" in words:
        _say("glance-scrubber: the service removes what is pending by itself, no daemon is needed; without --daemon "
             "it is done once, now", 2)  # fmt: skip
    if words and words[0].startswith("--restore"):
        _say("glance-scrubber: an image is restored by `xloud-image images restore IMAGE`", 2)
    _run(["stores", "scrub", *config])


def status() -> None:
    """`glance-status upgrade check`: 0 all is well, 1 something is to be looked at, 2 it would not serve."""
    config, words = _taken(sys.argv[1:])
    if words != ["upgrade", "check"]:
        _say("usage: glance-status [--config-file FILE] [--config-dir DIRECTORY] upgrade check", 2)
    from xloud_image.errors import ImageServiceError

    try:
        found = _checked(config)
    except ImageServiceError as error:
        found = [("Configuration", "Failure", [error.message])]
    for title, result, lines in found:
        sys.stdout.write(f"Check: {title}\nResult: {result}\n")
        sys.stdout.writelines(f"Details: {line}\n" for line in lines)
    results = {result for _, result, _ in found}
    sys.exit(2 if "Failure" in results else 1 if "Warning" in results else 0)


def _checked(config: Sequence[str]) -> list[tuple[str, str, list[str]]]:
    """(what was looked at, Success, Warning or Failure, sentences)."""
    import asyncio
    from pathlib import Path

    from xloud_image.cli.options import load
    from xloud_image.cli.ready import complete
    from xloud_image.db import schema
    from xloud_image.errors import ImageServiceError

    pairs = list(zip(config[::2], config[1::2], strict=True))
    files, dirs = ([Path(value) for name, value in pairs if name == which] for which in _CONFIG)
    loaded = complete(load(files, dirs))
    refused = [str(one) for one in loaded.refusals]
    warned = [str(one) for one in loaded.findings if one.severity == "warning"]
    found = [("Configuration", "Failure" if refused else "Warning" if warned else "Success", refused or warned)]
    try:
        missing = asyncio.run(schema.check(loaded.settings.database))
    except ImageServiceError as error:
        missing = [error.message]
    return [*found, ("Database", "Failure" if missing else "Success", missing)]


def _taken(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Options of the configuration, wherever they stand, and the rest without what is not used here."""
    config: list[str] = []
    rest: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        name, equals, value = word.partition("=")
        if name in _CONFIG:
            config += [name, value if equals else left.pop(0) if left else ""]
        elif name in _VALUES:
            if not equals and left:
                left.pop(0)
        elif word not in _FLAGS:
            rest.append(word)
    return config, rest


def _options(verb: str, words: Sequence[str]) -> list[str]:
    """Glance's options as ours: `--age_in_days 30` as `--age-in-days 30`, `--path DIRECTORY` as DIRECTORY. A version
    that was named does not count: there is one that this release needs."""
    if verb in ("sync", "upgrade", "expand"):
        return []
    found: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--path" and left:
            found.append(left.pop(0))
        elif word.startswith("--path="):
            found.append(word.partition("=")[2])
        elif word.startswith("--"):
            name, equals, value = word.partition("=")
            found.append(name.replace("_", "-") + equals + value)
        else:
            found.append(word)
    if verb == "export_metadefs" and all(word.startswith("--") for word in found):
        found.append("/etc/glance/metadefs")  # Glance's place
    return found


def _run(words: Sequence[str]) -> None:
    from xloud_image import cli

    sys.argv = ["xloud-image", *words]
    cli.main()


def _say(text: str, code: int) -> NoReturn:
    (sys.stdout if code == 0 else sys.stderr).write(f"{text}\n")
    sys.exit(code)
