"""The benchmark for GPUs, on the CPU and at tiny sizes."""

import json
import time
from itertools import islice

import pytest
import torch
import transformers

from benchmarks import gpu, large, mib_official
from benchmarks.setting import fixed_search
from circuitfind.engine.incremental import IncrementalEngine


def test_the_gpu_benchmark_writes_a_table_of_every_part(tmp_path):
    gpu.main([str(tmp_path), "--device", "cpu", "--tiny"])
    found = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert "Not finished" not in found, found["Not finished"]
    equal = found["Equality with the CPU"]
    assert all(row["largest difference"] == 0 and not row["decided otherwise"] for row in equal)
    assert any(row["largest"] > 0 for row in equal)
    assert [row["metric"] for row in found["Searches"]] == ["kl", "logit-difference"] * 2
    for row in found["Searches"]:
        done, total = row["edges decided"].split(" of ")
        assert done == total
        assert row["drift"] < 1e-5
    assert [row["what"].split(",")[0] for row in found["Attribution"]] == [
        "plain pass", "eap", "eap-ig"
    ] * 2  # fmt: skip
    assert found["The same search on the CPU beside the GPU"][0]["CPU / GPU"] > 0
    table = (tmp_path / "gpu.md").read_text()
    assert all(f"{title}:" in table for title in found)


def test_what_was_measured_stays_where_a_part_fails_or_its_time_is_up(tmp_path):
    report = gpu.Report(tmp_path, {"device": "cpu"})

    def measured(setting, report):
        report.add("Rows", {"what": "first"})
        if setting.tiny:
            raise RuntimeError("no memory is left")
        time.sleep(60)

    gpu.run_part("slow", measured, gpu.Setting("cpu"), report, seconds=0.05)
    gpu.run_part("failing", measured, gpu.Setting("cpu", tiny=True), report, seconds=5)
    gpu.run_part("late", measured, gpu.Setting("cpu"), report, seconds=0)
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert len(parts["Rows"]) == 2
    assert [row["part"] for row in parts["Not finished"]] == ["slow", "failing", "late"]
    assert "no memory is left" in (tmp_path / "gpu.md").read_text()


def test_a_search_that_is_cut_off_says_how_far_it_got(monkeypatch):
    def cut_off(engine):
        yield from islice(fixed_search(engine), 3)
        raise gpu.TimeUpError

    monkeypatch.setattr(gpu, "fixed_search", cut_off)
    engine = IncrementalEngine(gpu.Setting("cpu", tiny=True).gpt2()[1])
    found, curve = gpu.timed_search(engine)
    steps = list(islice(fixed_search(engine), 3))
    assert found["edges decided"] == f"{steps[-1].done} of {engine.graph.n_edges}"
    assert found["tested"] == curve[-1][0] == sum(len(step.decisions) for step in steps)
    assert found["drift"] == "not finished"


def test_the_benchmark_of_a_large_model_states_what_each_step_holds(tmp_path):
    widths = large.WIDTHS | {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1_000}
    large.write_model(tmp_path, widths | heads)
    rows = large.searched(tmp_path, n_prompts=2, share=0.2)
    assert [row["step"].partition(":")[0] for row in rows] == [
        "circuitfind imported", "model loaded and checked", "eap", "hybrid", "scorecard"
    ]  # fmt: skip
    assert all(0 < row["held"] <= row["peak"] for row in rows)
    assert large.table(rows).count("\n") == len(rows) + 1


def test_the_comparison_with_the_code_of_mib_says_what_is_missing(tmp_path, capsys):
    assert mib_official.main([str(tmp_path), "--python", "python"]) == 0
    assert capsys.readouterr().out == f"skipped: there is no {tmp_path / 'MIB_circuit_track'}\n"
    assert mib_official.main([]) == 0
    assert capsys.readouterr().out == "skipped: there is no other Python (--python)\n"


def test_both_sides_of_the_comparison_with_mib_are_given_the_same(tmp_path, capsys):
    found = mib_official.measured(tmp_path, mib_official.SHAPES["llama"])
    prompts = json.loads((tmp_path / "prompts.json").read_text())
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    with torch.no_grad():
        logits = model(torch.tensor(prompts["clean"])).logits[:, -1]
    right, wrong = torch.tensor(prompts["answers"]).T
    rows = torch.arange(len(logits))
    assert found.full == pytest.approx(float((logits[rows, right] - logits[rows, wrong]).mean()))
    theirs = {"f": [p.faithfulness for p in found.signed.points], "cpr": 0, "cmd": found.signed.cmd}
    assert mib_official.distance(found.signed, theirs) == pytest.approx(abs(found.signed.cpr))
    assert len(json.loads((tmp_path / "importances.json").read_text())["edges"]) == found.n_edges
