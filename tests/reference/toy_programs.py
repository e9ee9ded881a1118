"""A toy source of programs, so that these tests stand on nothing but the room that they test."""

import random
from collections.abc import Iterator

from brewlens.tasks.item import Item


def toy_programs(seed: int, stage: str) -> Iterator[Item]:
    """``a = 4`` and a question about ``a``, after 0 to 3 lines that do not matter (none when easy)."""
    easy = stage == "easy"
    rng = random.Random(f"toy {seed} {easy}")
    names = ["alpha", "beta", "gamma", "delta", "copy_val"]
    number = 0
    while True:
        name, *others = rng.sample(names, 4)
        answer = str(rng.randrange(10))
        noise = "".join(
            f"{other} = [{rng.randrange(10)}]\n" for other in others[: 0 if easy else rng.randrange(4)]
        )
        code, suffix = f"{noise}{name} = {answer}\n", f'# The value of {name} is "'
        number += 1
        yield Item(
            id=f"toy-{seed}-{number}",
            family="toy_easy" if easy else "toy",
            factors={"lines": noise.count("\n"), "name": name},
            code=code,
            suffix=suffix,
            prompt=code + suffix,
            answer=answer,
            skeleton=f"{rng.getrandbits(64):016x}",
            shape="0",
        )
