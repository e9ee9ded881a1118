"""The pools from which a program's names are drawn, one per role, with no name in two of them."""

from __future__ import annotations

import random
from collections.abc import Iterable

FUNCTIONS = (
    "absorb adjust apply assign blend build carry clean collect combine compute convert copy_val decode "
    "deliver derive draw echo_val emit encode evaluate expand extend extract fetch find_val finish flow "
    "fold forward gather give handle hold lift link load locate make mark measure merge_val move obtain "
    "offer parse pick place prepare process produce project pull push_val read_val receive record reduce "
    "relay render resolve route scan select send settle shape_val shift solve spread step_val store "
    "supply swap_val sweep take trace track transfer trim unpack update visit walk weigh wrap yield_val"
).split()

VARIABLES = (
    "acc alpha amount arg aux base beta bin_val box bucket buf cell chunk code core count cur data delta "
    "depth digit edge elem entry extra factor field first flag_val gap gate gauge goal grade grid group "
    "head hi idx inner inp item_val key_val kind lane last_val left level limit lo mark_val mass mode "
    "near node num obj offset outer pair pace part path peak piece pivot point pool port prev probe_val "
    "quota rank rate raw ref rest right root row_val score seed_val seg side size slot source span spot "
    "stage state stem suffix tag temp tick tier token_val top total track_val unit val via volume w width "
    "x y z zone"
).split()

RESULTS = (
    "ans answer final_val got last main_val msg out outcome output payload reply res result ret returned "
    "shown target token value"
).split()

CLASSES = (
    "Agent Basket Bin Block Box Carrier Cell Chest Crate Drawer Folder Frame Holder Keeper Locker Node "
    "Packet Parcel Record Shelf Slot Store Tank Tray Unit Vault"
).split()

ROLES: dict[str, tuple[str, ...]] = {
    "F": tuple(FUNCTIONS),
    "V": tuple(VARIABLES),
    "R": tuple(RESULTS),
    "C": tuple(CLASSES),
}


def draw(slots: Iterable[str], rng: random.Random) -> dict[str, str]:
    """A distinct name for every slot; a slot's first letter is its role."""
    by_role: dict[str, list[str]] = {}
    for slot in slots:
        by_role.setdefault(slot[0], []).append(slot)
    names: dict[str, str] = {}
    for role, wanted in by_role.items():
        names.update(zip(wanted, rng.sample(ROLES[role], len(wanted)), strict=True))
    return names
