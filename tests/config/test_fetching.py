"""Which URLs may be registered, as the file says it."""

import pytest

from tests.config.conftest import Read, told


def test_without_a_word_no_list_counts(read: Read) -> None:
    filters = read("").settings.url_filters
    assert (filters.chosen, filters.networks) == (False, ())


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("disallowed_hosts = [127.0.0.1, Bad.Example]", {"disallowed_hosts": ("127.0.0.1", "bad.example")}),
        ("allowed_ports = 80,8080", {"allowed_ports": (80, 8080)}),
        ("allowed_hosts = mirror", {"allowed_hosts": ("mirror",), "allowed_ports": (80, 443)}),
        ("allowed_ports =\ndisallowed_ports = 22", {"allowed_ports": (), "disallowed_ports": (22,)}),
        ("allowed_schemes = []", {"allowed_schemes": ()}),
    ],
    ids=str,
)
def test_what_the_operator_lists(read: Read, lines: str, expected: dict[str, object]) -> None:
    loaded = read(f"[DEFAULT]\nenabled_backends = a:file, w:http\n[import_filtering_opts]\n{lines}\n")
    filters = loaded.settings.url_filters
    assert filters.chosen
    assert {name: getattr(filters, name) for name in expected} == expected
    assert not told(loaded, "[import_filtering_opts]")
    assert loaded.settings.stores[1].options["url_filters"] is filters


def test_a_list_that_does_not_count_is_said(read: Read) -> None:
    loaded = read("[import_filtering_opts]\ndisallowed_ports = 22\nallowed_hosts = a\ndisallowed_hosts = b\n")
    assert "allowed_ports =" in str(told(loaded, "[import_filtering_opts] disallowed_ports", "warning"))
    assert "allowed_hosts (a) decides" in str(told(loaded, "[import_filtering_opts] disallowed_hosts", "warning"))


@pytest.mark.parametrize(
    "lines",
    [
        "[import_filtering_opts]\nallowed_ports = http",
        "[import_filtering_opts]\ndisallowed_ports = 70000",
        "[xloud]\nlocation_networks = 10.1.2.3/24",
        "[xloud]\nlocation_networks = mirror.example",
    ],
)
def test_what_is_none_is_refused(read: Read, lines: str) -> None:
    assert read(lines + "\n").refusals


def test_networks(read: Read) -> None:
    filters = read("[xloud]\nlocation_networks = 10.1.2.0/24, 127.0.0.1, fd00::/8\n").settings.url_filters
    assert filters.networks == ("10.1.2.0/24", "127.0.0.1/32", "fd00::/8")
    assert not filters.chosen
