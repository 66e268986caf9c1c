"""
The word-level tokenizer of models trained from scratch: words and the numbers 0..255.

Numbers are single tokens, so one bin is one token (RT-2's number scheme). Text is lower-cased
and stripped of punctuation; an unknown word becomes <unk>.
"""

from collections.abc import Iterable

from tokenizers import models
from tokenizers import normalizers
from tokenizers import pre_tokenizers
from tokenizers import Regex
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

BINS = 256
PAD, UNK, EOS, IMAGE = '<pad>', '<unk>', '<eos>', '<image>'
_SPECIAL = (PAD, UNK, EOS, IMAGE)


def build_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Build the tokenizer whose words are those of `texts`; ids follow the sorted words."""
    normalizer = normalizers.Sequence([
        normalizers.Lowercase(),
        normalizers.Replace(Regex(r'[^a-z0-9<>\s]'), ' '),
    ])
    words = {word for text in texts for word in normalizer.normalize_str(text).split()}
    words -= {str(number) for number in range(BINS)} | set(_SPECIAL)
    tokens = (*_SPECIAL, *(str(number) for number in range(BINS)), *sorted(words))
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNK,
        eos_token=EOS,
        additional_special_tokens=[IMAGE],
        padding_side='left',
        model_max_length=512,
    )


def number_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """Return the id of every number token: {'0': id, .., '255': id}."""
    return {str(n): tokenizer.convert_tokens_to_ids(str(n)) for n in range(BINS)}
