"""Files under the data root that are made to harm: the server refuses them in time, and reads the next one."""

import contextlib
import io
import json
import os
import signal
import threading
import time
import zipfile
import zlib

import h5py
import httpx2
import numpy as np
import pytest
import zarr
from scipy.io import savemat

from geoml.errors import DataError, UserError
from mcp_experts.channels.opening import open_inside
from mcp_experts.channels.synthetic import synthesize
from mcp_experts.serve import readers
from mcp_experts.serve.readers import Readers

SAMPLING = {"subcarrier_spacing_hz": 30e3, "snapshot_interval_s": 1e-3}
CHANNEL = synthesize()


@pytest.fixture(scope="module")
def reading():
    found = Readers()
    yield found
    found.close()


def read(reading, root, name):
    with open_inside(root, name) as opened:
        return reading.channel(opened, 0)


def save_zarr(path, zarr_format=3, **arrays):
    store = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    store.attrs.update(SAMPLING)
    for name, array in (arrays or {"csi_real": CHANNEL.csi.real, "csi_imag": CHANNEL.csi.imag}).items():
        options = {"dimension_names": ["subcarrier", "time", "antenna"]} if zarr_format == 3 else {}
        made = store.create_array(name, shape=array.shape, dtype=array.dtype, chunks=array.shape, **options)
        made[...] = array
        if zarr_format == 2:
            made.attrs["_ARRAY_DIMENSIONS"] = ["subcarrier", "time", "antenna"]
    return path


@pytest.fixture
def well(tmp_path, reading):
    """After each of these tests a good file is still read, and no place is lost."""
    yield tmp_path
    np.savez(tmp_path / "well.npz", csi=CHANNEL.csi, **SAMPLING)
    for _ in range(readers.READ_AT_ONCE + 1):
        assert read(reading, tmp_path, "well.npz").csi.shape == (64, 14, 1)


@pytest.mark.fault("pipe, device or link in a store under the experts' root", "refused, never waited on")
def test_pieces_that_are_no_files(well, reading):
    for number, make in enumerate((os.mkfifo, lambda path: os.symlink("/dev/zero", path))):
        path = save_zarr(well / f"{number}.zarr")
        piece = path / "csi_real/c/0/0/0"
        piece.unlink()
        make(piece)
        with pytest.raises(UserError, match="links, pipes or devices"):
            read(reading, well, path.name)
    os.mkfifo(well / "pipe.h5")
    with pytest.raises(UserError, match="not a regular file"):
        read(reading, well, "pipe.h5")


@pytest.mark.fault("file under the experts' root swapped between check and use", "what was checked is read, or refused")
def test_what_was_checked_is_what_is_read(well, reading):
    np.savez(well / "a.npz", csi=CHANNEL.csi, **SAMPLING)
    np.savez(well / "secret.npz", csi=2j * CHANNEL.csi[::-1], **SAMPLING)
    with open_inside(well, "a.npz") as opened:
        (well / "a.npz").unlink()
        (well / "a.npz").symlink_to(well / "secret.npz")
        assert np.allclose(reading.channel(opened, 0).csi, CHANNEL.csi)
    for number, swap in enumerate((os.mkfifo, lambda path: os.symlink("/dev/zero", path))):
        path = save_zarr(well / f"{number}.zarr")
        with open_inside(well, path.name) as opened:
            (path / "csi_real/c/0/0/0").unlink()
            swap(path / "csi_real/c/0/0/0")
            with pytest.raises(DataError, match=r"cannot be opened|is cut"):
                reading.channel(opened, 0)


@pytest.mark.fault("archive of very many members under the experts' root", "refused by the end of the archive")
def test_an_archive_of_very_many_members(well, reading):
    with zipfile.ZipFile(well / "many.npz", "w") as archive:
        for number in range(20_000):
            archive.writestr(f"a{number}.npy", b"")
    with h5py.File(well / "many.h5", "w") as file:
        for number in range(2000):
            file[f"a{number}"] = number
    for name in ("many.npz", "many.h5"):
        begin = time.monotonic()
        with pytest.raises(DataError, match="at most 256 are read"):
            read(reading, well, name)
        assert time.monotonic() - begin < 10


def inflating_hdf5(path):
    """Ten numbers, in a chunk that unpacks to 3.9 GB."""
    with h5py.File(path, "w") as file:
        shape, chunk = (64, 14, 1), (64 * 1024, 1024, 7)
        made = file.create_dataset("csi", shape, "f8", chunks=chunk, maxshape=(None, None, None), compression="gzip")
        packed = zlib.compressobj(9)
        data = b"".join(packed.compress(bytes(1 << 24)) for _ in range(32)) + packed.flush()
        made.id.write_direct_chunk((0, 0, 0), data)
        file.attrs.update(SAMPLING)


def inflating_zarr(path):
    store = zarr.open_group(path, mode="w")
    store.attrs.update(SAMPLING)
    made = store.create_array("csi", shape=(64, 14, 1), dtype="f8", chunks=(10**6, 10**4, 1))
    piece = path / "csi/c/0/0/0"
    piece.parent.mkdir(parents=True)
    piece.write_bytes(bytes(100))
    assert made.shape == (64, 14, 1)


def inflating_npz(path):
    """A member whose header promises far more than the archive says that it holds."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<c16", "fortran_order": False, "shape": (10**6, 10**5, 1)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("csi.npy", stream.getvalue() + bytes(1000))


def inflating_matlab(path):
    savemat(path, {"csi": np.zeros((4096, 4096, 5), np.uint8), **SAMPLING}, do_compression=True)


@pytest.mark.fault("chunk or array that unpacks to more than memory", "refused; the server's memory does not grow")
@pytest.mark.parametrize(
    ("name", "make"),
    [("a.h5", inflating_hdf5), ("a.zarr", inflating_zarr), ("a.npz", inflating_npz), ("a.mat", inflating_matlab)],
)
def test_what_unpacks_to_more_than_memory(well, reading, name, make):
    make(well / name)
    before = resident_mb()
    begin = time.monotonic()
    with pytest.raises(DataError):
        read(reading, well, name)
    assert time.monotonic() - begin < 30
    assert resident_mb() - before < 50


def resident_mb():
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.fault("coordinates that declare a size without end", "refused, as a channel and as a map")
def test_coordinates_of_declared_size(well, reading):
    store = zarr.open_group(well / "map.zarr", mode="w")
    for name, shape, dims in (("x", (10**12,), ["x"]), ("path_gain_db", (1, 1, 10**12), ["z", "y", "x"])):
        store.create_array(name, shape=shape, dtype="f8", chunks=(10**9,) * len(shape), dimension_names=dims)
    for name in ("y", "z"):
        store.create_array(name, shape=(1,), dtype="f8", dimension_names=[name])
    for name in ("tx_x", "tx_y", "tx_z", "frequency_hz"):
        store.create_array(name, shape=(), dtype="f8", dimension_names=[])
    with pytest.raises(DataError):
        read(reading, well, "map.zarr")
    with open_inside(well, "map.zarr") as opened, pytest.raises(DataError):
        reading.point(opened, x_m=1.0, y_m=0.0, z_m=0.0)


@pytest.mark.fault("pickles in a store under the experts' root", "refused before a codec is built")
@pytest.mark.parametrize("change", ["filter", "objects", "codec"])
def test_pickles_in_a_store(well, reading, change):
    path = save_zarr(well / "a.zarr", zarr_format=3 if change == "codec" else 2)
    about = path / "csi_real" / ("zarr.json" if change == "codec" else ".zarray")
    found = json.loads(about.read_text())
    if change == "codec":
        found["codecs"].append({"name": "numcodecs.pickle", "configuration": {"protocol": 5}})
    else:
        found["filters"] = [{"id": "pickle", "protocol": 5}] if change == "filter" else None
        found["dtype"] = "|O" if change == "objects" else found["dtype"]
    about.write_text(json.dumps(found))
    with pytest.raises(DataError, match=r"codec .*pickle|holds objects"):
        read(reading, well, "a.zarr")


@pytest.mark.fault("reading process that hangs or dies", "its file is refused, the next one is read")
def test_a_reading_process_that_hangs_or_dies(well, reading, monkeypatch):
    np.savez(well / "a.npz", csi=CHANNEL.csi, **SAMPLING)
    assert read(reading, well, "a.npz").csi.shape == (64, 14, 1)
    (process,) = reading._idle
    os.kill(process._process.pid, signal.SIGSTOP)
    monkeypatch.setattr(readers, "MOST_S", 0.5)
    with pytest.raises(DataError, match=r"takes more than 0.5 s"):
        read(reading, well, "a.npz")
    monkeypatch.undo()
    read(reading, well, "a.npz")
    (process,) = reading._idle
    os.kill(process._process.pid, signal.SIGKILL)
    with pytest.raises(DataError, match="exceeds the memory limit or crashes a library"):
        read(reading, well, "a.npz")


@pytest.mark.fault("SIGTERM while the experts' server reads a file", "ends within 2 s, its reading processes too")
@pytest.mark.parametrize("transport", ["stdio", "http"])
def test_sigterm_ends_the_server_whatever_is_read(tmp_path, start_stdio, start_server, transport):
    csi = np.zeros((4, 4096, 4096), np.complex64)
    np.savez_compressed(tmp_path / "large.npz", csi=csi, **SAMPLING)
    call = {"name": "wireless_ask", "arguments": {"source": "large.npz", "question": "snr"}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    if transport == "stdio":
        server = start_stdio("--root", str(tmp_path))
        server.send(message)
    else:
        server = start_server("--root", str(tmp_path))
        threading.Thread(target=post, args=(server, message), daemon=True).start()
    deadline = time.monotonic() + 20
    while not (children := children_of(server.process.pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.7)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=20) in (-signal.SIGTERM, 128 + signal.SIGTERM)
    time.sleep(0.2)
    assert children
    assert not [pid for pid in children if running(pid)]


def post(server, message):
    with contextlib.suppress(httpx2.HTTPError):
        server.post(message, **{"mcp-protocol-version": "2025-06-18"})


def children_of(pid):
    return [int(text) for task in os.listdir(f"/proc/{pid}/task")
            for text in open(f"/proc/{pid}/task/{task}/children").read().split()]  # fmt: skip


def running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
