"""What the globals of a whole cloud may hold, and what becomes of it."""

import json
import re
import subprocess
from pathlib import Path

from tests.faults.rows import Site, row
from tests.servers.place import ROOT, environment
from tests.servers.service import command
from xavs import variables

ADDRESS = "kolla_internal_vip_address: 127.0.0.9\n"


def render(directory: Path, text: str) -> tuple[int, str]:
    """The exit code of `config render` and its words."""
    (directory / "globals.yml").write_text(ADDRESS + text)
    done = subprocess.run(
        [*command(), "config", "render", "--globals", directory / "globals.yml", "--output", directory / "O"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def line(directory: Path, name: str) -> str:
    """The value of an option in the rendered glance-api.conf."""
    found = re.search(rf"^{name} = (.*)$", (directory / "O" / "glance-api.conf").read_text(), re.MULTILINE)
    return found[1] if found else ""


@row("kolla's own key of the image cache, off", "0")
def cache(site: Site) -> str:
    return str(render(site.directory(), 'enable_glance_image_cache: "no"\n')[0])


@row("the image cache switched on is on", "0 /var/lib/glance/image-cache")
def cache_on(site: Site) -> str:
    directory = site.directory()
    code, said = render(directory, 'glance_enable_image_cache: "yes"\n')
    return f"{code} {'not built' if 'not built' in said else line(directory, 'image_cache_dir')}"


KEYS = """enable_mariabackup enable_osprofiler enable_cells enable_destroy_images enable_external_api_firewalld
external_api_firewalld_zone acme_client_servers vast_port update_keystone_service_user_passwords osprofiler_backend
num_nova_fake_per_node set_sysctl container_http_proxy container_https_proxy container_no_proxy ovsdb_port enable_kms
enable_host_ha enable_dynamic_cluster_optimization enable_db_backup_utility enable_disk_encryption"""


@row("keys of other services that were refused", "0")
def others(site: Site) -> str:
    return str(render(site.directory(), "".join(f'{name}: "yes"\n' for name in KEYS.split()))[0])


@row("every key that a release of kolla-ansible has", "0")
def every(site: Site) -> str:
    names = json.loads((ROOT / "src/xavs/kolla.json").read_text())["names"]
    ours = set(variables.names()) | variables.shared()
    return str(render(site.directory(), "".join(f"{name}: x\n" for name in names if name not in ours))[0])


@row("a database of somebody else is used and not made", "0 create=False shared")
def database(site: Site) -> str:
    directory = site.directory()
    code, _ = render(directory, "use_preconfigured_databases: yes\nuse_common_mariadb_user: yes\n"
                                "database_user: shared\ndatabase_password: r00t\ndatabase_address: db\n")  # fmt: skip
    facts = json.loads((directory / "O" / "deployment.json").read_text())
    user = line(directory, "connection").partition("://")[2].partition(":")[0]
    return f"{code} create={facts['database']['create']} {user}"


@row("expressions of upstream's own text", "0 rbd:rbd 3")
def expressions(site: Site) -> str:
    directory = site.directory()
    code, _ = render(
        directory,
        "glance_backend_ceph: yes\nopenstack_service_workers: 3\n"
        'glance_ceph_backends:\n  - {name: rbd, type: rbd, enabled: "{{ glance_backend_ceph | bool }}"}\n'
        'glance_api_workers: "{{ openstack_service_workers }}"\n',
    )
    return f"{code} {line(directory, 'enabled_backends')} {line(directory, 'workers')}"


S3 = "glance_backend_s3: yes\nglance_s3_store_host: h\nglance_s3_store_access_key: a\nglance_s3_store_bucket: b\n"


@row("a secret that is encrypted inline", "1 encrypted by ansible-vault, --vault-password-file")
def vault(site: Site) -> str:
    code, said = render(
        site.directory(), S3 + "glance_s3_store_secret_key: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6162\n"
    )
    words = [word for word in ("encrypted by ansible-vault", "--vault-password-file") if word in said]
    return f"{code} {', '.join(words)}"


@row("a secret with braces that is marked as no expression", "0 a{{b}}c")
def unsafe(site: Site) -> str:
    directory = site.directory()
    code, _ = render(directory, S3 + "glance_s3_store_secret_key: !unsafe 'a{{b}}c'\n")
    return f"{code} {line(directory, 's3_store_secret_key')}"


@row("a key of ours that is mistyped stops the run", "1 glance_backend_ceph")
def mistyped(site: Site) -> str:
    code, said = render(site.directory(), "glance_backend_cehp: yes\n")
    found = re.search(r"is '(\w+)' meant", said)
    return f"{code} {found[1] if found else said}"


@row("stores of an override that are not on", "1")
def override(site: Site) -> str:
    directory = site.directory()
    (directory / "config" / "glance").mkdir(parents=True)
    (directory / "config/glance/glance-api.conf").write_text("[glance_store]\nstores = s3\ndefault_store = s3\n")
    return str(render(directory, "")[0])


@row("a policy that lies where nobody reads it", "0 told")
def elsewhere(site: Site) -> str:
    directory = site.directory()
    (directory / "glance").mkdir()
    (directory / "glance" / "policy.yaml").write_text('"get_image": "!"\n')
    code, said = render(directory, "")
    return f"{code} {'told' if 'glance/policy.yaml: is not read' in said else 'not told'}"


@row("the times of the balancer are told as without effect", "0 told")
def balancer(site: Site) -> str:
    code, said = render(site.directory(), "haproxy_glance_api_client_timeout: 12h\n")
    return f"{code} {'told' if 'haproxy_glance_api_client_timeout: has no effect' in said else 'not told'}"


@row("an inventory beside the globals is used", "0 nodes elsewhere")
def nodes(site: Site) -> str:
    directory = site.directory()
    (directory / "globals.yml").write_text(ADDRESS)
    (directory / "nodes").write_text("[control]\nelsewhere ansible_connection=local\n[glance-api:children]\ncontrol\n")
    done = subprocess.run(
        [environment(".venv-deploy", "xavs-ansible"), "genconfig", "--configdir", directory],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    used = "nodes" if f"inventory: {directory / 'nodes'}" in done.stderr else "not nodes"
    return f"{done.returncode} {used} {' '.join(path.name for path in (directory / '.rendered').iterdir())}"
