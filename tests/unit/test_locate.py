"""Which Redis is taken, and what is shown of it."""

from __future__ import annotations

import pytest
from redis.asyncio.sentinel import Sentinel

from datamesh.errors import ConfigurationError
from datamesh.store.connect import endpoint_of
from datamesh.store.locate import Deployment, locate, redacted
from datamesh.store.sentinel import watched_of_url


def test_order_is_client_url_environment_embedded() -> None:
    assert locate(None, "redis://b", "m", client=object()).source == "client"
    assert locate("redis://a", "redis://b", "m").source == "url"
    assert locate(None, "redis://b", "m").source == "DATAMESH_URL"
    assert locate(None, None, "m").source == "embedded"


@pytest.mark.parametrize("unset", ["", "  "])
def test_empty_environment_counts_as_not_set(unset: str) -> None:
    assert locate(None, unset, "m").source == "embedded"


def test_empty_url_is_refused_for_it_may_be_a_setting_that_failed_to_arrive() -> None:
    with pytest.raises(ConfigurationError, match="of no known kind"):
        locate("", None, "m")


def test_client_and_url_together_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="pass one"):
        locate("redis://a", None, "m", client=object())


@pytest.mark.parametrize(
    ("url", "deployment", "client_url"),
    [
        ("redis://h:1/0", Deployment.SERVER, "redis://h:1/0"),
        ("rediss://u:p@h", Deployment.SERVER, "rediss://u:p@h"),
        ("REDIS://h", Deployment.SERVER, "redis://h"),
        ("unix:///run/redis.sock?db=1", Deployment.SERVER, "unix:///run/redis.sock?db=1"),
        ("valkey://h", Deployment.SERVER, "redis://h"),
        ("valkeys://h", Deployment.SERVER, "rediss://h"),
        ("redis+cluster://h:7000", Deployment.CLUSTER, "redis://h:7000"),
        ("rediss+cluster://h:7000", Deployment.CLUSTER, "rediss://h:7000"),
        ("redis+sentinel://a:1,b:2/main", Deployment.SENTINEL, "redis+sentinel://a:1,b:2/main"),
        ("rediss+sentinel://a/main?db=1", Deployment.SENTINEL, "rediss+sentinel://a/main?db=1"),
        ("memory://", Deployment.MEMORY, "memory://"),
        (" redis://h ", Deployment.SERVER, "redis://h"),
    ],
)
def test_schemes(url: str, deployment: Deployment, client_url: str) -> None:
    location = locate(url, None, "m")
    assert (location.deployment, location.client_url) == (deployment, client_url)


@pytest.mark.parametrize(
    ("url", "mesh", "persist"),
    [
        ("embedded://", "m", False),
        ("embedded://other", "other", False),
        ("embedded://Other?persist=yes", "Other", True),
        ("embedded:///?persist=no", "m", False),
    ],
)
def test_embedded_by_url(url: str, mesh: str, persist: bool) -> None:
    location = locate(url, None, "m")
    assert (location.deployment, location.mesh, location.persist) == (Deployment.EMBEDDED, mesh, persist)


def test_embedded_by_default_is_that_of_the_mesh() -> None:
    location = locate(None, None, "shop")
    assert (location.deployment, location.mesh, location.url) == (Deployment.EMBEDDED, "shop", "embedded://shop")


def test_unknown_scheme_lists_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match=r"redis://.*rediss://.*unix://.*valkey://.*memory://.*embedded://"):
        locate("http://h", None, "m")


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "redis:/h",
        "redis://h:70000",
        "redis://h:port",
        "redis://h:0",
        "redis://[::1",
        "unix://relative",
        "unix://",
        "redis+sentinel://a:1",
        "redis+sentinel:///main",
        "redis+sentinel://a:1/main/0",
        "redis+sentinel://a:1,b:0/main",
        "redis+sentinel://a:1,,b/main",
        "redis+sentinel://a:1,b:port/main",
        "embedded://m/x",
        "embedded://m?persist=maybe",
        "embedded://a b",
    ],
)
def test_malformed_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        locate(url, None, "m")


def test_error_names_the_variable_that_is_wrong() -> None:
    with pytest.raises(ConfigurationError, match="DATAMESH_URL"):
        locate(None, "nonsense", "m")


def test_mesh_must_be_a_name() -> None:
    with pytest.raises(ConfigurationError, match="mesh"):
        locate(None, None, "a/b")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:hunter2@h:1/0", "redis://user:***@h:1/0"),
        ("redis://:hunter2@h", "redis://:***@h"),
        ("redis://hunter2@h", "redis://***@h"),
        ("hunter2@h:1", "***@h:1"),
        ("redis://u:hun/ter2@h", "redis://u:***@h"),
        ("redis://u:hun?ter2@h", "redis://u:***@h"),
        ("redis://u:hun@ter2@h", "redis://u:***@h"),
        ("redis://u:hun://ter2@h", "redis://u:***@h"),
        ("unix:///s?db=1&password=hunter2&x=1", "unix:///s?db=1&password=***&x=1"),
        ("redis+sentinel://h/m?sentinel_PASSWORD=hunter2", "redis+sentinel://h/m?sentinel_PASSWORD=***"),
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("", ""),
    ],
)
def test_redacted(url: str, shown: str) -> None:
    assert redacted(url) == shown


@pytest.mark.parametrize(
    "url", ["redis://u:hunter2@h:port", "redis://u:hun/ter2@h", "x://u:hunter2@h", "redis://u:[hunter2@h"]
)
def test_no_password_in_errors(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        locate(url, None, "m")
    assert "ter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_no_password_in_texts() -> None:
    location = locate("redis://u:hunter2@h", None, "m")
    assert "hunter2" not in f"{location} {location!r}"
    assert str(location) == "redis://u:***@h (from url)"
    assert str(locate(None, None, "m")) == "the embedded server of mesh 'm'"
    assert str(locate(None, None, "m", client=object())) == "the client that the program passed"


def test_what_a_url_says_of_sentinels() -> None:
    url = "rediss+sentinel://app:p%40ss@a:1,b,[::1]:3/main?db=2&sentinel_password=o%26er&ssl_ca_certs=/ca.crt"
    found = watched_of_url(locate(url, None, "m").client_url)
    assert (found.service, found.sentinels) == ("main", [("a", 1), ("b", 26379), ("::1", 3)])
    assert found.options == {"username": "app", "password": "p@ss", "db": 2, "ssl_ca_certs": "/ca.crt", "ssl": True}
    assert found.sentinel_options == {"password": "o&er", "ssl_ca_certs": "/ca.crt", "ssl": True}


def test_sentinels_without_options() -> None:
    found = watched_of_url("redis+sentinel://a/main")
    assert (found.options, found.sentinel_options) == ({"ssl": False}, {"ssl": False})


def test_an_option_that_cannot_be_read_is_said() -> None:
    with pytest.raises(ConfigurationError, match="db"):
        endpoint_of(locate("redis+sentinel://a/main?db=first", None, "m"), None)
    with pytest.raises(ConfigurationError, match="replicas"):
        endpoint_of(locate(None, None, "m", client=object()), Sentinel([("a", 1)]).slave_for("main"))
