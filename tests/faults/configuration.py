"""What a configuration says, and whether the check, the rendering and the start agree about it."""

import re
import subprocess
from pathlib import Path

from tests.faults.rows import Site, row
from tests.servers.certificates import authority
from tests.servers.mariadb import PASSWORD, USER, MariaDB
from tests.servers.place import HOST, free_port
from tests.servers.service import Service, command


def ends(service: Service, *words: str) -> tuple[int, str]:
    """The exit code of a command with this configuration, and what it says."""
    done = subprocess.run([*command(), *words, "--config-file", service.configuration], capture_output=True, text=True,
                          timeout=60, check=False, cwd=service.directory)  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def serves(site: Site, connection: str) -> str:
    """Whether check, upgrade and the start go well with an address of a database."""
    service = site.service({"database": {"connection": connection}}, start=False)
    check, _ = ends(service, "config", "check")
    service.start()
    return f"check {check}, serves {service.request('GET', '/v2/images').status}"


@row("TripleO's database address", "check 0, serves 200")
def tripleo(site: Site) -> str:
    database = site.server("mariadb")
    url = database.create_database().partition("?")[0]
    return serves(site, f"{url}?read_default_file=/etc/my.cnf.d/tripleo.cnf&read_default_group=tripleo")


@row("the database address with TLS that OSA writes", "check 0, serves 200")
def osa(site: Site) -> str:
    mine = authority().issue("localhost", HOST)
    database = site.closing(MariaDB(options=[f"--ssl-cert={mine.certificate}", f"--ssl-key={mine.key}"]))
    database.start()
    url = database.create_database().partition("?")[0]
    return serves(site, f"{url}?charset=utf8&ssl_verify_cert=true&ssl_ca={authority().ca}")


@row(
    "a CA file of the database that is missing", "1 check, 1 db check, 1 serve: ssl_ca=/nonexistent.pem cannot be read"
)
def missing(site: Site) -> str:
    url = f"mysql+pymysql://{USER}:{PASSWORD}@{HOST}/d?ssl_ca=/nonexistent.pem"
    service = site.service({"database": {"connection": url}}, start=False)
    said = [ends(service, *words) for words in (["config", "check"], ["db", "check"], ["serve"])]
    sentence = "ssl_ca=/nonexistent.pem cannot be read"
    alike = sentence if all(sentence in text for _, text in said) else str([text[-200:] for _, text in said])
    return (
        ", ".join(f"{code} {name}" for (code, _), name in zip(said, ("check", "db check", "serve"), strict=True))
        + f": {alike}"
    )


@row(
    "nobody listens where the database should be",
    re.compile(r"1 Nobody listens: the database at 127\.0\.0\.1 port \d+ .*"),
)
def nobody(site: Site) -> str:
    url = f"mysql+pymysql://{USER}:{PASSWORD}@{HOST}:{free_port()}/d"
    code, said = ends(site.service({"database": {"connection": url}}, start=False), "db", "check")
    return f"{code} {said.strip().removeprefix('xloud-image: ')}"


@row("a rule that is not defined: check, rendering and start warn alike", "0 0 200 alike")
def undefined(site: Site) -> str:
    directory: Path = site.directory()
    policy = directory / "config" / "glance" / "policy.yaml"
    policy.parent.mkdir(parents=True)
    policy.write_text('"delete_image": "rule:image_owner or role:admin"\n')
    (directory / "globals.yml").write_text("kolla_internal_vip_address: 127.0.0.9\n")
    service = site.service({"oslo_policy": {"policy_file": policy}}, start=False)
    rendered = subprocess.run([*command(), "config", "render", "--globals", directory / "globals.yml"],
                              capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
    service.start()
    served = service.request("GET", "/v2/images").status
    said = [ends(service, "config", "check"), (rendered.returncode, rendered.stderr), (served, service.log)]
    alike = all("'rule:image_owner' refers to a rule that does not exist" in text for _, text in said)
    return f"{' '.join(str(code) for code, _ in said)} {'alike' if alike else said}"


@row("a byte order mark in glance-api.conf", "1 begins with a byte order mark (UTF-8)")
def mark(site: Site) -> str:
    service = site.service(start=False)
    service.configuration.write_bytes(b"\xef\xbb\xbf" + service.configuration.read_bytes())
    code, said = ends(service, "config", "check")
    found = re.search(r"begins with a byte order mark \([^)]+\)", said)
    return f"{code} {found[0] if found else said}"


@row("what is said of lock_path is true", "0 nothing false")
def locks(site: Site) -> str:
    service = site.service({"os_brick": {"lock_path": "/x"}, "oslo_concurrency": {"lock_path": "/x"}}, start=False)
    code, said = ends(service, "config", "check")
    wrong = [text for text in ("cinder are not built", "no lock files are used") if text in said]
    return f"{code} {wrong or 'nothing false'}"
