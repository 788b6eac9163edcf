"""A server that fails: an error that names the URL and the cause, never values that were not there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "geoml/data"))
import test_store as stores
from object_store import Server, s3_server

from geoml.data.blocks import FieldSource
from geoml.data.location import location
from geoml.data.store import verify_store
from geoml.errors import DataError

URL = "s3://rain-store/a.zarr"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with s3_server() as running:
        stores.make_store(location(URL))
        yield running


@pytest.mark.fault("S3 error 500", "refused, with the URL and the answer of the server")
def test_the_server_fails(server: Server) -> None:
    source = FieldSource(URL)
    server.fault = lambda environ: "500 Internal Server Error" if "/c/1/" in environ["PATH_INFO"] else None
    with pytest.raises(DataError, match=r"s3://rain-store/a.zarr.* cannot be reached: .*Internal ?(Server )?Error"):
        source.read(0, 26)
    server.fault = lambda environ: "500 Internal Server Error"
    for attempt in (lambda: FieldSource(URL), lambda: stores.make_store(location("s3://rain-store/b.zarr"))):
        with pytest.raises(DataError, match=r"s3://rain-store/[ab].zarr cannot be reached"):
            attempt()
    server.fault = None
    assert source.read(0, 26)["target"].shape == (26, 1, 50, 50)


@pytest.mark.fault("S3 error 404", "missing objects and buckets are refused by name, never read as fill values")
def test_an_object_or_the_bucket_is_missing(server: Server) -> None:
    server.fault = None
    source, path = FieldSource(URL), location(URL)
    path.fs.rm((path / "target/rate/c/1/0/0").path)
    for attempt in (lambda: source.read(0, 26), lambda: verify_store(URL)):
        with pytest.raises(DataError, match=r"a.zarr/target/rate/c/1/0/0 is missing.*rainbow prepare"):
            attempt()
    with pytest.raises(DataError, match=r"s3://no-such-bucket/a.zarr does not exist"):
        FieldSource("s3://no-such-bucket/a.zarr")
    with pytest.raises(DataError, match=r"s3://no-such-bucket/b.zarr cannot be reached: .*bucket does not exist"):
        stores.make_store(location("s3://no-such-bucket/b.zarr"))
