"""The course of a run: which stage of how many, and how long to the readouts."""

from __future__ import annotations

import pytest

from brewlens.progress import bar, stage
from brewlens.study import make_plan
from brewlens.study.course import NEAR_OOD, Course, words
from brewlens.study.pipeline import DECODERS
from brewlens.study.plan import INTERVENTIONS


def test_lines_count_the_stages_and_tell_no_time_that_is_not_known():
    course = Course.of(make_plan(families=["computing"], n=20, interventions=["rescue"]), 20)
    assert course.stages[:3] == ("items", "tokens", "residuals/00000.safetensors")
    assert course.stages[-4:] == ("interventions/rescue", "interventions", "tables", "report")
    assert course.line("items") == f"stage 1 of {len(course.stages)}: items"
    assert course.line("decoding/context_stripped").endswith(": context-stripped decoding")
    assert all(course.left(name) is None for name in course.stages)


def test_the_time_left_is_the_sum_of_what_was_timed():
    course = Course.of(make_plan(families=["computing"]), 5000)
    shards = [name for name in course.stages if name.startswith("residuals/0")]
    assert len(shards) == 3 and NEAR_OOD in course.stages
    course.expect({"residuals": 300, "context_stripped": 900, "probe": 60}, 5000, 500)
    assert course.left("items") == pytest.approx(300 + 30 + 900 + 60)
    assert course.left("decoding/context_stripped") == pytest.approx(960)
    assert course.line("decoding/probe").endswith("; about 1 min to the readouts")
    course.took(shards[0], 200)  # twice what was expected
    assert course.left(shards[1]) == pytest.approx(2 * 200 + 2 * 30 + 960)
    assert course.left("analysis") is None and "about" not in course.line("report")


def test_a_stage_that_is_not_timed_leaves_the_time_unknown():
    course = Course.of(make_plan(families=["computing"], tuned_lens=True), 810)
    course.expect({"residuals": 300, "context_stripped": 900, "probe": 60}, 810, 81)
    assert course.left("decoding/tuned_lens") is None
    assert course.left("decoding/context_stripped") == pytest.approx(960)  # the tuned lens is behind


def test_every_stage_has_words_of_its_own():
    names = [*(f"decoding/{name}" for name in DECODERS), *(f"interventions/{name}" for name in INTERVENTIONS)]
    told = [words(name) for name in (*names, "residuals/00001.safetensors", NEAR_OOD, "analysis", "report")]
    assert len(set(told)) == len(told) and not any("/" in text or "_" in text for text in told)


def test_bars_are_named_after_the_stage(tiny_model, capsys):
    with stage(words("residuals/00000.safetensors")):
        tiny_model.last_residuals(["x = 1"], progress=True)
        space = tiny_model.answer_space(['x = 1\n# x is "'])
        tiny_model.inject(tiny_model.forward(["x = 1"], space).residuals, ["y = 2"], space, progress=True)
    with bar(range(1), shown=True, work="policies", unit="sample") as outside:
        list(outside)
    told = capsys.readouterr().err
    assert told.count("reading residuals: 100%") >= 2 and "policies: 100%" in told
    assert tiny_model.name not in told
