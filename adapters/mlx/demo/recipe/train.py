"""Makes the demo model: `python -m adapters.mlx.demo.recipe.train --out DIR`."""

import argparse
import json
import math
import multiprocessing
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx import nn
from mlx.utils import tree_map
from mlx_lm.models.qwen3 import Model, ModelArgs
from transformers import PreTrainedTokenizerFast

from adapters.mlx.demo.recipe import corpus, speech, tokenizer

CONFIG: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 128,
    "num_hidden_layers": 6,
    "intermediate_size": 384,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "max_position_embeddings": 4096,
    "vocab_size": tokenizer.VOCABULARY,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "hidden_act": "silu",
    "torch_dtype": "bfloat16",
}
LENGTHS = (64, 128, 192, 256, 320, 384, 512, 768, 1024, 1536)
BATCH_TOKENS = 32_768
SHARD_SAMPLES = 16_384
# An answer counts eight times what its prompt does in the few samples learned as a whole.
ANSWER, PROMPT = 8, 1
PEAK, WARM_STEPS = 3e-3, 500

Batch = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


class Row(NamedTuple):
    """The tokens of a sample and how much each counts."""

    tokens: list[int]
    weights: list[int]


def render(tok: Any, sample: corpus.Sample) -> str:
    """The prompt of a sample."""
    prompt: str = tok.apply_chat_template(
        sample.messages,
        tools=sample.tools or None,
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=sample.thinking,
    )
    return prompt


def encode(tok: PreTrainedTokenizerFast, samples: list[corpus.Sample]) -> list[Row]:
    """The samples as tokens."""
    prompts, answers = [], []
    for sample in samples:
        if not sample.messages:
            prompts.append("")
            answers.append(sample.answer + tokenizer.PAD)
            continue
        prompts.append(render(tok, sample))
        thought = f"<think>\n{sample.thought}\n</think>\n\n" if sample.thinking else ""
        answers.append(thought + sample.answer + tokenizer.END)
    rows = []
    for sample, prompt, answer in zip(
        samples, tok(prompts)["input_ids"], tok(answers)["input_ids"], strict=True
    ):
        weights = [PROMPT if sample.whole else 0] * len(prompt) + [ANSWER] * len(answer)
        rows.append(Row(prompt + answer, weights))
    return rows


def pack(rows: list[Row], length: int) -> Iterator[Batch]:
    """Batches of one shape; a prompt always starts at position zero, as it will when served."""
    height = BATCH_TOKENS // length
    for start in range(0, len(rows), height):
        tokens = np.zeros((height, length + 1), np.uint16)
        weights = np.zeros((height, length + 1), np.uint8)
        for at, row in enumerate(rows[start : start + height]):
            tokens[at, : len(row.tokens)] = row.tokens
            weights[at, : len(row.tokens)] = row.weights
        yield tokens, weights


def shard(folder: str, seed: int) -> list[Batch]:
    """The batches of one seed, in random order."""
    rng = speech.rng_for(seed)
    rows = encode(tokenizer.load(Path(folder)), [corpus.draw(rng) for _ in range(SHARD_SAMPLES)])
    buckets: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        fitting = [length for length in LENGTHS if len(row.tokens) <= length + 1]
        if fitting:
            buckets[fitting[0]].append(row)
    batches = [batch for length, found in buckets.items() for batch in pack(found, length)]
    rng.shuffle(batches)
    return batches


def stream(folder: Path, seed: int, workers: int) -> Iterator[Batch]:
    """Fresh batches without end, made by other processes."""
    # Every worker has one core, so threads inside a worker only stand in each other's way.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Forked children of a process that holds a GPU can hang.
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers) as pool:
        waiting: list[Any] = []
        number = seed * 1_000_000
        while True:
            while len(waiting) < 2 * workers:
                waiting.append(pool.apply_async(shard, (str(folder), number)))
                number += 1
            yield from waiting.pop(0).get()


def build() -> Any:
    """The untrained model."""
    return Model(ModelArgs.from_dict(CONFIG))


def cast(parameters: Any, kind: Any) -> Any:
    """The parameters in another type of number."""
    return tree_map(lambda value: value.astype(kind), parameters)


class Trainer:
    """Trains float32 weights through a bfloat16 twin, so that storing them loses nothing new."""

    def __init__(self) -> None:
        # A CPU multiplies bfloat16 matrices far slower than float32 ones.
        self.kind = mx.bfloat16 if mx.default_device() == mx.Device(mx.gpu) else mx.float32
        self.model, self.twin = build(), build()
        self.optimizer = optim.AdamW(PEAK, betas=[0.9, 0.98], weight_decay=0.05)
        self.optimizer.init(self.model.trainable_parameters())
        self.state = [self.model.state, self.optimizer.state]
        self.step = partial(mx.compile, inputs=self.state, outputs=self.state)(self._step)
        self._grad = nn.value_and_grad(self.model, self._loss)  # type: ignore[attr-defined]

    def _loss(self, tokens: Any, weights: Any) -> Any:
        self.twin.update(cast(self.model.parameters(), self.kind))
        logits = self.twin(tokens[:, :-1]).astype(mx.float32)
        losses = nn.losses.cross_entropy(logits, tokens[:, 1:], weights=weights[:, 1:])
        return losses.sum() / mx.maximum(weights[:, 1:].sum(), 1)

    def _step(self, tokens: Any, weights: Any) -> Any:
        loss, grads = self._grad(tokens, weights)
        grads, _ = optim.clip_grad_norm(grads, 1.0)
        self.optimizer.update(self.model, grads)
        return loss


def rate(number: int, progress: float) -> float:
    """The learning rate: a short rise, then a cosine down to zero."""
    return PEAK * min(1.0, number / WARM_STEPS) * (1 + math.cos(math.pi * progress)) / 2


def train(trainer: Trainer, batches: Iterator[Batch], steps: int, minutes: float) -> Any:
    """The parameters after so many steps, or fewer if the time is up."""
    started, losses, every = time.perf_counter(), [], 250
    number, progress = 0, 0.0
    while progress < 1:
        number += 1
        tokens, weights = next(batches)
        trainer.optimizer.learning_rate = rate(number, progress)
        loss = trainer.step(mx.array(tokens.astype(np.int32)), mx.array(weights.astype(np.float32)))
        mx.eval(loss, trainer.state)
        losses.append(loss.item())
        seconds = time.perf_counter() - started
        progress = max(number / steps, seconds / (60 * minutes))
        if number % every == 0:
            speed = number * BATCH_TOKENS / seconds / 1e6
            mean = sum(losses[-every:]) / every
            print(
                f"{number}/{steps} loss {mean:.4f} {speed:.2f} Mtok/s {seconds:.0f} s", flush=True
            )
    return cast(trainer.model.parameters(), mx.bfloat16)


def write(folder: Path, tok: PreTrainedTokenizerFast, parameters: Any) -> None:
    """The finished folder."""
    model = build()
    model.update(parameters)
    model.save_weights(str(folder / "model.safetensors"))
    ends = [tok.convert_tokens_to_ids(text) for text in (tokenizer.END, tokenizer.PAD)]
    tokens = {"eos_token_id": ends, "pad_token_id": ends[1]}
    generation = tokens | {"do_sample": False, "max_new_tokens": 256}
    for name, content in (("config", CONFIG | tokens), ("generation_config", generation)):
        text = json.dumps(content, indent=2) + "\n"
        (folder / f"{name}.json").write_text(text, encoding="utf-8")


def main() -> None:
    """Reads the command line and makes the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="folder of a model to train further")
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    tok = tokenizer.load(given.start) if given.start else tokenizer.learn()
    tok.save_pretrained(given.out)
    mx.random.seed(given.seed)
    trainer = Trainer()
    if given.start:
        trainer.model.load_weights(str(given.start / "model.safetensors"))
        trainer.model.update(cast(trainer.model.parameters(), mx.float32))
    batches = stream(given.out, given.seed, given.workers)
    parameters = train(trainer, batches, given.steps, given.minutes)
    write(given.out, tok, parameters)


if __name__ == "__main__":
    main()
