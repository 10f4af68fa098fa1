"""The ridge regression against its textbook form, and a cross-fit that has seen nothing of what it is asked."""

import numpy as np
import pytest

from modeling_ulip2.towers.linear_map import cross_fitted_maps, draw_folds, fit_linear_map, mean_embeds

RNG = np.random.default_rng(0)


def make(objects=12, width=6, dim=3):
    features = [RNG.normal(2, 1, size=(1 + row % 3, width)) for row in range(objects)]
    return features, RNG.normal(size=(objects, dim))


def textbook(features, targets, ridge):
    x, y = np.concatenate(features), np.repeat(targets, [len(own) for own in features], axis=0)
    centered = x - x.mean(axis=0)
    penalty = ridge * (centered**2).sum() / x.shape[1]
    weight = np.linalg.inv(centered.T @ centered + penalty * np.eye(x.shape[1])) @ centered.T @ (y - y.mean(axis=0))
    return weight.T, y.mean(axis=0) - weight.T @ x.mean(axis=0)


def test_the_fit_is_the_textbook_s():
    features, targets = make()
    fitted = fit_linear_map(features, targets, 0.5)
    weight, bias = textbook(features, targets, 0.5)
    np.testing.assert_allclose(fitted.weight, weight, atol=1e-10)
    np.testing.assert_allclose(fitted.bias, bias, atol=1e-10)
    np.testing.assert_allclose(fitted(features[1]), features[1] @ weight.T + bias)


def test_a_linear_relation_is_found():
    weight, bias = RNG.normal(size=(3, 6)), RNG.normal(size=3)
    features = [RNG.normal(size=(1, 6)) for _ in range(50)]
    fitted = fit_linear_map(features, np.concatenate(features) @ weight.T + bias, 1e-9)
    np.testing.assert_allclose(fitted.weight, weight, atol=1e-5)
    np.testing.assert_allclose(fitted.bias, bias, atol=1e-5)


def test_the_map_of_a_fold_is_one_fitted_without_it():
    features, targets = make()
    groups = [str(row // 2) for row in range(12)]
    whole, maps, fold_of = cross_fitted_maps(features, targets, groups, 0.5, folds=4)
    np.testing.assert_allclose(whole.weight, fit_linear_map(features, targets, 0.5).weight, atol=1e-8)
    for fold, own in enumerate(maps):
        rest = np.flatnonzero(fold_of != fold)
        expected = fit_linear_map([features[row] for row in rest], targets[rest], 0.5)
        np.testing.assert_allclose(own.weight, expected.weight, atol=1e-8)
        np.testing.assert_allclose(own.bias, expected.bias, atol=1e-8)


def test_folds_hold_whole_groups_of_about_equal_size():
    groups = ["a"] * 5 + ["b"] * 4 + [str(row) for row in range(11)]
    fold_of = draw_folds(groups, 4, seed=3)
    assert len(set(fold_of[:5])) == len(set(fold_of[5:9])) == 1
    assert np.bincount(fold_of).tolist() == [5, 5, 5, 5]
    assert (fold_of == draw_folds(groups, 4, seed=3)).all() and (fold_of != draw_folds(groups, 4, seed=4)).any()
    assert draw_folds(["a", "b", "a"], 5).max() == 1
    with pytest.raises(ValueError, match="3 objects in 1 groups"):
        draw_folds(["a"] * 3)


def test_a_constant_feature_and_too_few_rows():
    fitted = fit_linear_map([np.ones((2, 4)), np.ones((1, 4))], np.array([[1.0], [4.0]]))
    assert np.isfinite(fitted.weight).all()
    np.testing.assert_allclose(fitted(np.ones((1, 4))), [[2.0]])
    with pytest.raises(ValueError, match="two or more views"):
        fit_linear_map([np.ones((1, 4))], np.ones((1, 1)))


def test_targets_are_mean_captions_of_unit_length():
    texts = {"a": np.array([1.0, 0.0]), "b": np.array([0.0, 1.0])}
    np.testing.assert_allclose(mean_embeds(texts, [["a"], ["a", "b"]]), [[1, 0], [2**-0.5, 2**-0.5]])
