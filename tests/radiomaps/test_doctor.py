import pytest

from geoml.errors import UserError
from geoml.runs import environment
from radiomaps.raytrace import doctor


@pytest.mark.parametrize(
    ("files", "versions"),
    [
        ([], []),
        (["libLLVM-15.so", "libLLVM-15.so.1"], [15]),
        (["libLLVM-14.0.6.so.1", "libLLVM.so.19.1"], [14, 19]),
        (["libLLVM-20.so", "libLLVMOther.so", "libLLVM.so"], [20]),
    ],
)
def test_versions_are_read_from_the_names(tmp_path, monkeypatch, files, versions):
    monkeypatch.delenv("DRJIT_LIBLLVM_PATH", raising=False)
    for name in files:
        (tmp_path / name).touch()
    assert doctor.llvm_versions([str(tmp_path)]) == versions
    if files:
        monkeypatch.setenv("DRJIT_LIBLLVM_PATH", str(tmp_path / files[0]))
        assert doctor.llvm_versions([]) != []


def test_old_libraries_are_not_enough_without_a_gpu(monkeypatch):
    monkeypatch.setattr(environment, "gpus", list)
    monkeypatch.setattr(doctor, "llvm_versions", lambda: [15, 16])
    (finding,) = doctor.checks(frozenset())
    assert (finding.status, finding.remedy) == ("missing", doctor.INSTALL)
    monkeypatch.setattr(environment, "gpus", lambda: ["a card"])
    assert next(iter(doctor.checks(frozenset()))).status == "ok"
    monkeypatch.setattr(doctor, "llvm_versions", lambda: [15, 19])
    assert next(iter(doctor.checks(frozenset()))).detail == "15, 19"


def test_a_failed_proof_is_a_finding(monkeypatch):
    def fails():
        raise UserError("Cannot select: f32 = fmaximum")

    monkeypatch.setattr(doctor, "prove", fails)
    findings = {finding.name: finding for finding in doctor.checks(frozenset({"raytracing"}))}
    assert findings["raytracing"].status == "missing"
    assert "fmaximum" in findings["raytracing"].detail
