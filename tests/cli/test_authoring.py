from __future__ import annotations

import json

import pytest


def test_init_prints_a_starter_and_writes_it_where_asked(readout_command, tmp_path):
    printed = readout_command("init", "--design", "switchback")
    assert printed.code == 0
    assert "kind: switchback" in printed.out
    written = readout_command("init", "--design", "switchback", "--out", tmp_path / "exp.yaml")
    assert written.code == 0
    assert (tmp_path / "exp.yaml").read_text(encoding="utf-8") == printed.out


def test_init_overwrites_only_with_force(readout_command, tmp_path):
    mine = tmp_path / "exp.yaml"
    mine.write_text("mine\n", encoding="utf-8")
    refused = readout_command("init", "--out", mine)
    assert refused.code == 2
    assert "--force overwrites it" in refused.err
    assert mine.read_text(encoding="utf-8") == "mine\n"
    assert readout_command("init", "--out", mine, "--force").code == 0
    assert "version: 1" in mine.read_text(encoding="utf-8")


def test_init_into_a_folder_that_is_not_there(readout_command, tmp_path):
    refused = readout_command("init", "--out", tmp_path / "none" / "exp.yaml")
    assert refused.code == 2
    assert "there is no folder" in refused.err


def test_init_names_the_nearest_design(readout_command):
    refused = readout_command("init", "--design", "switchbak")
    assert refused.code == 2
    assert "switchback" in refused.err


def test_schema_is_json_schema(readout_command):
    printed = readout_command("schema")
    assert printed.code == 0
    assert {"logs", "design", "metrics"} <= set(json.loads(printed.out)["properties"])


def test_simulate_passes_its_options_on_and_says_what_is_next(readout_command, monkeypatch, tmp_path):
    called = {}

    def fake(world, out, **options):
        called.update(options, world=world, out=out)
        return out / "spec.yaml"

    monkeypatch.setattr("readout.simulate.simulate", fake, raising=False)
    outcome = readout_command(
        "simulate", "router_rct", "--out", tmp_path, "--seed", "5", "--days", "2.5", "--requests", "20_000",
        "--trace", "azure.csv",
    )  # fmt: skip
    assert outcome.code == 0
    assert (called["world"], called["out"], called["seed"]) == ("router_rct", tmp_path, 5)
    assert (called["days"], called["requests"], called["trace"].name) == (2.5, 20_000, "azure.csv")
    assert f"next: readout run {tmp_path / 'spec.yaml'}" in outcome.err


@pytest.mark.parametrize("argument", ["router_switchbak", "nothing"])
def test_simulate_refuses_an_unknown_world(readout_command, tmp_path, argument):
    refused = readout_command("simulate", argument, "--out", tmp_path / "logs")
    assert refused.code == 2
    assert "router_switchback" in refused.err
    assert not (tmp_path / "logs").exists()
