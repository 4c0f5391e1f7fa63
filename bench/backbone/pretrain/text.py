"""The embedded backbone's tokenizers and text encoders: the real classes with a vocabulary of a few dozen words.

Every word of the world is one token; a word on a sign is spelled in letters, so that new words can be read.
The CLIP tokenizers' BPE is trained on the list of words, until each is one token.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerBase,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from bench.errors import BenchError

T = TypeVar("T", bound=PreTrainedTokenizerBase)

MAX_TOKENS = 12
"""Token length of all three encoders; the longest caption of the world needs 11."""


def make_clip_tokenizer(words: Sequence[str]) -> CLIPTokenizer:
    """A CLIP tokenizer in which each of ``words`` is one token and everything else is letters."""
    blank = CLIPTokenizer()
    alphabet = [*string.ascii_lowercase, *string.digits, '"', "'", ",", ".", "-"]
    bpe = Tokenizer(BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = blank.backend_tokenizer.pre_tokenizer
    trainer = BpeTrainer(initial_alphabet=alphabet, end_of_word_suffix="</w>", vocab_size=4096, show_progress=False)
    bpe.train_from_iterator([*sorted(set(words)), *alphabet], trainer)
    learned = json.loads(bpe.to_str())["model"]
    merges = [(first, second) for first, second in learned["merges"]]
    tokens = sorted(learned["vocab"])  # the trainer's own order differs from call to call
    vocab = {token: i for i, token in enumerate(["<|startoftext|>", "<|endoftext|>", *tokens])}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_TOKENS)


def make_t5_tokenizer(words: Sequence[str]) -> T5Tokenizer:
    """A T5 (unigram) tokenizer with the same property."""
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0), ('▁"', -2.0)]
    vocab += [(letter, -4.0) for letter in [*string.ascii_lowercase, *string.digits, '"', "'", ",", ".", "-"]]
    vocab += [("▁" + word, -1.0) for word in sorted(set(words)) if len(word) > 1 or word == "a"]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=MAX_TOKENS)


def kept_tokenizer(kind: type[T], folder: Path, make: Callable[[], T] | None) -> T:
    """The tokenizer that lies in a folder. Training and the pipeline that ships read the same files.

    Args:
        make: makes it first; None: a training goes on, so it is there.

    Raises:
        BenchError: it is not there, or is damaged.
    """
    if make is not None:
        make().save_pretrained(folder)
    try:
        (folder / "tokenizer.json").stat()  # where it is not there, the libraries make an empty one
        tokenizer: T = kind.from_pretrained(folder)
    except Exception as error:  # the libraries raise whatever a damaged file brings about
        raise BenchError(
            f"{folder} holds no tokenizer of this training; delete the stage's state to train anew"
        ) from error
    return tokenizer


def id_table(
    tokenizers: Mapping[str, PreTrainedTokenizerBase], words: Sequence[str]
) -> dict[str, dict[str, list[int]]]:
    """Ids by tokenizer and text: of each word, and of each letter of a sign, as its first and as its last.

    It ships with the weights: whoever reads them can check that a tokenizer gives the ids of the training.
    """
    texts = [*sorted(set(words)), *(f'"{letter}{letter}"' for letter in string.ascii_lowercase)]
    return {name: {text: list(made(text).input_ids) for text in texts} for name, made in tokenizers.items()}


def make_text_encoders(
    clip: CLIPTokenizer, t5: T5Tokenizer, *, clip_width: int = 64, t5_width: int = 128
) -> tuple[CLIPTextModelWithProjection, CLIPTextModelWithProjection, T5EncoderModel]:
    """Untrained encoders: two CLIP towers (2 layers) and a T5 encoder (3 layers)."""
    clips = [
        CLIPTextModelWithProjection(
            CLIPTextConfig(
                vocab_size=len(clip),
                hidden_size=clip_width,
                intermediate_size=4 * clip_width,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=MAX_TOKENS,
                projection_dim=clip_width,
                hidden_act=act,
                bos_token_id=clip.bos_token_id,
                eos_token_id=clip.eos_token_id,
                pad_token_id=clip.pad_token_id,
            )
        )
        for act in ("quick_gelu", "gelu")  # as CLIP-L and CLIP-G in SD3
    ]
    t5_encoder = T5EncoderModel(
        T5Config(
            vocab_size=len(t5),
            d_model=t5_width,
            d_kv=32,
            d_ff=2 * t5_width,
            num_layers=3,
            num_heads=4,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            relative_attention_num_buckets=16,
            relative_attention_max_distance=16,
        )
    )
    return clips[0], clips[1], t5_encoder


def encode(
    clip: torch.Tensor,
    t5: torch.Tensor,
    one: CLIPTextModelWithProjection,
    two: CLIPTextModelWithProjection,
    three: T5EncoderModel,
) -> tuple[torch.Tensor, torch.Tensor]:
    """SD3's prompt_embeds (N, 2 x MAX_TOKENS, t5_width) and pooled_prompt_embeds (N, 2 x clip_width), with gradient.

    ``StableDiffusion3Pipeline.encode_prompt`` computes the same from the saved encoders (a test compares them).
    """
    outputs = [encoder(clip, output_hidden_states=True) for encoder in (one, two)]
    hidden = torch.cat([out.hidden_states[-2] for out in outputs], -1)
    t5_hidden = three(t5).last_hidden_state
    hidden = torch.nn.functional.pad(hidden, (0, t5_hidden.shape[-1] - hidden.shape[-1]))
    return torch.cat([hidden, t5_hidden], 1), torch.cat([out.text_embeds for out in outputs], -1)


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], length: int = MAX_TOKENS) -> torch.Tensor:
    """Token ids padded to ``length``: int64 (N, length). BenchError for a text that has more."""
    rows = tokenizer(list(texts), padding="max_length", max_length=length, truncation=False).input_ids
    if long := [text for text, row in zip(texts, rows, strict=True) if len(row) > length]:
        raise BenchError(f"{long[0]!r} has more than {length} tokens; shorten the caption")
    return torch.tensor(rows)
