"""What is derived from verdicts, and link budgets, against closed forms and worked values of the standards."""

import math

import anyio
import numpy as np
import pytest
from mcp import Client

from geoml.errors import UserError
from mcp_experts.channels.synthetic import synthesize
from mcp_experts.inference.design import design
from mcp_experts.inference.link_budget import MODELS, link_budget
from mcp_experts.inference.registry import Registry
from mcp_experts.inference.verdicts import ChannelView, describe
from mcp_experts.serve.server import build_server

REGISTRY = Registry()


def rows_of(**specification):
    verdicts = describe(REGISTRY, ChannelView(synthesize(**specification)))
    return {row["quantity"]: row for row in design({verdict.expert: verdict for verdict in verdicts})}, verdicts


def test_rows_follow_from_the_intervals():
    rows, verdicts = rows_of(delay_spread_s=5e-8, doppler_hz=60, k_factor_db=12, snr_db=25)
    spread, shift = verdicts["delay_spread"].interval_high, verdicts["doppler"].interval_high
    assert rows["cyclic prefix"]["value"] == f"at least {4 * spread * 1e9:.3g} ns"
    assert rows["pilot spacing in time"]["value"] == f"at most {1e3 / (2 * shift):.3g} ms"
    assert rows["numerology"]["value"].startswith("15, 30")
    assert all(row["rule"] and row["source"] for row in rows.values())


def test_an_open_limit_bounds_nothing():
    rows, verdicts = rows_of(delay_spread_s=4e-7, doppler_hz=5, snr_db=25)
    assert verdicts["delay_spread"].interval_high is None
    for name in ("cyclic prefix", "pilot spacing in frequency", "numerology"):
        assert rows[name]["value"] == "not bounded by this channel"


def test_free_space_is_friis_and_noise_is_thermal():
    found = link_budget(1000.0, 2.4e9, bandwidth_hz=1e6, tx_power_dbm=20, noise_figure_db=0)
    assert found["path_loss_db"] == pytest.approx(100.05, abs=0.01)
    assert found["noise_dbm"] == pytest.approx(-113.98, abs=0.01)
    assert found["snr_db"] == pytest.approx(20 - 100.05 + 113.98, abs=0.01)
    # 6 dB are a doubling of the distance.
    one, two = (link_budget(100.0, 2.4e9, needed_snr_db=snr)["range_m"] for snr in (30.0, 30.0 + 20 * math.log10(2)))
    assert one == pytest.approx(2 * two, rel=1e-6)
    assert link_budget(10.0, 2.4e9, needed_snr_db=60.0, tx_power_dbm=-50.0)["range_m"] is None


@pytest.mark.parametrize(
    ("model", "distance", "wanted"),
    [
        # 32.4 + 21 log10(100.36) + 20 log10(3.5); 35.3 log10(100.36) + 22.4 + 21.3 log10(3.5)
        ("umi_los", 100.0, 85.31),
        ("umi_nlos", 100.0, 104.64),
        # 28 + 22 log10(201.38) + 20 log10(3.5); 13.54 + 39.08 log10(201.38) + 20 log10(3.5)
        ("uma_los", 200.0, 89.57),
        ("uma_nlos", 200.0, 114.46),
    ],
)
def test_path_loss_of_the_standard(model, distance, wanted):
    assert link_budget(distance, 3.5e9, model=model)["path_loss_db"] == pytest.approx(wanted, abs=0.05)


@pytest.mark.parametrize("model", MODELS)
def test_loss_grows_without_a_step(model):
    losses = [MODELS[model](float(distance), 3.5e9) for distance in np.geomspace(10, 5000, 400)]
    assert np.all(np.diff(losses) > 0)
    assert np.diff(losses).max() < 0.6


def test_values_out_of_range_are_named():
    for wrong in ({"model": "rma"}, {"distance_m": 0.0}, {"frequency_hz": 1e6}, {"noise_figure_db": math.nan}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            link_budget(**{"distance_m": 100.0, "frequency_hz": 3.5e9} | wrong)


def test_through_a_client(tmp_path):
    link = synthesize(k_factor_db=12, snr_db=25, doppler_hz=100, delay_spread_s=5e-8)
    sampling = {name: getattr(link, name) for name in ("subcarrier_spacing_hz", "snapshot_interval_s")}
    np.savez(tmp_path / "link.npz", csi=link.csi, **sampling)

    async def run():
        async with Client(build_server(registry=REGISTRY, root=tmp_path, toolsets=["design"])) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            derived = await client.call_tool("wireless_design", {"source": "link.npz"})
            asked = {"distance_m": 200, "frequency_hz": 3.5e9, "model": "uma_nlos", "bandwidth_hz": None}
            return names, derived, await client.call_tool("wireless_link_budget", asked)

    names, derived, budget = anyio.run(run)
    assert {"wireless_design", "wireless_link_budget"} <= set(names)
    assert "cyclic prefix at least" in derived.content[0].text
    assert len(derived.structured_content["rows"]) == 5
    assert "By uma_nlos the link has an SNR of" in budget.content[0].text
