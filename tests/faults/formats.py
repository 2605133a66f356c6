"""What an image author may put into the bytes."""

from tests.faults.rows import Site, row


@row("an empty upload is taken whatever it claims to be", "204 0")
def empty(site: Site) -> str:
    service = site.service()
    image = service.request(
        "POST", "/v2/images", json={"name": "e", "disk_format": "raw", "container_format": "bare"}
    ).json()
    headers = {"Content-Type": "application/octet-stream"}
    answer = service.request("PUT", f"/v2/images/{image['id']}/file", body=b"", headers=headers)
    return f"{answer.status} {service.request('GET', '/v2/images/' + image['id']).json()['size']}"
