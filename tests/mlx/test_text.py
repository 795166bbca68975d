"""Tokens into text, and conversations into prompts."""

from pathlib import Path

import pytest
from mlx_lm.tokenizer_utils import load as load_tokenizer
from tokenizers import Tokenizer, decoders, models

from adapters.mlx import prompt
from adapters.mlx.detokenizer import Vocabulary
from domain.chat import ChatCommand, Message, TextCommand, ToolCall
from domain.errors import InvalidRequest
from domain.models import ModelId
from tests.mlx.conftest import Load
from tests.tiny import CHATML, make_model

MODEL = ModelId.parse("m")
TEXT = "Grüße 👩‍🚀 aus Köln, 東京 und नमस्ते!"


def chat(*messages: Message, **options: object) -> ChatCommand:
    return ChatCommand(MODEL, messages, **options)  # type: ignore[arg-type]


def rendered(folder: Path, command: ChatCommand) -> str:
    tokenizer = load_tokenizer(folder)
    text: str = tokenizer.decode(prompt.read(tokenizer, command).tokens)
    return text


def test_characters_are_never_split(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    detokenizer = Vocabulary(tokenizer).detokenizer(starts_turn=True)
    tokens = tokenizer.encode(TEXT)
    assert len(tokens) == len(TEXT.encode())  # a token a byte: every character is split
    parts = [detokenizer.add(token) for token in tokens]
    assert "".join(parts) + detokenizer.finish() == TEXT
    assert all("\ufffd" not in part and len(part) <= 1 for part in parts)


def test_an_unfinished_character_at_the_end_is_dropped(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    detokenizer = Vocabulary(tokenizer).detokenizer(starts_turn=True)
    parts = [detokenizer.add(token) for token in tokenizer.encode("aü")[:-1]]
    assert "".join(parts) + detokenizer.finish() == "a"


def test_a_leading_space_is_kept(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    detokenizer = Vocabulary(tokenizer).detokenizer(starts_turn=False)
    assert "".join(detokenizer.add(token) for token in tokenizer.encode(" a b")) == " a b"


@pytest.mark.parametrize(("starts_turn", "text"), [(True, "Grüße x"), (False, " Grüße x")])
def test_sentencepiece_tokens(tmp_path: Path, starts_turn: bool, text: str) -> None:
    folder = make_model(tmp_path / "m")
    words = ["<unk>", "▁Gr", "<0xC3>", "<0xBC>", "ße", "▁x"]
    tokenizer = Tokenizer(models.BPE({word: n for n, word in enumerate(words)}, []))
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    detokenizer = Vocabulary(load_tokenizer(folder)).detokenizer(starts_turn=starts_turn)
    assert "".join(detokenizer.add(token) for token in [1, 2, 3, 4, 5]) == text


def test_the_template_renders_the_conversation(tiny_model: Path) -> None:
    text = rendered(tiny_model, chat(Message.system("Be kind."), Message.user("Hi")))
    assert text == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


STRICT = (
    "{% for message in messages %}{% if message.role == 'system' %}"
    "{{ raise_exception('no system role') }}{% endif %}"
    "{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "[{{ message.role }}] {{ message.content }}\n{% endfor %}"
)


def test_strict_templates_get_what_they_can_take(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m", template=STRICT)
    messages = [Message.system("Be kind."), Message.user("Hi"), Message.user("you")]
    assert rendered(folder, chat(*messages)) == "[user] Be kind.\n\nHi\n\nyou\n"
    later = [Message.user("Hi"), Message.assistant("Yes?"), Message.system("S"), Message.user("x")]
    assert rendered(folder, chat(*later)) == "[user] S\n\nHi\n[assistant] Yes?\n[user] x\n"


EACH_CALL = "{% for m in messages %}{% for c in m.tool_calls %}CALL{% endfor %}{% endfor %}."
OBJECTS = EACH_CALL.replace("CALL", "{{ c.function.arguments.a }}")
STRINGS = EACH_CALL.replace("CALL", "{{ 'x' + c.function.arguments }}")


@pytest.mark.parametrize(("template", "text"), [(OBJECTS, "1."), (STRINGS, 'x{"a": 1}.')])
def test_arguments_come_as_the_template_wants_them(
    tmp_path: Path, template: str, text: str
) -> None:
    folder = make_model(tmp_path / "m", template=template)
    call = ToolCall("c", "f", '{"a": 1}')
    assert rendered(folder, chat(Message("assistant", tool_calls=(call,)))) == text


def test_arguments_too_deep_for_a_template_stay_text(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m", template=EACH_CALL.replace("CALL", "{{ c | tojson }}"))
    deep = '{"a":' * 600 + "1" + "}" * 600
    for text in (deep, deep[: len(deep) // 2]):
        said = rendered(folder, chat(Message("assistant", tool_calls=(ToolCall("c", "f", text),))))
        assert said.count("a") >= 300


NINE = (
    "{% for m in messages %}{% for c in m.tool_calls %}{% if c.id | length != 9 %}"
    "{{ raise_exception('ids have nine letters') }}{% endif %}{{ c.id }} {% endfor %}"
    "{% if m.role == 'tool' %}{{ m.tool_call_id }}{% endif %}{% endfor %}"
)


def test_ids_are_short_where_they_must_be(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m", template=NINE)
    calls = tuple(ToolCall(f"call_of_a_long_name_{n}", "f", "{}") for n in range(2))
    turns = [Message("assistant", tool_calls=calls), Message("tool", answers=calls[1].id)]
    assert rendered(folder, chat(*turns)) == "call00000 call00001 call00001"


def test_a_template_that_refuses_everything_is_the_requests_fault(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m", template="{{ raise_exception('never') }}")
    with pytest.raises(InvalidRequest, match="never"):
        rendered(folder, chat(Message.user("x")))


def test_without_a_template_there_is_no_chat(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m", template=None)
    with pytest.raises(InvalidRequest, match="no chat template"):
        rendered(folder, chat(Message.user("x")))


def test_template_options_are_from_an_allow_list(tiny_model: Path) -> None:
    with pytest.raises(InvalidRequest, match="messages") as caught:
        rendered(tiny_model, chat(Message.user("x"), template_options={"messages": []}))
    assert caught.value.param == "chat_template_kwargs"


def test_a_template_that_opens_the_thoughts_is_noticed(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m", template=CHATML + "<think>\n")
    tokenizer = load_tokenizer(folder)
    tokenizer._think_start = "<think>"
    assert prompt.read(tokenizer, chat(Message.user("x"))).opens_thinking


def test_text_prompts(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    assert prompt.read(tokenizer, TextCommand(MODEL, (5, 6))).tokens == [5, 6]
    assert prompt.read(tokenizer, TextCommand(MODEL, "")).tokens == [tokenizer.eos_token_id]
    with pytest.raises(InvalidRequest, match="vocabulary"):
        prompt.read(tokenizer, TextCommand(MODEL, (5, 100_000)))


async def test_a_hostile_template_fails_its_request_and_not_the_engine(
    load: Load, tmp_path: Path
) -> None:
    engine = await load(make_model(tmp_path / "m", template="{{ 1 / 0 }}"))
    with pytest.raises(InvalidRequest):
        async for _ in engine.generate(chat(Message.user("x"))):
            pass
    assert engine.alive
    text = [output async for output in engine.generate(TextCommand(MODEL, "x"))]
    assert text
