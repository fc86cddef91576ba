"""A prompt as the token ids that a Hugging Face tokenizer gives it."""

from __future__ import annotations

from typing import Any

from dreamprm_cli.prompts import Prompt


def prompt_tokens(tokenizer: Any, prompt: Prompt) -> list[int]:
    """The chat up to and with the prefill, which the model goes on from.

    Chat marks count as such in the template only, never in the prefill, which a model may have written.
    """
    if tokenizer.chat_template:
        text = tokenizer.apply_chat_template(prompt.messages, tokenize=False, add_generation_prompt=True)
        opening = tokenizer(text, add_special_tokens=False)["input_ids"]
    else:  # a base model reads the prompt as plain text
        opening = tokenizer(f"{prompt.system}\n\n{prompt.user}\n\n")["input_ids"]
    prefill = tokenizer(prompt.prefill, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [*opening, *prefill]
