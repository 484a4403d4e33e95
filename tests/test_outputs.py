"""Reading recorded outputs: softening, averaging, top-k, unknown rows, several recordings as one."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from outputs_samples import ALL, CLASSES, Asked, Rows, answers, oracle, recorded, rows_for, same, teacher

from potstill import outputs
from potstill.errors import OutputsError, SettingError, TeacherError
from potstill.outputs import Live, Stored, from_array, record, store
from potstill.teachers import Ensemble, Function
from potstill.types import Answers, DataSpec, Kind

CASES: list[tuple[Kind, int, int]] = [
    ("logits", 1, 5),
    ("logits", 3, 5),
    ("logits", 2, 1),
    ("probabilities", 2, 5),
    ("probabilities", 2, 1),
]


def test_softening_after_averaging_differs_from_averaging_after_softening() -> None:
    # Member 1 is sure of class 0 (odds 9 : 1), member 2 undecided. Ours is the mean of the softened probabilities.
    members = np.array([[[math.log(9.0), 0.0], [0.0, 0.0]]])
    found = from_array(members, kind="logits", rows=1).lookup(torch.tensor([0]), 0)
    assert float(found.probs(1.0)[0, 0]) == pytest.approx((0.9 + 0.5) / 2, abs=1e-7)
    assert float(found.probs(2.0)[0, 0]) == pytest.approx((0.75 + 0.5) / 2, abs=1e-7)
    softened_mean_logits = 1 / (1 + 3**-0.5)  # .634: odds sqrt(3) : 1
    tempered_mean_probability = math.sqrt(0.7) / (math.sqrt(0.7) + math.sqrt(0.3))  # .604
    assert abs(float(found.probs(2.0)[0, 0]) - softened_mean_logits) > 0.008
    assert abs(float(found.probs(2.0)[0, 0]) - tempered_mean_probability) > 0.02
    torch.testing.assert_close(found.logits(), torch.tensor([[math.log(3.0), 0.0]]))


@pytest.mark.parametrize("cached", [True, False], ids=["table", "rows"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("kind", "members", "outputs_"), CASES)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_float64_oracle(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: Kind,
    members: int,
    outputs_: int,
    temperature: float,
    dtype: str,
    cached: bool,
) -> None:
    if not cached:
        monkeypatch.setattr(store, "TABLE_LIMIT", 0)
    monkeypatch.setattr(store, "_CHUNK", 30)
    stored = recorded(tmp_path, kind, members, outputs_, dtype=dtype)
    kept = answers(rows_for(outputs_).inputs, kind, members=members, outputs=outputs_)
    kept = kept.half() if dtype == "float16" else kept
    index = torch.tensor([22, 0, 7, 8, 7, 15])
    probs, logs, entropy = (x[index.numpy()] for x in oracle(kept.numpy(), kind, temperature))
    found = stored.lookup(index, 0)
    for tensor, wanted in (
        (found.probs(temperature), probs),
        (found.log_probs(temperature), logs),
        (found.neg_entropy(temperature), entropy),
    ):
        assert tensor.dtype == torch.float32
        # 5e-6: the batches of the recording (4 rows) and of the oracle (23) differ in the teacher's last bits.
        np.testing.assert_allclose(tensor.numpy(), wanted, rtol=2e-3 if dtype == "float16" else 5e-6, atol=5e-6)
    np.testing.assert_allclose(found.probs(temperature).sum(-1), 1, atol=1e-6)
    each = np.stack([oracle(kept[:, [m]].numpy(), kind, temperature)[0] for m in range(members)], 1)[index.numpy()]
    np.testing.assert_allclose(
        found.member_probs(temperature).numpy(), each, rtol=2e-3 if dtype == "float16" else 5e-6, atol=5e-6
    )
    assert bool(found.known.all())
    assert dict(found.features()) == {}


def test_extreme_logits_stay_finite_and_exact() -> None:
    found = from_array(np.array([[1e4, 0.0, -1e4]]), kind="logits", rows=1).lookup(torch.tensor([0]), 0)
    assert found.probs(1.0).tolist() == [[1.0, 0.0, 0.0]]
    assert found.log_probs(1.0).tolist() == [[0.0, -1e4, -2e4]]
    assert found.neg_entropy(1.0).tolist() == [0.0]


def test_a_probability_of_zero_is_clipped_at_the_smallest_normal_float32() -> None:
    found = from_array(np.array([[1.0, 0.0]]), kind="probabilities", rows=1).lookup(torch.tensor([0]), 0)
    tiny = math.log(float(np.finfo(np.float32).tiny))
    np.testing.assert_allclose(found.log_probs(1.0).numpy(), [[0.0, tiny]], rtol=1e-6)
    np.testing.assert_allclose(
        found.log_probs(10.0).numpy()[0, 1], tiny / 10 - math.log1p(math.exp(tiny / 10)), rtol=1e-6
    )


@pytest.mark.parametrize(("kind", "expected"), [("logits", 0.75), ("probabilities", math.log(3.0))])
def test_logits_of_a_binary_teacher_are_the_one_logit(kind: Kind, expected: float) -> None:
    found = from_array(np.array([[0.75]]), kind=kind, rows=1).lookup(torch.tensor([0]), 0)
    assert found.logits().tolist() == [[pytest.approx(expected, rel=1e-6)]]
    assert found.probs(1.0).shape == (1, 2)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("k", [1, 2, 4, 5, 50])
def test_top_k_with_residual_against_brute_force(tmp_path: Path, k: int, kind: Kind, dtype: str) -> None:
    stored = recorded(tmp_path, kind, top_k=k, dtype=dtype)
    kept = answers(Rows().inputs, kind).double().numpy()
    p = oracle(kept.reshape(46, 1, 5), kind, 1.0)[0].reshape(23, 2, 5)
    for row in p.reshape(46, 5):
        order = np.argsort(-row)
        rest = order[k:]
        if len(rest):
            row[rest] = row[rest].sum() / len(rest)
    for temperature in (0.5, 1.0, 4.0):
        e = p ** (1 / temperature)
        wanted = (e / e.sum(-1, keepdims=True)).mean(1)
        found = stored.lookup(ALL, 0)
        tolerance = 5e-3 if dtype == "float16" else 5e-6
        np.testing.assert_allclose(found.probs(temperature).numpy(), wanted, rtol=tolerance, atol=tolerance)
        if k >= 4:  # exact from K - 1 on
            exact = oracle(kept, kind, temperature)[0]
            np.testing.assert_allclose(found.probs(temperature).numpy(), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("kind", "members", "outputs_"), CASES)
def test_live_and_recorded_answers_are_the_same(tmp_path: Path, kind: Kind, members: int, outputs_: int) -> None:
    asked, source = Asked(kind, members=members, outputs=outputs_), rows_for(outputs_)
    stored = record(teacher(asked), source, tmp_path, views=(0, 3), batch_size=4)
    live = Live(teacher(asked), source)
    before = asked.count
    for answering in (stored, live):
        assert isinstance(answering, Answers)
        mask = torch.arange(23) % 3 > 0
        for view in (0, 3):
            index = torch.tensor([5, 22, 5, 0])
            one, two = stored.with_known(mask).lookup(index, view), live.with_known(mask).lookup(index, view)
            same(one, two, 5e-6)
    assert asked.count == before + 4, "one forward pass per lookup, however much is read from it"
    assert live.fingerprint() != live.with_known(mask).fingerprint()


@pytest.mark.parametrize("cached", [True, False], ids=["table", "rows"])
def test_unknown_rows_are_uniform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool) -> None:
    if not cached:
        monkeypatch.setattr(store, "TABLE_LIMIT", 0)
    stored = recorded(tmp_path)
    mask = torch.ones(23, dtype=torch.bool)
    mask[[3, 20]] = False
    part = stored.with_known(mask)
    found, full = part.lookup(ALL, 0), stored.lookup(ALL, 0)
    assert found.known.tolist() == mask.tolist() == part.known.tolist()
    log5 = math.log(5)
    for temperature in (0.5, 1.0, 20.0):
        torch.testing.assert_close(found.probs(temperature)[[3, 20]], torch.full((2, 5), 0.2))
        torch.testing.assert_close(found.log_probs(temperature)[[3, 20]], torch.full((2, 5), -log5))
        torch.testing.assert_close(found.neg_entropy(temperature)[[3, 20]], torch.full((2,), -log5))
        assert torch.equal(found.probs(temperature)[mask], full.probs(temperature)[mask])
    assert torch.equal(found.logits()[~mask], torch.zeros(2, 5))
    assert torch.equal(found.logits()[mask], full.logits()[mask])
    assert part.fingerprint() != stored.fingerprint() == stored.manifests[0].fingerprint()
    assert not part.with_known(~mask).known.any(), "what is not known does not become known"
    for wrong in (mask[:5], mask.long()):
        with pytest.raises(OutputsError, match="wanted bool"):
            stored.with_known(wrong)


def test_values_have_no_probabilities(tmp_path: Path) -> None:
    stored = recorded(tmp_path, "values", 2, 1)
    found = stored.lookup(ALL, 0)
    torch.testing.assert_close(found.logits(), answers(Rows().inputs, "values", outputs=1).mean(1))
    with pytest.raises(TeacherError, match="no probabilities"):
        found.probs(1.0)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_temperature_out_of_range(tmp_path: Path, temperature: float) -> None:
    with pytest.raises(SettingError, match="temperature"):
        recorded(tmp_path).lookup(ALL, 0).probs(temperature)


@pytest.mark.parametrize("cached", [True, False], ids=["table", "rows"])
@pytest.mark.parametrize("row", [23, -1])
def test_views_and_rows_that_do_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: int, cached: bool
) -> None:
    if not cached:
        monkeypatch.setattr(store, "TABLE_LIMIT", 0)
    stored = recorded(tmp_path, views=(0, 2))
    with pytest.raises(OutputsError, match="View 1 was not recorded; there are the views 0, 2"):
        stored.lookup(ALL, 1)
    with pytest.raises(OutputsError, match="recorded are 0 to 22"):
        stored.lookup(torch.tensor([4, row]), 0).probs(1.0)


def test_tables_of_other_views_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = recorded(tmp_path, views=(0, 1, 2))
    monkeypatch.setattr(store, "TABLE_LIMIT", 2 * 23 * 6 * 4)  # two views' tables of probabilities and entropies
    first = [stored.lookup(ALL, view).probs(2.0).clone() for view in (0, 1, 2)]
    assert {key[1] for key in stored._tables} == {1, 2}
    for view in (2, 1, 0):
        assert torch.equal(stored.lookup(ALL, view).probs(2.0), first[view])


def part(folder: Path, seed: int, source: Rows | None = None, **changes: Any) -> Stored:
    matrix = torch.randn(4, 5, generator=torch.Generator().manual_seed(seed))
    settings = {"kind": "logits", "name": str(seed), **changes}
    return record(Function(lambda x: x @ matrix, **settings), source or Rows(), folder / str(seed), views=(0, seed))


def test_several_recordings_are_one_ensemble(tmp_path: Path) -> None:
    each = [part(tmp_path, seed) for seed in (1, 2, 3)]
    matrices = [torch.randn(4, 5, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2, 3)]
    members = [Function(lambda x, m=m: x @ m, kind="logits", name=str(i)) for i, m in enumerate(matrices)]
    together = record(Ensemble(members), Rows(), tmp_path / "together")
    # Pairs first: each of the three must count alike, not each of the two recordings.
    combined = Stored.combine([Stored.combine(each[:2]), each[2]])
    assert (combined.members, combined.views, combined.folder) == (3, (0,), None)
    same(combined.lookup(ALL, 0), together.lookup(ALL, 0))
    one, two = torch.arange(23) > 3, torch.arange(23) < 20
    masked = Stored.combine([each[0].with_known(one), each[1].with_known(two)])
    assert torch.equal(masked.known, one & two)
    assert masked.fingerprint() != Stored.combine(each[:2]).fingerprint()


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("rows", lambda folder: part(folder, 2, Rows(n=22))),
        ("source", lambda folder: part(folder, 2, Rows(seed=5))),
        ("kind", lambda folder: part(folder, 2, kind="values")),
        ("classes", lambda folder: part(folder, 2, Rows(spec=DataSpec((4,), CLASSES[::-1])), classes=CLASSES[::-1])),
        ("outputs", lambda folder: from_array(np.ones((23, 4)), kind="logits", rows=23)),
    ],
)
def test_recordings_that_are_no_ensemble(tmp_path: Path, field: str, other: Callable[[Path], Stored]) -> None:
    with pytest.raises(OutputsError, match=f"{field} is .* in .*Record all teachers") as error:
        Stored.combine([part(tmp_path, 1, classes=CLASSES), other(tmp_path)])
    assert error.value.field == field


def test_recordings_without_a_common_view(tmp_path: Path) -> None:
    one, two = (record(teacher(), Rows(), tmp_path / str(v), views=(v,)) for v in (1, 2))
    with pytest.raises(OutputsError, match="no view in common"):
        Stored.combine([one, two])
    with pytest.raises(OutputsError, match="at least one"):
        Stored.combine([])


def test_public_names() -> None:
    assert outputs.__all__ == sorted(outputs.__all__)
    assert set(outputs.__all__) == {"Header", "Live", "Manifest", "Shard", "Stored", "from_array", "open", "record"}
