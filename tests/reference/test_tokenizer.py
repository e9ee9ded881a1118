"""What the tokenizer promises: digits alone, answers one token, and the same ids from its folder."""

from itertools import islice

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer

from brewlens import tasks
from brewlens.reference.config import TrainConfig
from brewlens.reference.data import training_programs
from brewlens.reference.tokenizer import END, check_tokenizer, encode, save_tokenizer, train_tokenizer
from brewlens.tasks import names


@pytest.fixture(scope="module")
def programs():
    return list(islice(training_programs(0, "all"), 5000))


@pytest.fixture(scope="module")
def tokenizer(programs):
    return train_tokenizer((p.prompt + p.answer for p in programs), 1152)


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_tokenizer(tokenizer, folder)
    TrainConfig(steps=1).model_config(tokenizer.get_vocab_size()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def held_out():
    return tasks.generate(n=54, seed=3)


def test_folder_gives_the_ids_of_training(tokenizer, folder, held_out, programs):
    loaded = AutoTokenizer.from_pretrained(folder)
    raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
    odd = ["(( a_b ) )", "'s _x __y \t z\r\n\n  1.25", "é ü 漢字 \u0301", "x\n    \n\ty  ", "", "9" * 7, END]
    texts = [p.prompt + p.answer for p in (*held_out, *programs[:2000])] + odd
    for text in texts:
        ids = encode(tokenizer, text)
        assert encode(loaded, text) == ids == encode(raw, text)
    assert all(loaded.decode(encode(loaded, text)) == text for text in texts[:500])
    assert (loaded.eos_token, loaded.pad_token, loaded.bos_token) == (END, END, None)
    assert loaded.eos_token_id == loaded.pad_token_id == 0
    assert len(loaded) == tokenizer.get_vocab_size()


def test_a_coarser_cut_would_give_other_ids(tokenizer, programs):
    """The trap that the round trip guards against is real: another pre-tokenizer changes ids."""
    other = Tokenizer.from_str(tokenizer.to_str())
    other.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    assert any(encode(other, p.prompt) != encode(tokenizer, p.prompt) for p in programs[:200])


def test_every_answer_is_one_token_behind_its_prompt(tokenizer, held_out):
    check_tokenizer(tokenizer, held_out.prompts, held_out.answers)
    for digit in "0123456789":
        for text in (
            digit,
            f" {digit}",
            f'"{digit}',
            f" = {digit}\n",
            f"x{digit}y",
            f"1{digit}2",
            f"({digit},",
        ):
            tokens = [tokenizer.decode([i]) for i in encode(tokenizer, text)]
            assert digit in tokens, (text, tokens)
    vocabulary = tokenizer.get_vocab()
    assert [t for t in vocabulary if any(c.isdigit() for c in t) and len(t) > 1] == []


def test_check_refuses_an_answer_that_melts_into_its_prompt():
    vocab = {END: 0, '"': 1, "1": 2, "2": 3, '"1': 4}
    bad = Tokenizer(models.BPE(vocab=vocab, merges=[('"', "1")]))
    check_tokenizer(bad, ['"'], ["2"])
    with pytest.raises(ValueError, match="exactly one token behind"):
        check_tokenizer(bad, ['"'], ["1"])


def test_names_are_single_tokens(tokenizer):
    for role in "VR":
        for name in names.ROLES[role]:
            pieces = 1 + name.count("_")
            assert len(encode(tokenizer, " " + name)) <= pieces + 1, name
    many = [
        len(encode(tokenizer, " " + n)) == 1 + n.count("_") for pool in names.ROLES.values() for n in pool
    ]
    assert sum(many) >= 0.95 * len(many)
    alone, within = encode(tokenizer, "alpha"), encode(tokenizer, "(alpha")
    assert within[-len(alone) :] == alone  # a bracket does not change the name's token


def test_same_programs_same_tokenizer(tokenizer, programs):
    again = train_tokenizer((p.prompt + p.answer for p in programs), 1152)
    assert again.to_str() == tokenizer.to_str()


def test_refuses_a_vocabulary_below_the_bytes():
    with pytest.raises(ValueError, match="at least 257 tokens, asked for 100"):
        train_tokenizer(["x"], 100)
