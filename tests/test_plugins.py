"""Plug-ins: local files named by `--plugin` or in a sweep file, and an installed package."""

import os
import shutil
import subprocess
import sys
from multiprocessing import forkserver
from pathlib import Path

import pytest

import circuitfind as cf
from circuitfind import plugins
from circuitfind.errors import MetricError, PluginError
from circuitfind.metrics import METRICS
from circuitfind.plugins import VARIABLE, load_named, load_plugin
from tests.cli.conftest import cli  # noqa: F401  (a fixture)
from tests.conftest import forget_plugins
from tests.test_registration import _tables_as_before, installed  # noqa: F401  (fixtures)

ROOT = Path(__file__).parents[1]
CONFIDENCE = ROOT / "examples/confidence.py"
ADDS = "from circuitfind.metrics import METRICS, KL\nfrom dataclasses import replace\n"


def test_a_file_adds_to_the_tables_and_results_name_it(cli):  # noqa: F811
    words = ["discover", "ioi", "--model", "ioi-small", "--prompts", 4, "--threshold", 0.05]
    run = cli(*words, "--metric", "confidence", "--out", "run", "--plugin", CONFIDENCE)
    assert run.code == 0, run.err
    named = cf.load_circuit("run/circuit.json").origin["versions"]["plug-in confidence.py"]
    assert named == f"sha256:{plugins._LOADED['circuitfind_plugin_confidence'].sha256}"
    problem = cf.make_problem(cf.load_model("ioi-small"), "ioi", n_prompts=4, metric="confidence")
    alike = cf.discover(problem, threshold=0.05).circuit
    assert alike.edges == cf.load_circuit("run/circuit.json").edges
    assert cli("evaluate", "run", "--quick", f"--plugin={CONFIDENCE}").code == 0


def test_without_its_plugin_a_run_says_which_one_it_needs(cli, tmp_path):  # noqa: F811
    words = ["discover", "ioi", "--model", "ioi-small", "--prompts", 4, "--method", "random"]
    mine = shutil.copy(CONFIDENCE, tmp_path / "mine.py")
    run = cli(*words, "--edges", 40, "--metric", "confidence", "--out", "run", "--plugin", mine)
    assert run.code == 0, run.err
    forget_plugins()
    missed = cli("evaluate", "run", "--quick")
    assert (missed.code, missed.err.count("\n")) == (2, 1)
    assert missed.err.strip().endswith("made with plug-ins: give --plugin mine.py")
    Path(mine).write_text(CONFIDENCE.read_text() + "\n# another one\n")
    other = cli("evaluate", "run", "--quick", "--plugin", mine)
    assert other.code == 2
    assert "the plug-in mine.py of the circuit in run changed since" in other.err
    again = cli(*words, "--edges", 40, "--metric", "confidence", "--out", "run", "--plugin", mine)
    assert again.code == 2
    assert "the plug-in mine.py of the circuit in run changed since" in again.err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("x = 1\ny = nothing\n", r"cannot be loaded \(line 2: NameError: name 'nothing'"),
        ("def (:\n", r"cannot be loaded \(line 1: SyntaxError: "),
        ("raise SystemExit(3)\n", r"cannot be loaded \(line 1: SystemExit: 3\)"),
        (f"{ADDS}METRICS.add(replace(KL))\n", r"line 3: there is another metric named 'kl'"),
        (f"{ADDS}METRICS.add(1)\n", r"\(line 3: 1 is not a metric; give one\); mend it"),
        ("x = 1\n", "adds nothing; let it call METHODS.add"),
        (b"\xff\xfe\x00", r"cannot be loaded \(SyntaxError|cannot be loaded \(line"),
    ],
)
def test_a_broken_plugin_is_one_clear_line(cli, tmp_path, content, said):  # noqa: F811
    file = tmp_path / "broken.py"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(PluginError, match=said):
        load_plugin(file)
    answer = cli("metrics", "--plugin", file)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)


def test_paths_that_are_no_files_and_two_files_of_one_name_are_refused(cli, tmp_path):  # noqa: F811
    valueless = cli("metrics", "--plugin", "--json")
    assert "--json is an option; give a value before it" in valueless.err
    for path in (tmp_path, tmp_path / "absent.py"):
        with pytest.raises(PluginError, match="cannot read the plug-in .*; give a Python file"):
            load_plugin(path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        text = f"{ADDS}METRICS.add(replace(KL, name='{name}'))\n"
        (tmp_path / name / "mine.py").write_text(text)
    first = load_plugin(tmp_path / "one/mine.py")
    assert first.adds == ("metric one",)
    assert load_plugin(tmp_path / "one/mine.py") is first
    with pytest.raises(PluginError, match="have the same name; rename one of them"):
        load_plugin(tmp_path / "two/mine.py")
    (tmp_path / "one/mine.py").write_text(f"{ADDS}METRICS.add(replace(KL, name='three'))\n")
    with pytest.raises(PluginError, match="was changed after it was loaded; start Python anew"):
        load_plugin(tmp_path / "one/mine.py")
    with pytest.raises(PluginError, match="has a ':'; rename the file"):
        load_plugin(tmp_path / "a:b.py")


def test_a_plugin_that_fails_leaves_nothing_and_can_be_mended(tmp_path):
    file = tmp_path / "with.dots.py"
    file.write_text(f"{ADDS}METRICS.add(replace(KL, name='mended'))\nnothing\n")
    with pytest.raises(PluginError, match="line 4: NameError"):
        load_plugin(file)
    assert METRICS.get("mended") is None
    file.write_text(f"{ADDS}METRICS.add(replace(KL, name='mended'))\n")
    assert load_plugin(file).adds == ("metric mended",)
    assert "circuitfind_plugin_with_dots" in sys.modules


def test_what_a_plugin_prints_is_no_result_and_completion_runs_none(cli, tmp_path):  # noqa: F811
    file = tmp_path / "loud.py"
    file.write_text(f"{ADDS}print('hello')\nMETRICS.add(replace(KL, name='loud'))\n")
    answer = cli("metrics", "--json", "--plugin", file)
    assert "loud" in [row["name"] for row in answer.json]
    assert "hello" in answer.err
    words = f"circuitfind metrics --plugin {file} --js"
    environment = {
        **os.environ, "_CIRCUITFIND_COMPLETE": "complete_bash", "COMP_WORDS": words,
        "COMP_CWORD": "4",
    }  # fmt: skip
    environment.pop(VARIABLE, None)
    code = "import sys; sys.argv[0] = 'circuitfind'; from circuitfind.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["--json"], done.stderr
    assert "hello" not in done.stderr


def test_the_variable_names_plugins_too(monkeypatch):
    monkeypatch.setenv(VARIABLE, str(CONFIDENCE))
    load_named()
    assert METRICS.find("confidence").unit == "probability"


def test_a_sweep_file_names_plugins_and_its_workers_have_them(cli, tmp_path):  # noqa: F811
    shutil.copy(CONFIDENCE, tmp_path / "confidence.py")
    (tmp_path / "sweep.toml").write_text(
        'plugins = ["confidence.py"]\nmodels = ["ioi-small"]\ntasks = ["ioi"]\nprompts = 4\n'
        'metric = "confidence"\n[methods.random]\nedges = [40]\n'
    )
    done = cli("sweep", "sweep.toml", "--workers", 1)
    assert done.code == 0, done.err
    (run,) = Path("sweeps/sweep").rglob("circuit.json")
    assert "plug-in confidence.py" in cf.load_circuit(run).origin["versions"]
    with (tmp_path / "confidence.py").open("a") as file:
        file.write("# another one\n")
    forget_plugins()
    changed = cli("sweep", "sweep.toml", "--workers", 1)
    assert (changed.code, changed.err.count("\n")) == (2, 1)
    assert "the plug-in confidence.py of the run in" in changed.err
    (tmp_path / "sweep.toml").write_text('plugins = ["no.py", 3]\ntasks = ["ioi"]\n')
    wrong = cli("sweep", "sweep.toml")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "cannot read the plug-in" in wrong.err or "plugins" in wrong.err


def test_workers_of_a_search_have_the_plugins(cli):  # noqa: F811
    # As where workers were used before: their server knows no plug-in of later on.
    forkserver.ensure_running()
    words = ["discover", "ioi", "--model", "ioi-small", "--prompts", 4, "--threshold", 0.3]
    words += ["--metric", "confidence", "--plugin", CONFIDENCE]
    assert cli(*words, "--out", "alone").code == 0
    crew = cli(*words, "--workers", 2, "--out", "crew")
    assert crew.code == 0, crew.err
    alone, both = (cf.load_circuit(f"{name}/circuit.json") for name in ("alone", "crew"))
    assert alone.edges == both.edges


def test_the_example_package_is_installed_and_used(cli, tmp_path, monkeypatch):  # noqa: F811
    source, place = tmp_path / "source", tmp_path / "packages"
    shutil.copytree(ROOT / "examples/plugin", source)
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation",
               "--no-index", "--disable-pip-version-check", "--quiet", "--target"]  # fmt: skip
    subprocess.run([*command, place, source], check=True)
    monkeypatch.syspath_prepend(place)
    run = cli(
        "discover", "noun", "--model", "ioi-small", "--prompts", 4, "--metric", "confidence",
        "--method", "loudest", "--edges", 200, "--power", 2, "--out", "run",
    )  # fmt: skip
    assert run.code == 0, run.err
    origin = cf.load_circuit("run/circuit.json").origin
    assert (origin["task"], origin["method"], origin["metric"]) == ("noun", "loudest", "confidence")
    assert origin["versions"]["circuitfind-example"] == "1.0"
    found = {row["what"]: row for row in cli("doctor", "--json").json}
    assert found["method loudest"] == {
        "what": "method loudest", "state": "ok", "found": "of circuitfind-example", "advice": "",
    }  # fmt: skip


CLASH = """
[circuitfind.metrics]
kl = outside_package:CONFIDENCE
confidence = outside_package:CONFIDENCE
"""


def test_names_that_clash_are_said_and_the_packages_own_stays(cli, installed, tmp_path):  # noqa: F811
    installed(CLASH)
    listed = cli("metrics")
    assert listed.code == 0
    assert "warning: outside-package offers the metric 'kl', which is a built-in name" in listed.err
    assert cf.find_metric("kl").unit == "nats"
    checked = cli("doctor")
    assert checked.code == 1
    assert "outside-package offers the metric 'kl'" in checked.out


def test_a_name_that_two_packages_offer_is_refused(cli, installed, tmp_path, monkeypatch):  # noqa: F811
    installed("[circuitfind.metrics]\nconfidence = outside_package:CONFIDENCE\n")
    facts = tmp_path / "other/rival-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[circuitfind.metrics]\nconfidence = rival:X\n")
    monkeypatch.syspath_prepend(tmp_path / "other")
    with pytest.raises(MetricError, match="both offer the metric 'confidence'; uninstall one"):
        cf.find_metric("confidence")
    assert cli("metrics").code == 0
