from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from recsparse.policies.bet_fitness import FitnessPredictor, ranges
from recsparse.policies.bet_sampler import Action, ActionSampler

USERS, ITEMS, LARGEST = 90, 60, 16
Frequencies = tuple[NDArray[np.int64], NDArray[np.int64]]


def frequencies(seed: int = 0) -> Frequencies:
    """With many ties, as in any data set."""
    source = np.random.default_rng(seed)
    users, items = (np.sort(source.zipf(1.6, rows).clip(max=50))[::-1].copy() for rows in (USERS, ITEMS))
    return users, items


def actions(count: int, seed: int = 0) -> list[Action]:
    sampler = ActionSampler(USERS, ITEMS, LARGEST, (USERS + ITEMS) * 4, seed)
    return [sampler.draw(1, number) for number in range(count)]


def by_masks(predictor: FitnessPredictor, known: Frequencies, action: Action) -> torch.Tensor:
    """The definition, row by row: which rows have which size, and no thought of order."""
    codes = [
        predictor.encoders[place](torch.from_numpy(counts / counts.max())[:, None])
        for place, counts in enumerate(known)
    ]
    rows = torch.cat(codes)
    sizes = torch.from_numpy(np.concatenate(action)).long()
    embedded = []
    for size in range(1, predictor.largest + 1):
        members = rows[sizes == size]
        mean = members.mean(0) if len(members) else torch.zeros(rows.shape[1], dtype=rows.dtype)
        scaled = torch.tensor([size / predictor.largest], dtype=rows.dtype)
        embedded.append(predictor.of_set(torch.cat([mean, scaled])))
    found: torch.Tensor = predictor.of_action(torch.stack(embedded).mean(0))[0]
    return found


def test_predictions_and_gradients_are_those_of_masks() -> None:
    known = frequencies()
    predictor = FitnessPredictor(known, LARGEST, seed=3)
    chosen = actions(20)
    # With empty sets, and without.
    assert {len(np.unique(np.concatenate(action))) == LARGEST for action in chosen} == {True, False}
    for action in chosen:
        parameters = list(predictor.parameters())
        ours = predictor([ranges(action, LARGEST)])[0]
        theirs = by_masks(predictor, known, action)
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
        for left, right in zip(
            torch.autograd.grad(ours, parameters), torch.autograd.grad(theirs, parameters), strict=True
        ):
            torch.testing.assert_close(left, right, rtol=1e-8, atol=1e-12)


def test_the_order_inside_a_set_does_not_matter() -> None:
    known = frequencies()
    predictor = FitnessPredictor(known, LARGEST, seed=3)
    source = np.random.default_rng(1)
    (action,) = actions(1)
    expected = float(predictor.scores([ranges(action, LARGEST)])[0])
    shuffled = []
    for counts, sizes in zip(known, action, strict=True):
        order = np.arange(len(counts))
        for size in np.unique(sizes):
            members = np.flatnonzero(sizes == size)
            order[members] = source.permutation(members)
        assert not np.array_equal(order, np.arange(len(counts)))
        shuffled.append(counts[order])
    other = Action(action.users[::-1].copy(), action.items)  # the same sizes, on other rows
    with torch.no_grad():
        assert float(by_masks(predictor, (shuffled[0], shuffled[1]), action)) == pytest.approx(expected, rel=1e-9)
        assert float(by_masks(predictor, known, other)) != pytest.approx(expected, rel=1e-6)


def test_ranges_count_the_rows_of_at_least_a_size() -> None:
    action = Action(np.array([5, 3, 3, 1], np.int16), np.array([2, 1], np.int16))
    assert ranges(action, 6).tolist() == [[4, 3, 3, 1, 1, 0, 0], [2, 1, 0, 0, 0, 0, 0]]


def test_it_learns_what_decides_the_fitness() -> None:
    """Toy fitness: the share of the weights that users have. Actions never seen are ranked by it."""
    known = frequencies()
    predictor = FitnessPredictor(known, LARGEST, seed=0)

    def fitness(action: Action) -> float:
        return float(action.users.sum()) / (4 * (USERS + ITEMS))

    seen, unseen = actions(100, seed=1), actions(200, seed=2)
    source = np.random.default_rng(0)
    for _ in range(1500):
        action = seen[int(source.integers(len(seen)))]
        predictor.update(ranges(action, LARGEST), fitness(action))
    truth = np.array([fitness(action) for action in unseen])
    predicted = predictor.scores([ranges(action, LARGEST) for action in unseen])
    assert np.corrcoef(truth, predicted)[0, 1] > 0.9
    assert np.square(predicted - truth).mean() < 0.3 * truth.var()


def test_an_update_goes_towards_the_fitness_and_its_rate_falls_to_a_floor() -> None:
    predictor = FitnessPredictor(frequencies(), LARGEST, seed=0)
    (action,) = actions(1)
    errors, rates = [], []
    for _ in range(40):
        rates.append(predictor.optimizer.param_groups[0]["lr"])
        errors.append(predictor.update(ranges(action, LARGEST), 0.8))
    assert rates[:3] == pytest.approx([0.01, 0.009, 0.0081])
    assert rates[-1] == 0.002
    assert errors[0] == pytest.approx(0.64, abs=0.1)
    assert errors[-1] < 0.01 * errors[0]


def test_the_nearest_action_is_itself() -> None:
    predictor = FitnessPredictor(frequencies(), LARGEST, seed=0)
    found = [ranges(action, LARGEST) for action in actions(12)]
    away = predictor.distances(found, found[7])
    assert away[7] == 0
    assert (np.delete(away, 7) > 0).all()


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    rows = 40_000
    source = np.random.default_rng(0)
    counts = np.sort(source.integers(0, 20_000, rows))[::-1].copy()
    sampler = ActionSampler(rows, rows, 128, rows * 2 * 12, 0)
    found = [ranges(sampler.draw(1, number), 128) for number in range(40)]

    def bits(threads: int) -> tuple[bytes, bytes, bytes]:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            predictor = FitnessPredictor((counts, counts), 128, seed=1)
            for action in found[:6]:
                predictor.update(action, 0.9)
            weights = b"".join(part.detach().numpy().tobytes() for part in predictor.parameters())
            assert torch.get_num_threads() == threads
            return weights, predictor.scores(found).tobytes(), predictor.distances(found, found[0]).tobytes()
        finally:
            torch.set_num_threads(before)

    assert bits(1) == bits(2)


def test_its_weights_are_a_function_of_the_seed_alone() -> None:
    state = torch.get_rng_state()
    predictors = [FitnessPredictor(frequencies(), LARGEST, seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), state)  # the generator of the process is not touched
    found = [ranges(action, LARGEST) for action in actions(5)]
    first, same, other = (each.scores(found) for each in predictors)
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)
