"""`portico bench`, as it is typed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner, Result

from adapters.bench.scenarios import SCENARIOS
from adapters.cli.main import app
from adapters.cli.measure import BenchScenario
from tests.adapters.bench.server import BadServer

QUICK = ("--concurrency", "1,2", "--output-tokens", "3", "--prompt-tokens", "20")


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["bench", *arguments], env={"COLUMNS": "120"})


def test_every_scenario_has_its_name() -> None:
    assert set(get_args(BenchScenario)) == set(SCENARIOS)


def test_a_table(server: BadServer) -> None:
    said = bench("--url", server.url, *QUICK, "--seed", "5")
    assert said.exit_code == 0, said.output
    for text in ("1 stream", "2 streams", "output tokens/s", "first token, p99", "Seed 5"):
        assert text in said.output
    # Two that count tokens, a warm-up at each width, four for each stream.
    assert len(server.bodies()) == 2 + 3 + 12


def test_json_alone_on_stdout(server: BadServer) -> None:
    flags = ("--against", f"other={server.url}#steady", "--json", "-", "--rounds", "2")
    said = bench("--url", f"ours={server.url}", *QUICK, *flags)
    assert said.exit_code == 0, said.output
    told = json.loads(said.stdout)
    assert "ours / other" in said.stderr
    assert [one["model"] for one in told["servers"]] == ["fast", "steady"]
    one, two = told["stages"]
    assert (one["name"], two["name"]) == ("1 stream", "2 streams")
    figures = two["figures"]["ours"]
    assert (figures["replies"], figures["output_tokens"], figures["failures"]) == (16, 48, {})
    assert figures["cached_tokens"] == 16 * 4
    assert figures["prompt_tokens"] == 16 * (10 + 2 * 10)  # 20 tokens are ten words there
    assert len(two["rounds"]["other"]) == 2
    # `steady` waits 0.1 s and then 0.02 s twice; `fast` doesn't.
    slow = two["figures"]["other"]
    assert slow["first_token"]["median"] >= 0.09
    assert 1 < two["ratios"]["other"]["output_rate"]["lowest"]
    assert two["ratios"]["other"]["first_token_median"]["pooled"] < 1
    assert told["settings"]["tokens_per_word"] == 2.0


def test_failures_end_with_one_unless_allowed(server: BadServer) -> None:
    said = bench("--url", server.url, "-m", "fails_amid", *QUICK)
    assert said.exit_code == 1
    assert "Failed: " in said.output
    assert "12 x error event (The engine died.)" in said.output
    assert bench("--url", server.url, "-m", "fails_amid", *QUICK, "--allow-errors").exit_code == 0


def test_guessed_tokens_are_told(server: BadServer) -> None:
    said = bench("--url", server.url, "-m", "uncounted", *QUICK)
    assert said.exit_code == 0
    assert "12 replies had no usage" in said.output


def test_answers_of_other_lengths_are_told(server: BadServer) -> None:
    pair = ("--url", f"a={server.url}", "--rounds", "1", *QUICK, "--against")
    said = bench(*pair, f"b={server.url}#brief")
    assert "don't compare tokens/s (1 stream: 3.0 and 2.0 tokens an answer)" in said.output
    assert "don't compare" not in bench(*pair, f"b={server.url}").output


@pytest.mark.parametrize(
    ("scenario", "stages"),
    [
        ("shared-prefix", ["2 streams"]),
        ("multi-turn", ["turn 1", "turn 2"]),
        (
            "long-among-streams",
            ["2 streams", "2 streams, disturbed", "2 streams, long prompt"],
        ),
        ("mixed-sampling", ["2 streams, greedy", "2 streams, mixed"]),
    ],
)
def test_every_scenario(
    server: BadServer, tmp_path: Path, scenario: str, stages: list[str]
) -> None:
    file = tmp_path / "figures.json"
    flags = (*QUICK, "--concurrency", "2", "--json", str(file), "--no-warm-up")
    said = bench(scenario, "--url", server.url, *flags)
    assert said.exit_code == 0, said.output
    told = json.loads(file.read_text())
    assert [stage["name"] for stage in told["stages"]] == stages
    assert "portico=" not in said.output


def test_the_command_between_turns(server: BadServer, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    program = f"import os; open({str(mark)!r}, 'a').write(os.environ['BENCH_URL'])"
    command = f'{sys.executable} -c "{program}"'
    flags = ("--url", server.url, "--output-tokens", "2", "--between-turns")
    assert bench("multi-turn", *flags, command).exit_code == 0
    assert mark.read_text() == f"{server.url}/v1"
    failed = bench("multi-turn", *flags, "false")
    assert failed.exit_code == 2
    assert "`false` ended with 1" in failed.output


def test_real_prompts(server: BadServer, tmp_path: Path) -> None:
    plain, lines = tmp_path / "p.txt", tmp_path / "p.jsonl"
    plain.write_text("What is up?\n\nWhat is down?\n")
    lines.write_text('"one\\nprompt"\n')
    for file, expected in ((plain, {"What is up?", "What is down?"}), (lines, {"one\nprompt"})):
        server.asked.clear()
        said = bench("--url", server.url, *QUICK, "--no-warm-up", "--prompt-file", str(file))
        assert said.exit_code == 0, said.output
        texts = {body["messages"][0]["content"] for body in server.bodies()[2:]}
        assert texts == expected


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--concurrency", "1,x"), "1,8,32"),
        (("--concurrency", "0"), "1,8,32"),
        (("--long-tokens", "9"), "--long-tokens would change nothing in throughput"),
        (("--extra", "[]"), "JSON object"),
        (("--extra", "{"), "not JSON"),
        (("--prompt-file", "nowhere"), "--prompt-file"),
        (("--url", "ftp://x"), "not an http"),
        (("--url", "http://127.0.0.1:9"), "lists no model"),
        (("--against", "portico=http://127.0.0.1:9"), "same name"),
        (("nonsense",), "nonsense"),
    ],
)
def test_what_cannot_begin_ends_with_two(flags: tuple[str, ...], why: str) -> None:
    said = bench(*flags)
    assert said.exit_code == 2
    assert why in said.output


def test_the_key_goes_to_its_own_server_and_into_no_file(server: BadServer, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    other = server.url.replace("//", "//theirs@")
    flags = ("--api-key", "ours", "--against", f"b={other}", "--json", str(file), "--rounds", "1")
    said = bench("--url", f"a={server.url}", *QUICK, *flags)
    assert said.exit_code == 0, said.output
    sent = {asked.headers["authorization"] for asked in server.asked}
    assert sent == {"Bearer ours", "Bearer theirs"}
    assert "theirs" not in file.read_text() + said.output


def test_a_plot(server: BadServer, tmp_path: Path) -> None:
    file = tmp_path / "plot.png"
    flags = ("--against", f"other={server.url}", "--rounds", "1", "--plot", str(file))
    assert bench("--url", f"ours={server.url}", *QUICK, *flags).exit_code == 0
    assert file.read_bytes().startswith(b"\x89PNG")
    where = str(tmp_path / "nowhere" / "plot.png")
    assert bench("--url", server.url, *QUICK, "--plot", where).exit_code == 2


def test_without_matplotlib_nothing_begins(
    server: BadServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "adapters.bench.plot", raising=False)
    said = bench("--url", server.url, *QUICK, "--plot", str(tmp_path / "plot.png"))
    assert said.exit_code == 2
    assert "portico-mlx[bench]" in said.output
    assert server.asked == []


def test_matplotlib_is_not_loaded_unless_asked_for() -> None:
    program = (
        "import sys, adapters.cli.bench;"
        "heavy = {'matplotlib', 'mlx', 'transformers', 'fastapi'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", program], check=True, cwd=root)  # noqa: S603
