"""Files as somebody might leave them under the data root: that point elsewhere, unpack to more, or are no files."""

import os
import re

import h5py
import numpy as np
import pytest
import zarr
from scipy.io import savemat

from geoml.errors import DataError, UserError
from mcp_experts.channels import arrays, opening
from mcp_experts.channels.loading import channel_from_file
from mcp_experts.channels.opening import open_inside


def read_under(root, name):
    """The channel of a file under a root, read as the server reads it."""
    with open_inside(root, name) as opened:
        return channel_from_file(opened.path)


SAMPLING = {"subcarrier_spacing_hz": 30e3, "snapshot_interval_s": 1e-3}
SHAPE = (64, 14, 1)


def secret(tmp_path):
    """Beside the root: the coefficients of a channel as HDF5, and as bare bytes."""
    values = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["csi"] = values
        file["deep/csi"] = values
    (tmp_path / "secret.bin").write_bytes(values.tobytes())
    return tmp_path / "secret.h5", tmp_path / "secret.bin"


def link(file, other, raw):
    file["csi"] = h5py.ExternalLink(str(other), "/csi")


def link_behind_a_link(file, other, raw):
    file["deep/out"] = h5py.ExternalLink(str(other), "/deep")
    file["csi"] = h5py.SoftLink("/deep/out/csi")


def external_bytes(file, other, raw):
    file.create_dataset("csi", SHAPE, "f4", external=[(str(raw), 0, h5py.h5f.UNLIMITED)])


def virtual(file, other, raw):
    layout = h5py.VirtualLayout(SHAPE, "f4")
    layout[...] = h5py.VirtualSource(str(other), "csi", SHAPE)
    file.create_virtual_dataset("csi", layout)


@pytest.mark.parametrize("suffix", ["h5", "mat", "nc"])
@pytest.mark.parametrize("point", [link, link_behind_a_link, external_bytes, virtual])
def test_what_lies_in_another_file_is_not_read(tmp_path, point, suffix):
    other, raw = secret(tmp_path)
    root = tmp_path / "root"
    root.mkdir()
    with h5py.File(root / f"a.{suffix}", "w") as file:
        point(file, other, raw)
        for name, value in SAMPLING.items():
            file[name] = value
    with h5py.File(root / f"a.{suffix}") as file:
        assert np.isfinite(file["csi"][()]).all()  # the library itself does read it
    with pytest.raises(DataError, match="is stored in another file"):
        read_under(root, f"a.{suffix}")


def test_a_small_file_that_unpacks_to_a_large_one_is_refused_first(tmp_path, monkeypatch):
    huge = 10**6, 10**5
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("csi", huge, "f4", chunks=(1000, 1000))
    store = zarr.open_group(tmp_path / "a.zarr", mode="w")
    store.create_array("csi", shape=huge, dtype="f4", chunks=(1000, 1000), dimension_names=["a", "b"])
    for name in ("a.h5", "a.zarr"):
        with pytest.raises(DataError, match=f"take {4 * 10**11} bytes"):
            read_under(tmp_path, name)
    monkeypatch.setattr(arrays, "MOST_UNPACKED", 100_000)
    csi = np.zeros((*SHAPE, 50), np.complex64)
    np.savez_compressed(tmp_path / "a.npz", csi=csi, **SAMPLING)
    savemat(tmp_path / "a.mat", {"csi": csi}, do_compression=True)
    for name in ("a.npz", "a.mat"):
        assert (tmp_path / name).stat().st_size < 3000
        with pytest.raises(DataError, match="split it into parts"):
            read_under(tmp_path, name)


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "a.npz")
    (tmp_path / "b.npz").mkdir()
    (tmp_path / "c.zarr").write_bytes(b"")
    for name in ("a.npz", "b.npz", "c.zarr"):
        with pytest.raises(UserError, match=r"no such file|not a regular file"):
            read_under(tmp_path, name)


def test_a_large_root_is_not_walked_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "LOOKED_INTO", 3)
    for name in "abcd":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.npz").write_bytes(b"")
    with pytest.raises(UserError, match=re.escape("holds a/x.npz, b/x.npz") + "$"):
        read_under(tmp_path, "nowhere.npz")


def test_numbers_are_numbers(tmp_path):
    text = np.full(SHAPE, "x")
    np.savez(tmp_path / "a.npz", csi_real=text, csi_imag=text, **SAMPLING)
    np.savez(tmp_path / "b.npz", taps=text, sample_rate_hz=1e6, **SAMPLING)
    for name in ("a.npz", "b.npz"):
        with pytest.raises(DataError, match=r"expected (complex )?numbers"):
            channel_from_file(tmp_path / name)
