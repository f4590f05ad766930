from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from recsparse import _native
from recsparse.bench import gpu_check

ROOT = Path(__file__).resolve().parent.parent


def test_without_a_gpu_one_line_and_status_2(tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    done = subprocess.run(
        [str(ROOT / "bench/gpu_check.sh")],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "OUT": str(tmp_path / "out")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert (done.stdout + done.stderr).splitlines() == ["gpu_check: no NVIDIA GPU: `nvidia-smi -L` fails"]


def test_summary_collects_the_stages(tmp_path: Path) -> None:
    (tmp_path / "stages.tsv").write_text("build\tpassed\t60\nceilings\tpassed\t9\nsanitizer\tskipped\t1\n")
    (tmp_path / "build.log").write_text("{not json\nok\n")
    (tmp_path / "ceilings.log").write_text('noise\n{"ok": true, "bytes_per_s": {"copy (torch)": 4.25e12}}\n')
    (tmp_path / "sanitizer.log").write_text("")
    row = {"op": "lookup", "shown": "rows=9", "p50_us": 2.0, "pct_ceiling": 50.0, "correct": True, "note": ""}
    bench = [row | {"provider": "recsparse", "units_per_s": 3.0}, row | {"provider": "torch", "units_per_s": 2.0}]
    bench += [row | {"provider": "x", "units_per_s": None, "correct": False, "note": "failed: OOM"}]
    (tmp_path / "bench-lookup.json").write_text(json.dumps(bench))
    assert gpu_check.write_summary(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [stage["result"] for stage in summary["stages"]][0::2] == [{}, {}]
    assert summary["stages"][1]["result"]["bytes_per_s"] == {"copy (torch)": 4.25e12}
    text = (tmp_path / "summary.md").read_text()
    assert "| copy (torch) | 4250 |" in text
    assert "| sanitizer | skipped | 1 |" in text
    assert "| lookup | rows=9 | recsparse | 2.0 | 50 % | 1.50x |" in text
    assert "| lookup | rows=9 | x | failed: OOM | | |" in text
    assert summary["bench"] == bench
    (tmp_path / "stages.tsv").write_text("build\tfailed\t60\n")
    assert not gpu_check.write_summary(tmp_path)


@pytest.mark.gpu
def test_launches_follow_torchs_current_stream() -> None:
    _native.load()
    result = gpu_check.stage_stream()
    assert result["ok"], result


@pytest.mark.gpu
def test_probes_are_exact_on_odd_sizes() -> None:
    _native.load()
    assert gpu_check.stage_smoke()["ok"]
