"""
Instruction or question -> prompt text, per model family, image placeholders included.

Knows nothing of tokenizers: what must happen at the level of ids is said at the template.
"""

from dataclasses import dataclass
import re
from typing import Protocol
import unicodedata

MAX_INSTRUCTION_CHARACTERS = 512

# Controls, lone surrogates, line and paragraph separators: none of them is said to a robot. Nor
# are format characters: with them an operator reads something else than the model does.
_REFUSED_CATEGORIES = frozenset({'Cc', 'Cf', 'Cs', 'Zl', 'Zp'})
# Of these, the joiners that Persian, the scripts of India and emoji are written with.
_JOINERS = frozenset('\u200c\u200d')

# Text that tokenizers turn into special tokens: it would add an image without pixels, end the
# turn, or smuggle an action into the prompt.
_MARKUP = re.compile(
    r'<\|[^|>]*\|>|<[^<>\s]*(?:image|img)[^<>\s]*>|\[/?img[^\]]*\]|\[/?inst\]|<</?sys>>|</?s>'
    r'|<(?:bos|eos|pad|unk|mask|sep|cls)>|<(?:start|end)_of_\w+>|<0x[0-9a-f]{2}>'
    r'|</?(?:box|quad|ref)>|<(?:loc|seg|unused|extra_id_|action_)\d+>|<row_\d+_col_\d+>',
    re.IGNORECASE)
# What a template calls its parts: 'In:' and 'Out:', 'Q:' and 'A:'.
_LABEL = re.compile(r'\b\w+:')


class InstructionError(ValueError):
    """The instruction or question is not one that can be put into a prompt."""


class PromptConfig(Protocol):
    """What the builders read of a checkpoint's prompt section."""

    action: str
    question: str
    lowercase: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptTemplate:
    """
    One model family's way to ask.

    kind: 'text' (the prompt as it is) or 'chat' (the content of a user turn, to be put through
    the processor's chat template). action, question: with {instruction} and {question}.
    lowercase: lower the instruction or question, never the template.
    """

    kind: str = 'text'
    action: str
    question: str
    lowercase: bool = False


TEMPLATES = {
    # Ids: BOS first, the patch embeddings right after BOS, and id 29871 appended after the final
    # ':' (29901), in input_ids and attention_mask both. The text itself holds no image token.
    'openvla': PromptTemplate(
        action='In: What action should the robot take to {instruction}?\nOut:',
        question='In: {question}\nOut:',
        lowercase=True,
    ),
    'openvla_v01': PromptTemplate(
        action="A chat between a curious user and an artificial intelligence assistant. The "
               "assistant gives helpful, detailed, and polite answers to the user's questions. "
               'USER: What action should the robot take to {instruction}? ASSISTANT:',
        question="A chat between a curious user and an artificial intelligence assistant. The "
                 "assistant gives helpful, detailed, and polite answers to the user's questions. "
                 'USER: {question} ASSISTANT:',
        lowercase=True,
    ),
    'rt2': PromptTemplate(
        action='<image>Q: what action should the robot take to {instruction}? A:',
        question='<image>Q: {question} A:',
    ),
    # The image after the words: under a causal mask its tokens can then attend to them.
    'instruction_first': PromptTemplate(
        action='{instruction} <image> Action:',
        question='{question} <image> Answer:',
        lowercase=True,
    ),
    'chat': PromptTemplate(
        kind='chat',
        action='What action should the robot take to {instruction}?',
        question='{question}',
    ),
}


def build_action_prompt(config: PromptConfig, instruction: str) -> str:
    """Return the prompt asking for an action; InstructionError for a bad instruction."""
    text = _cased(config, clean_instruction(instruction))
    _refuse_labels(config.action, text)
    return config.action.replace('{instruction}', text)


def build_question_prompt(config: PromptConfig, question: str) -> str:
    """Return the prompt asking an ordinary question; InstructionError for a bad question."""
    return config.question.replace('{question}', _cased(config, clean_instruction(question)))


def clean_instruction(text: str) -> str:
    """
    Return the text without surrounding white space, at most 512 characters.

    Raises InstructionError for empty or longer text, control and format characters, and markup
    that a tokenizer would take for an image or another special token, also in wide letters, which
    some tokenizers make narrow.
    """
    cleaned = text.strip()
    if not cleaned:
        raise InstructionError('instruction: expected some words, found an empty text; say what '
                               'the robot shall do')
    if len(cleaned) > MAX_INSTRUCTION_CHARACTERS:
        raise InstructionError(f'instruction: expected at most {MAX_INSTRUCTION_CHARACTERS} '
                               f'characters, found {len(cleaned)}; shorten it')
    for index, character in enumerate(cleaned):
        if (unicodedata.category(character) in _REFUSED_CATEGORIES
                and character not in _JOINERS):
            raise InstructionError(f'instruction: expected no control characters, found '
                                   f'{character!r} at character {index}; write one line of text')
    markup = _MARKUP.search(cleaned) or _MARKUP.search(unicodedata.normalize('NFKC', cleaned))
    if markup:
        raise InstructionError(f'instruction: expected plain words, found the special token '
                               f'{markup.group()!r}; remove it')
    return cleaned


def _refuse_labels(template: str, text: str) -> None:
    """
    Refuse an instruction that ends its part of the prompt and begins another one.

    Not so a question: one with several answers to choose from has labels of its own.
    """
    said = set(_LABEL.findall(text))
    labels = [label for label in _LABEL.findall(template) if label in said]
    if labels:
        raise InstructionError(f'instruction: expected plain words, found {labels[0]!r}, which is '
                               'a part of the prompt itself; say it otherwise')


def _cased(config: PromptConfig, text: str) -> str:
    return text.lower() if config.lowercase else text
