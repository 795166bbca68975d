"""Models from strangers: none of their code runs, and none of our files are read for them."""

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters.mlx.files import check
from adapters.mlx.model import load as load_model
from domain.chat import ChatCommand, Message, Sampling, Tool
from domain.errors import DomainError, EngineFailed, InvalidRequest, ModelUnusable
from domain.models import ModelCard, ModelId
from domain.outputs import Piece, no_calls
from tests.mlx.conftest import Load
from tests.tiny import make_model

# The families whose calls mlx-lm reads, each with a marker by which it knows them.
PARSERS = (
    "function_gemma",
    "gemma4",
    "glm47",
    "json_tools",
    "kimi_k2",
    "longcat",
    "minimax_m2",
    "mistral",
    "pythonic",
    "qwen3_coder",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_model(tmp_path / "models" / "stranger", eos=False)


@dataclass(frozen=True)
class Sentinel:
    """A file that is there once something ran that should not have."""

    path: Path

    @property
    def untouched(self) -> bool:
        return not self.path.exists()


@pytest.fixture
def sentinel(tmp_path: Path) -> Sentinel:
    return Sentinel(tmp_path / "sentinel")


class Evil:
    """A pickle that leaves a trace when it is loaded."""

    def __init__(self, sentinel: Sentinel) -> None:
        self._sentinel = sentinel

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return open, (str(self._sentinel.path), "w")


def change(file: Path, **fields: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def card(folder: Path) -> ModelCard:
    return ModelCard(ModelId.parse(folder.name), "", folder, 400_000, 512, 0)


def into_cache(folder: Path, repo: Path) -> Path:
    """The snapshot that a download of the folder would have made."""
    snapshot = repo / "snapshots" / "5c0ffee"
    (repo / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for n, file in enumerate(folder.iterdir()):
        shutil.move(file, repo / "blobs" / str(n))
        (snapshot / file.name).symlink_to(f"../../blobs/{n}")
    return snapshot


async def says(load: Load, folder: Path) -> str:
    engine = await load(folder)
    messages = (Message.user("hi"),)
    command = ChatCommand(
        ModelId.parse(folder.name), messages, Sampling(temperature=0, max_tokens=2)
    )
    return "".join([o.text async for o in engine.generate(command) if isinstance(o, Piece)])


async def test_pickles_and_programs_beside_the_weights_are_not_touched(
    load: Load, folder: Path, sentinel: Sentinel
) -> None:
    poison = pickle.dumps(Evil(sentinel))
    for name in ("pytorch_model.bin", "model.pt", "model.pkl", "weights.npz", "adapters.npz"):
        (folder / name).write_bytes(poison)
    for name in ("model.py", "modeling_x.py", "tokenization_x.py", "__init__.py", "conftest.py"):
        (folder / name).write_text(f"open({str(sentinel.path)!r}, 'w')")
    (folder / "model.gguf").write_bytes(b"GGUF" + b"\xff" * 100)
    assert await says(load, folder) is not None
    assert sentinel.untouched
    (folder / "model.safetensors").unlink()
    with pytest.raises(EngineFailed):
        await load(folder)
    assert sentinel.untouched


@pytest.mark.parametrize(
    ("file", "fields"),
    [
        ("config.json", {"model_file": "evil.py"}),
        ("config.json", {"model_file": ""}),
        ("config.json", {"model_file": None}),
        ("config.json", {"model_type": "evil"}),
        ("config.json", {"model_type": "../evil"}),
        ("config.json", {"model_type": "..evil"}),
        ("config.json", {"auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.T", None]}}),
        ("tokenizer_config.json", {"tokenizer_class": "evil.T"}),
        ("tokenizer_config.json", {"tool_parser_type": "../../evil"}),
        ("tokenizer_config.json", {"chat_template_type": "evil"}),
        ("tokenizer_config.json", {"trust_remote_code": True, "tokenizer_class": "evil"}),
    ],
)
async def test_no_setting_of_a_model_makes_its_code_run(
    load: Load,
    folder: Path,
    sentinel: Sentinel,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    fields: dict[str, object],
) -> None:
    (folder / "evil.py").write_text(f"open({str(sentinel.path)!r}, 'w')\nclass T: pass\n")
    monkeypatch.chdir(folder)  # where an import would look first
    change(folder / file, **fields)
    try:
        await load(folder)
    except EngineFailed:
        pass
    assert sentinel.untouched
    if "model_file" in fields:
        with pytest.raises(ModelUnusable, match="never runs code"):
            check(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "chat_template.jinja"])
async def test_a_link_out_of_the_folder_is_refused(
    load: Load, folder: Path, tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "secret"
    shutil.copy(folder / name, outside) if (folder / name).exists() else outside.write_text("x")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(outside)
    with pytest.raises(ModelUnusable, match="leads out of it"):
        await load(folder)
    (folder / name).unlink()
    (folder / name).symlink_to(Path("..", "..", outside.name))
    with pytest.raises(ModelUnusable, match="leads out of it"):
        await load(folder)


def test_links_of_folders_and_of_links_are_followed_to_their_end(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (folder / "sub").mkdir()
    (folder / "sub" / "deep").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelUnusable, match="deep"):
        check(folder)
    (folder / "sub" / "deep").unlink()
    (folder / "hop").symlink_to("sub/hop")
    (folder / "sub" / "hop").symlink_to(tmp_path / "models")
    with pytest.raises(ModelUnusable, match="hop"):
        check(folder)
    (folder / "sub" / "hop").unlink()
    (folder / "sub" / "hop").symlink_to(folder / "config.json")
    check(folder)


async def test_the_links_of_a_cache_are_its_own(load: Load, folder: Path, tmp_path: Path) -> None:
    repo = tmp_path / "hub" / "models--org--stranger"
    snapshot = into_cache(folder, repo)
    assert await says(load, snapshot) is not None
    linked = tmp_path / "linked"
    linked.symlink_to(tmp_path / "hub")  # a cache on another disk
    check(linked / repo.name / "snapshots" / "5c0ffee")
    (snapshot / "extra.json").symlink_to("../../../models--org--other/secret")
    with pytest.raises(ModelUnusable, match="extra"):
        check(snapshot)


@pytest.mark.parametrize(
    "lie",
    [
        {"data_offsets": [0, 2**40]},
        {"data_offsets": [0, 2**63]},
        {"shape": [2**40]},
        {"shape": [-1]},
        {"dtype": "F64"},
        {"data_offsets": [64, 0]},
    ],
)
def test_a_header_that_lies_is_refused_before_mlx_sees_it(
    folder: Path, lie: dict[str, object]
) -> None:
    tensor = {"dtype": "U8", "shape": [64], "data_offsets": [0, 64]} | lie
    header = json.dumps({"weight": tensor}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(64)
    (folder / "model-extra.safetensors").write_bytes(content)
    with pytest.raises(ModelUnusable, match="damaged"):
        load_model(card(folder))


@pytest.mark.parametrize("length", [0, 2, 2**31, 2**63 - 1, 2**64 - 1])
def test_a_header_of_a_lying_length_is_refused(folder: Path, length: int) -> None:
    (folder / "model.safetensors").write_bytes(length.to_bytes(8, "little") + b"{}" + bytes(64))
    with pytest.raises(ModelUnusable, match="damaged"):
        check(folder)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('touch SENTINEL') }}",
        "{{ raise_exception.__globals__['__builtins__']['open']('SENTINEL', 'w') }}",
        "{% set _ = messages.append(1) %}{{ messages }}",
        "{% include 'config.json' %}",
        "{% for a in range(10**9) %}x{% endfor %}",
    ],
)
async def test_a_template_stays_in_its_sandbox(
    load: Load, folder: Path, sentinel: Sentinel, template: str
) -> None:
    written = template.replace("SENTINEL", str(sentinel.path))
    change(folder / "tokenizer_config.json", chat_template=written)
    with pytest.raises(InvalidRequest):
        await says(load, folder)
    assert sentinel.untouched


@pytest.mark.parametrize("parser", PARSERS)
def test_a_tool_call_is_read_and_never_evaluated(
    folder: Path, sentinel: Sentinel, parser: str
) -> None:
    """vLLM CVE-2025-9141: a call that the model was talked into writing ran on the server."""
    change(folder / "tokenizer_config.json", tool_parser_type=parser)
    code = f"__import__('pathlib').Path({str(sentinel.path)!r}).touch()"
    spec = {"type": "object", "properties": {"a": {"type": "object"}, "b": {"type": "array"}}}
    tools = (Tool("f", None, spec),)
    parse = load_model(card(folder)).markup.parse_calls
    assert parse is not no_calls  # the parser that is meant
    for text in (
        code,
        f"[f(a={code})]",
        f"f(a={code})",
        f'{{"name": "f", "arguments": {code}}}',
        json.dumps({"name": "f", "arguments": {"a": code}}),
        f"call:f{{a:{code}}}",
        f"f\n<arg_key>a</arg_key>\n<arg_value>{code}</arg_value>",
        f"<function=f>\n<parameter=a>\n{code}\n</parameter>\n</function>",
        f'<invoke name="f"><parameter name="a">{code}</parameter></invoke>',
        f"functions.f:0<|tool_call_argument_begin|>{code}",
        f'f[ARGS]{{"a": {code}}}',
    ):
        assert all(call.name == "f" for call in parse(text, tools))
    assert sentinel.untouched


def test_what_is_no_model_says_so(folder: Path) -> None:
    for content in ("[]", '{"model_type": ["x"]}', '{"model_type": {"a": 1}}', "{}"):
        (folder / "config.json").write_text(content)
        with pytest.raises((DomainError, AttributeError, LookupError, TypeError, ValueError)):
            load_model(card(folder))
