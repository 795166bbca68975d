"""A draft model from the settings file: the program, its engine in a thread or a process."""

import json
from pathlib import Path

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from adapters.mlx import demo
from adapters.settings import DEMO_MODEL
from tests.e2e.conftest import portico_serve

LISTED: list[dict[str, str]] = json.loads(
    (Path(demo.__file__).parent / "questions.json").read_text("utf-8")
)


def counted(url: str, name: str) -> float:
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics").text)
    samples = [sample for family in families for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == f"portico_{name}")


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_answers_are_those_that_are_listed(tmp_path: Path, isolation: str) -> None:
    (tmp_path / "portico.toml").write_text(
        f'[models."{DEMO_MODEL}"]\n'
        f'draft_model = "{DEMO_MODEL}"\nnum_draft_tokens = 3\nisolation = "{isolation}"\n'
    )
    with portico_serve(tmp_path) as program:
        with openai.OpenAI(base_url=f"{program.url}/v1", api_key="x", max_retries=0) as client:
            for entry in LISTED[:12]:
                answer = client.chat.completions.create(
                    model=DEMO_MODEL,
                    messages=[{"role": "user", "content": entry["question"]}],
                    temperature=0,
                )
                assert answer.choices[0].message.content == entry["answer"]
        drafted = counted(program.url, "spec_decode_num_draft_tokens_total")
        accepted = counted(program.url, "spec_decode_num_accepted_tokens_total")
        assert drafted >= accepted > 0.5 * drafted > 0


def test_a_draft_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "portico.toml").write_text(
        f'[models."{DEMO_MODEL}"]\ndraft_model = "owner/elsewhere"\n'
    )
    with portico_serve(tmp_path) as program:
        body = {"model": DEMO_MODEL, "messages": [{"role": "user", "content": "Hello!"}]}
        answer = httpx.post(f"{program.url}/v1/chat/completions", json=body, timeout=60)
        error = answer.json()["error"]
        assert (answer.status_code, error["type"]) == (400, "invalid_request_error")
        assert "`owner/elsewhere`, the draft model of `portico/demo`" in error["message"]
        assert httpx.get(f"{program.url}/livez").status_code == 200
