"""``readout receipt``: JSON-LD that expands without a network and says what the file of shares says."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urljoin

import polars as pl
import pytest

from .logged import COLUMNS, logged

NEEDED = (
    "batch_id", "batch_size", "batch_total_wh", "this_request_share_wh", "attribution_method", "shapley_sample_count",
    "shapley_std_error_wh", "energy_model", "tier", "cold_start_share_wh", "energy_wh", "carbon_g", "grid_g_per_kwh",
    "pue", "components", "seed",
)  # fmt: skip
FULL = {
    "logs.columns": {"time": "at", "unit": "user", "arm": "arm", "request": "id"},
    "attribution": {
        "columns": {**COLUMNS, "measured_wh": "meter"},
        "carbon": {"column": "grid"},
        "cold_start": {"column": "load", "requests": 7, "by": "failed"},
    },
}


def frame(world) -> pl.DataFrame:
    row = pl.int_range(pl.len())
    return logged(world).with_columns(
        id=pl.concat_str(pl.lit("r/"), row), grid=100.0 + row, meter=0.5 + 0.01 * pl.col("batch"),
        load=pl.when(row % 50 == 3).then(2.0),
    )  # fmt: skip


def receipt(world, request: str, *arguments: object) -> Any:
    return world.command("receipt", world.folder / "spec.yaml", request, "--quiet", *arguments)


def test_a_receipt_has_every_key_and_the_numbers_of_the_file(world):
    world.write(frame(world), FULL)
    assert world.command("attribute", world.folder / "spec.yaml", "--out", world.out, "--quiet").code == 0
    rows = pl.read_parquet(world.out / "probe" / "attribution" / "shares.parquet")
    for place in (3, 5, 120, 239):
        found = receipt(world, f"r/{place}").json
        assert [key for key in NEEDED if key not in found] == []
        row = rows.row(place, named=True)
        for key in ("batch_total_wh", "this_request_share_wh", "cold_start_share_wh", "energy_wh", "carbon_g", "pue",
                    "grid_g_per_kwh", "batch_id", "batch_size", "attribution_method", "tier", "calibration_factor",
                    "leave_one_out_wh", "mean_active_requests", "arm", "request_id"):  # fmt: skip
            expected = row[key] if isinstance(row[key], str) else pytest.approx(row[key], rel=1e-8)
            assert found[key] == expected, key
        assert found["components"] == pytest.approx(row["components"], rel=1e-8)
        assert sum(found["components"].values()) == pytest.approx(found["this_request_share_wh"], rel=1e-8)
        assert found["energy_model"]["name"] == row["energy_model"]
        assert found["energy_model"]["sha256"] == row["energy_model_sha256"]
        assert found["shapley_sample_count"] is None
    assert receipt(world, "r/3").json["cold_start_share_wh"] > 0


def test_it_expands_offline_and_no_key_is_lost(world):
    from pyld import jsonld

    world.write(frame(world), FULL)
    document = receipt(world, "r/3").json

    def refuse(url: str, options: Any) -> Any:
        raise AssertionError(f"asked the network for {url}")

    (node,) = jsonld.expand(document, {"documentLoader": refuse})
    prov, own = "http://www.w3.org/ns/prov#", "urn:policy-readout:terms:"
    assert node["@type"] == [f"{prov}Entity", f"{own}EnergyReceipt"]
    assert node[f"{own}this_request_share_wh"][0]["@value"] == document["this_request_share_wh"]
    assert {v["@index"]: v["@value"] for v in node[f"{own}components"]} == document["components"]
    (batch,) = node[f"{prov}wasDerivedFrom"]
    assert batch["@type"] == [f"{prov}Entity", f"{own}Batch"]
    (activity,) = node[f"{prov}wasGeneratedBy"]
    assert f"{prov}Activity" in activity["@type"]
    assert activity[f"{prov}wasAssociatedWith"][0]["@type"] == [f"{prov}Agent", f"{prov}SoftwareAgent"]
    expanded = json.dumps(node)

    def names(value: Any, inside: str = "") -> set[str]:
        if not isinstance(value, dict):
            return set() if not isinstance(value, list) else set().union(*(names(v, inside) for v in value))
        mine = set() if inside == "components" else {k for k, v in value.items() if k[0] != "@" and v is not None}
        return mine.union(*(names(v, k) for k, v in value.items() if k != "@context"))

    lost = [k for k in sorted(names(document)) if f"{own}{k}" not in expanded and f"{prov}{k}" not in expanded]
    assert lost == []


def test_it_is_written_where_the_lineage_url_points_to(world):
    world.write(frame(world), FULL)
    spec = world.folder / "spec.yaml"
    world.command("attribute", spec, "--out", world.out, "--quiet")
    shares = world.out / "probe" / "attribution" / "shares.parquet"
    url = pl.read_parquet(shares)["lineage_url"][5]
    printed = receipt(world, "r/5", "--out", world.out)
    path = urljoin(shares.as_uri(), url).removeprefix("file://")
    with open(path, encoding="utf-8") as file:
        assert file.read() == printed.out
    assert receipt(world, "r/5").out == printed.out


def test_without_carbon_or_loads(world):
    changes = {
        "logs.columns": FULL["logs.columns"],
        "attribution": {"columns": COLUMNS},
        "design": None,
        "metrics": None,
    }
    world.write(frame(world), changes)
    found = receipt(world, "r/5").json
    assert (found["carbon_g"], found["grid_g_per_kwh"], found["sci"], found["tier"]) == (None, None, None, 2)
    assert (found["cold_start_share_wh"], found["calibration_factor"]) == (0, None)


@pytest.mark.parametrize(
    ("request_id", "change", "code", "said"),
    [
        ("r/999", None, 2, "r/999: no row of the log has this id in the column 'id'\n  hint: ids look like 'r/0', "),
        ("r/7", pl.col("id").replace("r/9", "r/7"), 3, "r/7: 2 rows of the log have this id (rows 7, 9 from 0)"),
        ("r/7", "batch", 3, "r/7: has no share of energy: no batch"),
        ("r/7", "prompt", 3, "r/7: has no share of energy: no token count"),
    ],
)
def test_what_cannot_be_told_is_told_in_words(world, request_id, change, code, said):
    log = frame(world)
    if isinstance(change, str):
        log = log.with_columns(pl.when(pl.col("id") == "r/7").then(None).otherwise(change).alias(change))
    elif change is not None:
        log = log.with_columns(id=change)
    world.write(log, FULL)
    outcome = receipt(world, request_id, "--out", world.out)
    assert (outcome.code, outcome.out, world.out.exists()) == (code, "", False)
    assert said in outcome.err


def test_a_log_without_ids_has_no_receipts(world):
    world.write(logged(world), {"attribution": {"columns": COLUMNS}})
    outcome = receipt(world, "r-1")
    assert outcome.code == 2
    assert "logs.columns.request: a receipt needs the column of the requests' ids" in outcome.err


def test_ids_of_numbers_are_found_by_their_label(world):
    world.write(frame(world).with_columns(id=pl.int_range(pl.len()).cast(pl.Float64)), FULL)
    assert receipt(world, "17").json["request_id"] == 17
