"""What Prometheus reads: by two processes on a port of their own, and what is shipped to watch it with."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.servers.http import request
from tests.servers.place import free_port
from tests.servers.service import Service
from xloud_image.api.messages import METHODS

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "deploy" / "monitoring"


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def service(port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    broken = tmp_path_factory.mktemp("store") / "not-there" / "at-all"
    one = Service(
        {
            "DEFAULT": {"workers": 2, "enabled_backends": "files:file,broken:file"},
            "xloud": {"metrics_port": port, "metrics_compat": True, "job_workers": 1},
            "broken": {"filesystem_store_datadir": broken},
        }
    )
    broken.parent.mkdir(parents=True)
    broken.write_text("a file where a directory should be")
    try:
        one.start()
        yield one
        assert one.stop() == 0
    finally:
        one.kill()


Read = Callable[[], dict[str, list[tuple[dict[str, str], float]]]]


@pytest.fixture(scope="module")
def numbers(service: Service, port: int) -> Read:
    def read() -> dict[str, list[tuple[dict[str, str], float]]]:
        answer = request("GET", f"http://127.0.0.1:{port}/metrics")
        assert answer.status == 200
        found: dict[str, list[tuple[dict[str, str], float]]] = {}
        for family in text_string_to_metric_families(answer.body.decode()):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
        return found

    return read


def test_the_port_has_numbers_and_nothing_else(service: Service, port: int, numbers: Read) -> None:
    fields = {"disk_format": "raw", "container_format": "bare"}
    image = service.request("POST", "/v2/images", json=fields).json()["id"]
    data = {"Content-Type": "application/octet-stream"}
    assert service.request("PUT", f"/v2/images/{image}/file", body=b"x" * 1000, headers=data).status == 204
    assert service.request("GET", f"/v2/images/{image}/file").body == b"x" * 1000
    for _ in range(20):
        assert service.request("GET", "/v2/images").status == 200
        assert service.request("GET", f"/v2/images/{uuid.uuid4()}").status == 404
    for _ in range(4):  # whichever process answers
        found = numbers()
        counted = {(one["route"], one["status"]): value for one, value in found["xloud_image_requests_total"]}
        assert counted["/v2/images", "200"] >= 20
        assert counted["/v2/images/{image_id}", "404"] >= 20
        assert found["xloud_image_sent_bytes_total"] == [({}, 1000.0)]
        assert ({"store": "files"}, 1000.0) in found["xloud_image_store_written_bytes_total"]
        assert all(value == 0 for _, value in found["xloud_image_store_transfers"])
    for word in ("BREW", "AAAA", "AAAB"):  # whoever sends what he likes makes no number of his own
        assert service.request(word, "/v2/images").status == 501
    assert {one["method"] for one, _ in numbers()["xloud_image_requests_total"]} <= {*METHODS, "other"}
    for path in ("/v2/images", "/", "/versions"):
        assert request("GET", f"http://127.0.0.1:{port}{path}").status == 404
    assert service.request("GET", "/metrics").status == 404  # not beside the API


def test_the_state_is_told(service: Service, numbers: Read) -> None:
    found = numbers()
    up = {one["store"]: value for one, value in found["xloud_image_store_up"]}
    assert up["files"] == 1
    assert up["broken"] == 0
    (reason,) = [one["reason"] for one, _ in found["xloud_image_store_error"]]
    assert "broken" in reason
    assert found["xloud_image_database_up"] == [({}, 1.0)]
    assert found["xloud_image_state_seconds"][0][1] < 60
    assert sum(value for _, value in found["xloud_image_images"]) == found["openstack_glance_images"][0][1]
    labels = {"id", "name", "tenant_id", "visibility", "hidden", "status"}
    assert all(set(one) == labels for one, _ in found.get("openstack_glance_image_created_at", []))


def _names(text: str) -> set[str]:
    return set(re.findall(r"\bxloud_image_[a-z_]+", text))


def test_what_is_shipped_asks_for_what_there_is(numbers: Read) -> None:
    there = set(numbers())
    # those that have a value only when something is there
    there |= {"xloud_image_jobs", "xloud_image_jobs_oldest_seconds", "xloud_image_claims"}
    there |= {"xloud_image_pending_deletions", "xloud_image_pending_deletions_oldest_seconds"}
    there |= {"xloud_image_store_failures_total", "xloud_image_store_error", "xloud_image_store_seconds_bucket"}
    source = "".join(path.read_text() for path in (ROOT / "src" / "xloud_image").rglob("*.py"))
    for file in sorted(SHIPPED.iterdir()):
        wanted = _names(file.read_text())
        assert wanted
        assert wanted <= there, file.name
        assert all(name.removesuffix("_bucket") in source for name in wanted)


def test_the_rules_are_rules() -> None:
    promtool = shutil.which("promtool")
    assert promtool, "package prometheus"
    done = subprocess.run(
        [promtool, "check", "rules", str(SHIPPED / "alerts.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 rules found" in done.stdout


def test_the_dashboard_is_whole() -> None:
    board = json.loads((SHIPPED / "dashboard.json").read_text())
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 8
    assert all(target["expr"] for panel in panels for target in panel["targets"])


def test_alerts_come_when_they_should(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    assert promtool, "package prometheus"
    (tmp_path / "test.yml").write_text(f"""
rule_files: ["{SHIPPED / "alerts.yml"}"]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'xloud_image_state_seconds{{instance="a"}}', values: '1x40'}}
      - {{series: 'xloud_image_store_up{{store="fast",type="rbd",instance="a"}}', values: '1x40'}}
      - {{series: 'xloud_image_store_up{{store="fast",type="rbd",instance="b"}}', values: '1x9 0x30'}}
      - {{series: 'xloud_image_jobs_oldest_seconds{{kind="import",state="waiting",instance="a"}}', values: '0+120x40'}}
      - {{series: 'xloud_image_job_workers{{instance="a"}}', values: '0x40'}}
      - series: 'xloud_image_requests_total{{route="/v2/images",method="GET",status="500",instance="a"}}'
        values: '0+60x40'
      - series: 'xloud_image_requests_total{{route="/v2/images",method="GET",status="200",instance="a"}}'
        values: '0+60x40'
    alert_rule_test:
      - {{eval_time: 5m, alertname: ImageStoreDown, exp_alerts: []}}
      - eval_time: 20m
        alertname: ImageStoreDown
        exp_alerts:
          - exp_labels: {{severity: critical, store: fast, type: rbd}}
            exp_annotations:
              summary: Store fast cannot be used on at least one node; xloud_image_store_error says why.
      - eval_time: 30m
        alertname: ImageJobsWait
        exp_alerts:
          - exp_labels: {{severity: warning, kind: import}}
            exp_annotations: {{summary: Long work of kind import waits for more than half an hour.}}
      - eval_time: 10m
        alertname: ImageNobodyWorks
        exp_alerts:
          - exp_labels: {{severity: critical}}
            exp_annotations: {{summary: "No process does long work, so imports and copies do not go on."}}
      - eval_time: 30m
        alertname: ImageServerErrors
        exp_alerts:
          - exp_labels: {{severity: warning, route: /v2/images}}
            exp_annotations: {{summary: More than 5 % of the answers of /v2/images are server errors.}}
      - {{eval_time: 30m, alertname: ImageServiceDown, exp_alerts: []}}
""")
    done = subprocess.run(
        [promtool, "test", "rules", str(tmp_path / "test.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
