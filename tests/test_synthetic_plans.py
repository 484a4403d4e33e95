"""The shipped plans on drawn data, at toy size: who sees what, what is published beside what, readings of a paper."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import potstill as ps
from potstill import report, storage
from potstill.errors import PlanError
from potstill.report import figures, sections
from potstill.report.names import Cast
from potstill.study.plan import Plan
from potstill.study.results import Results
from potstill.study.study import Study

POINT = "data.source.setting"
PRIVILEGED = ["training.epochs=2", "data.source.test=300"]


@pytest.fixture(scope="module")
def privileged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    folder = tmp_path_factory.mktemp("plans") / "privileged"
    return folder, Study.open("privileged-synthetic", folder=folder, seeds=2, settings=PRIVILEGED).run(workers=1)


def test_a_student_is_handed_x_alone(privileged: tuple[Path, Results]) -> None:
    folder, results = privileged
    widths = {
        "clean-labels": 1,
        "clean-features": 50,
        "relevant-features": 3,
        "sample-features": 3,
        "largest-features": 3,
    }
    assert list(Plan.load("privileged-synthetic").tables.sweep[POINT]) == list(widths)
    for name, width in widths.items():
        for model, shape in (("teacher", [width]), ("alone", [50]), ("distilled", [50])):
            told = storage.read_json(folder / f"models/{model}/{POINT}={name}/seed-1/network.json")
            assert (told["input_shape"], told["sees"]) == (shape, "x_star" if model == "teacher" else "x")
    assert {verdict.method for verdict in results.verdicts} == {"nested"}
    assert len(results.verdicts) == 5


def test_the_student_imitates_the_teacher_on_x_star(privileged: tuple[Path, Results]) -> None:
    """lambda = T = 1: after many steps the student's probabilities are those that the teacher gives to x*."""
    table = {"name": "privileged", "setting": "clean-labels"}
    data = ps.data.open(table, validation=0, redraw="seed", seed=0)
    teacher = ps.fit(
        "linear", data, sees="x_star", seed=0, steps=300, optimizer={"name": "adam", "learning_rate": 0.05}
    )
    objective = ps.objectives.generalised(lam=1.0, temperature=1.0)
    told = {"optimizer": {"name": "adam", "learning_rate": 0.05}, "schedule": "cosine", "batch_size": 200}
    student = ps.fit("linear", data, objective, teacher=teacher, sees="x", seed=0, steps=1500, **told)
    x, x_star = (data.train.seeing(name).raw for name in ("x", "x_star"))
    gap = student(x).softmax(1) - teacher(x_star).softmax(1)
    assert float(gap.abs().max()) < 0.01
    assert privileged[1].models[f"distilled@{POINT}=clean-labels"].teachers == [f"teacher@{POINT}=clean-labels"]


def test_published_numbers_stand_beside_their_point(privileged: tuple[Path, Results]) -> None:
    folder, results = privileged
    cast = Cast(results)
    assert cast.published("accuracy", f"teacher@{POINT}=clean-features") == [(0, 0.90)]
    assert cast.published("accuracy", f"distilled@{POINT}=largest-features") == [(0, 0.56)]
    assert cast.published_elsewhere() == []
    text = report.page.render(results, None)
    assert "96.0 %" in text or "96 %" in text
    assert report.page.write(folder).is_file()


def test_a_sweep_over_words_is_told_in_the_plans_order(privileged: tuple[Path, Results]) -> None:
    results = privileged[1]
    points = list(Plan.load("privileged-synthetic").tables.sweep[POINT])
    assert points != sorted(points)
    cast = Cast(results)
    assert cast.order == [f"{name}@{POINT}={point}" for name in ("teacher", "alone", "distilled") for point in points]
    for verdict, point in zip(results.verdicts, points, strict=True):
        assert verdict.sentence.startswith(f"At {POINT}={point}: Undecided whether distilled is better than alone on")
        assert cast.versus(verdict.model, verdict.baseline) == f"distilled against alone (setting = {point})"
    assert results.models[cast.order[-1]].objective == "generalised(lam=1.0, temperature=1.0)"
    text = report.page.render(results, None)
    assert "over seeds, each on data drawn anew. A published number" in text


def test_many_seeds_are_counted_and_drawn_smaller(privileged: tuple[Path, Results]) -> None:
    found = privileged[1].verdicts[0]
    few, many = ([figures.Pair(seed, 0.5, 0.5 + (seed % 4) / 100) for seed in range(n)] for n in (24, 100))
    assert figures.counted(found, many) == "Better in 75 of 100 seeds."
    assert figures.counted(found.model_copy(update={"better": "lower"}), many) == "Better in 0 of 100 seeds."
    widths = []
    for seeds in (few, many):
        drawn = figures.pairs(found, "one against another", seeds, prefix="p")
        widths.append({float(x) for x in re.findall(r'stroke-width="([\d.]+)" stroke-linecap="square"', drawn)})
    assert min(widths[1]) < 0.6 * min(widths[0])
    copies = found.model_copy(update={"seeds": list(range(40)), "differences": [0.01] * 40})
    alone = privileged[1].model_copy(update={"verdicts": [copies], "models": {}})
    (picture,) = sections.pairs(Cast(alone), sections.Ids())
    assert picture.note == "Better in 40 of 40 seeds."


def test_published_numbers_at_points_that_are_not_there() -> None:
    raw = Plan.load("privileged-synthetic").to_dict()
    for name, message in (
        (f"teacher@{POINT}=clean-label", 'Unknown point of the sweep "data.source.setting=clean-label". Did you mean'),
        (f"teachr@{POINT}=clean-labels", 'Unknown model "teachr"'),
        ("teacher@training.epochs=3", "Unknown point of the sweep"),
    ):
        with pytest.raises(PlanError, match=message) as caught:
            Plan.from_dict(raw | {"published": {"source": "s", "accuracy": {name: 0.5}}})
        assert caught.value.key == f'published.accuracy."{name}"'


def test_readings_of_the_probabilistic_paper(tmp_path: Path) -> None:
    """The program's lambda = 3/4 with its teacher's term divided by K = 3 is lambda = 1/2 at half the rate."""
    settings = ["training.epochs=2", "seeds=2"]
    results = Study.open("probabilistic-synthetic", folder=tmp_path / "run", settings=settings).run(workers=1)
    assert {verdict.model for verdict in results.verdicts} == set(results.models) - {"alone", "truth"}
    assert all("teacher_kl" in one.metrics for key, one in results.models.items() if key != "truth")
    assert results.models["alone"].cost is not None
    assert results.models["alone"].cost.parameters == 33
    data = ps.data.open("softmax-linear", validation=0)
    batch = data.train.fetch(torch.arange(50))  # type: ignore[arg-type]
    logits = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    s = (data.truth(batch.inputs) / 10).softmax(1)
    log_q = logits.log_softmax(1)
    ours = 0.25 * torch.nn.functional.cross_entropy(logits, batch.labels) - 0.75 * (s * log_q).mean()
    (wanted,) = torch.autograd.grad(ours, logits, retain_graph=True)
    half = 0.5 * torch.nn.functional.cross_entropy(logits, batch.labels) - 0.5 * (s * log_q).sum(1).mean()
    (found,) = torch.autograd.grad(half, logits)
    np.testing.assert_allclose(found.numpy() / 2, wanted.numpy(), atol=1e-7)
