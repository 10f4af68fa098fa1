from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from datasets import Dataset

from modeling_ulip2.data.augmentation import PointAugmentation
from modeling_ulip2.data.collator import TripletCollator
from modeling_ulip2.data.images import open_depth, open_view
from modeling_ulip2.data.labeled import ClassificationCollator
from modeling_ulip2.data.reading import decode_row
from modeling_ulip2.data.schema import triplet_features
from tests.training.world import DIM, NUM_POINTS, NUM_VIEWS, STORED_POINTS, tiny_model, tiny_processor, triplet_rows


@pytest.fixture(scope="module")
def raw_rows() -> list[dict]:
    """Rows as a reader of the dataset gets them through Arrow: encoded images."""
    rows = Dataset.from_list(triplet_rows(6, depth=True), features=triplet_features(STORED_POINTS, depth=True))
    arrow = rows.with_format("arrow")
    return [decode_row(arrow[i]) for i in range(len(rows))]


@pytest.fixture(scope="module")
def embedded_rows() -> list[dict]:
    """Rows with embeddings that tell view and caption: value 10 * view + caption, images -view, depth 100 + view."""
    rows = []
    for row in triplet_rows(6):
        texts = [
            np.full((len(own), DIM), 10.0 * v) + np.arange(len(own))[:, None] for v, own in enumerate(row["captions"])
        ]
        views = np.arange(NUM_VIEWS)[:, None]
        rows.append(
            {name: row[name] for name in ("id", "xyz", "rgb")}
            | {
                "text_embeds": [own.astype(np.float16) for own in texts],
                "image_embeds": np.broadcast_to(-views, (NUM_VIEWS, DIM)).astype(np.float16),
                "depth_embeds": np.broadcast_to(100 + views, (NUM_VIEWS, DIM)).astype(np.float16),
            }
        )
    return rows


def test_batch_of_embeddings(embedded_rows):
    batch = TripletCollator(tiny_processor(), top_k=2)(embedded_rows)
    assert batch["return_loss"] is True
    assert batch["point_values"].shape == (6, NUM_POINTS, 6) and batch["point_values"].dtype == torch.float32
    assert batch["image_embeds"].shape == (6, DIM) and batch["image_embeds"].dtype == torch.float32
    assert batch["text_embeds"].shape[0] == 6 and batch["text_mask"].shape == batch["text_embeds"].shape[:2]
    # text and image come from the same view, and the first captions of that view
    for row in range(6):
        view = -batch["image_embeds"][row, 0]
        present = batch["text_embeds"][row][batch["text_mask"][row]]
        assert present[:, 0].tolist() == [10 * view + k for k in range(2 if view == 0 else 1)]


def _mask_in(epoch: int, collator: TripletCollator, rows: list[dict]) -> torch.Tensor:
    collator.set_epoch(epoch)
    return collator(rows)["text_mask"]


def test_ragged_captions_give_what_each_row_gives_alone(embedded_rows):
    collator, model = TripletCollator(tiny_processor(), top_k=2), tiny_model().eval()
    ragged = (epoch for epoch in range(99) if not _mask_in(epoch, collator, embedded_rows).all())
    collator.set_epoch(next(ragged))
    together = model(**collator(embedded_rows))
    for i, row in enumerate(embedded_rows):
        alone = model(**(collator([row]) | {"return_loss": False}))
        torch.testing.assert_close(alone.text_embeds[0], together.text_embeds[i])
        torch.testing.assert_close(alone.point_embeds[0], together.point_embeds[i], atol=1e-5, rtol=1e-4)


def test_every_view_is_drawn_and_depth_only_when_asked(embedded_rows):
    processor = tiny_processor()
    for use_depth, expected in ((False, {0, -1, -2}), (True, {0, -1, -2, 100, 101, 102})):
        collator, seen = TripletCollator(processor, use_depth=use_depth), set()
        for epoch in range(12):
            collator.set_epoch(epoch)
            seen |= set(collator(embedded_rows)["image_embeds"][:, 0].tolist())
        assert seen == expected


def test_draws_depend_on_seed_epoch_and_id_alone(embedded_rows):
    collator = TripletCollator(tiny_processor(), seed=1)
    batch = collator(embedded_rows)["point_values"]
    torch.testing.assert_close(collator(embedded_rows[::-1])["point_values"].flip(0), batch, rtol=0, atol=0)
    torch.testing.assert_close(collator(embedded_rows[2:3])["point_values"][0], batch[2], rtol=0, atol=0)
    tagged = [row | {"epoch": 4} for row in embedded_rows]
    from_rows = collator(tagged)["point_values"]
    collator.set_epoch(4)
    from_epoch = collator(embedded_rows)["point_values"]
    torch.testing.assert_close(from_epoch, from_rows, rtol=0, atol=0)
    assert not torch.equal(from_epoch, batch)
    assert not torch.equal(TripletCollator(tiny_processor(), seed=2)(embedded_rows)["point_values"], batch)


def test_two_ids_draw_differently(embedded_rows):
    row = embedded_rows[0]
    batch = TripletCollator(tiny_processor())([row, row | {"id": "another"}])["point_values"]
    assert not torch.equal(batch[0], batch[1])


def test_workers_that_outlive_an_epoch_see_the_next_one(embedded_rows):
    collator = TripletCollator(tiny_processor())
    loader = torch.utils.data.DataLoader(
        embedded_rows, batch_size=6, collate_fn=collator, num_workers=1, persistent_workers=True
    )
    first = next(iter(loader))["point_values"]
    collator.set_epoch(1)
    second = next(iter(loader))["point_values"]
    torch.testing.assert_close(second, collator(embedded_rows)["point_values"], rtol=0, atol=0)
    assert not torch.equal(first, second)


def test_without_augmentation_nothing_is_drawn_anew(embedded_rows):
    collator = TripletCollator(tiny_processor(), augmentation=PointAugmentation()).for_evaluation()
    first = collator(embedded_rows)
    collator.set_epoch(3)
    second = collator(embedded_rows)
    for name in ("point_values", "image_embeds", "text_embeds"):
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)
    norms = first["point_values"][..., :3].norm(dim=-1).amax(dim=1)
    torch.testing.assert_close(norms, torch.ones(6))


def test_clouds_may_have_any_number_of_points(embedded_rows):
    """Of datasets that store other numbers: all become as many as the encoder takes."""
    rng = np.random.default_rng(0)
    rows = [
        row | {"xyz": rng.normal(size=(points, 3)).astype(np.float16), "rgb": np.zeros((points, 3), np.uint8)}
        for row, points in zip(embedded_rows, (2, 20, 63, 64, 65, 500), strict=True)
    ]
    values = TripletCollator(tiny_processor())(rows)["point_values"]
    assert values.shape == (6, NUM_POINTS, 6) and values.isfinite().all()
    sizes = [len(torch.unique(cloud[:, :3], dim=0)) for cloud in values]
    assert sizes[0] <= 2 and sizes[1] <= 20 and sizes[5] <= NUM_POINTS


def test_color_can_be_left_out(embedded_rows):
    assert TripletCollator(tiny_processor(in_channels=3))(embedded_rows)["point_values"].shape == (6, NUM_POINTS, 3)
    plain = [{name: value for name, value in row.items() if name != "rgb"} for row in embedded_rows]
    colors = TripletCollator(tiny_processor())(plain)["point_values"][..., 3:]
    torch.testing.assert_close(colors, torch.full_like(colors, 0.4))


def test_height_is_that_of_the_augmented_cloud(embedded_rows):
    values = TripletCollator(tiny_processor(in_channels=7))(embedded_rows)["point_values"]
    y = values[..., 1]
    assert values.shape == (6, NUM_POINTS, 7)
    torch.testing.assert_close(values[..., 6], y - y.amin(dim=1, keepdim=True), rtol=0, atol=0)
    torch.testing.assert_close(
        values[..., :6], TripletCollator(tiny_processor())(embedded_rows)["point_values"], rtol=0, atol=0
    )


def test_small_clouds_are_filled_up(embedded_rows):
    assert TripletCollator(tiny_processor(num_points=100))(embedded_rows)["point_values"].shape == (6, 100, 6)


def test_raw_rows_become_pixels_and_tokens(raw_rows):
    collator = TripletCollator(tiny_processor(), top_k=2)
    batch = collator(raw_rows)
    assert batch["pixel_values"].shape == (6, 3, 32, 32)
    assert batch["input_ids"].ndim == 3 and batch["input_ids"].shape == batch["attention_mask"].shape
    tokenizer = collator.processor.tokenizer
    for row, ids, mask in zip(raw_rows, batch["input_ids"], batch["attention_mask"], strict=True):
        present = [own[seen.bool()].tolist() for own, seen in zip(ids, mask, strict=True) if seen.any()]
        assert present in [tokenizer(captions)["input_ids"] for captions in row["captions"]]


def test_rows_of_plain_load_dataset_work(raw_rows):
    """Decoded PIL images and Python lists, as a user who knows nothing of Arrow has them."""
    rows = Dataset.from_list(triplet_rows(6, depth=True), features=triplet_features(STORED_POINTS, depth=True))
    collator = TripletCollator(tiny_processor())
    plain, arrow = collator([rows[i] for i in range(6)]), collator(raw_rows)
    for name in ("point_values", "pixel_values", "input_ids"):
        torch.testing.assert_close(plain[name], arrow[name])


def test_depth_is_drawn_as_a_picture(raw_rows):
    gray = np.asarray(open_depth(raw_rows[0]["depths"][0]))
    assert gray.shape == (32, 32, 3) and gray.dtype == np.uint8
    assert (gray[:8] == 0).all() and gray[8:].min() == 64 and gray[8:].max() == 255
    batch = TripletCollator(tiny_processor(), use_depth=True)(raw_rows)
    assert batch["pixel_values"].shape == (6, 3, 32, 32)
    with pytest.raises(ValueError, match="one channel"):
        open_depth(raw_rows[0]["views"][0])
    assert open_view(raw_rows[0]["views"][0]).mode == "RGB"


def test_bad_rows_are_named(embedded_rows):
    collator, row = TripletCollator(tiny_processor()), embedded_rows[0]
    with pytest.raises(ValueError, match="'made/00.obj' has no caption"):
        collator([row | {"text_embeds": [row["text_embeds"][0][:0]] * NUM_VIEWS}])
    with pytest.raises(ValueError, match="has no depth views"):
        TripletCollator(tiny_processor(), use_depth=True)([{k: v for k, v in row.items() if k != "depth_embeds"}])
    with pytest.raises(ValueError, match="NaN"):
        collator([row | {"xyz": np.full((STORED_POINTS, 3), np.nan, dtype=np.float16)}])
    with pytest.raises(ValueError, match="top_k"):
        TripletCollator(tiny_processor(), top_k=0)


def test_pickles(embedded_rows):
    collator = TripletCollator(tiny_processor(), seed=5)
    again = pickle.loads(pickle.dumps(collator.for_evaluation()))
    torch.testing.assert_close(
        again(embedded_rows)["point_values"], collator.for_evaluation()(embedded_rows)["point_values"]
    )


def test_triplets_are_y_up_whatever_the_extractor_expects_of_files(embedded_rows):
    processor, turned = tiny_processor(), tiny_processor()
    turned.feature_extractor.up_axis = "z"
    plain, other = (TripletCollator(one, augmentation=None)(embedded_rows) for one in (processor, turned))
    torch.testing.assert_close(plain["point_values"], other["point_values"])


def test_mixed_clouds_have_mixed_texts_and_images(embedded_rows):
    """Each row's color and embeddings tell the row: the shares of its points are the shares of its embeddings."""
    rows = []
    for index, row in enumerate(embedded_rows):
        own = np.zeros(DIM, dtype=np.float16)
        own[index] = 1
        rgb = np.full((STORED_POINTS, 3), 40 * index, dtype=np.uint8)
        embeds = {"image_embeds": np.stack([own] * NUM_VIEWS), "text_embeds": [np.stack([own, own])] * NUM_VIEWS}
        rows.append(row | {"rgb": rgb} | embeds)
    augmentation = PointAugmentation(max_dropout=0.0, mix_share=0.6)
    collator = TripletCollator(tiny_processor(), top_k=2, augmentation=augmentation, seed=5)
    mixtures = 0
    for epoch in range(6):
        collator.set_epoch(epoch)
        batch = collator(rows)
        colors = (batch["point_values"][:, :, 3] * 255 / 40).round().long()  # (B, N): the row of each point
        shares = torch.stack([(colors == index).float().mean(dim=1) for index in range(6)], dim=1)  # (B, rows)
        mixtures += int(((shares > 0).sum(dim=1) == 2).sum())
        torch.testing.assert_close(batch["image_embeds"][:, :6], shares, atol=1e-5, rtol=0)
        texts = tiny_model()(text_embeds=batch["text_embeds"], text_mask=batch["text_mask"]).text_embeds
        torch.testing.assert_close(texts[:, :6], torch.nn.functional.normalize(shares, dim=1), atol=1e-5, rtol=0)
    assert 0.4 < mixtures / 36 < 0.8
    assert (collator([rows[0]])["point_values"][0, :, 3] == 0).all(), "alone, there is nobody to mix with"
    assert (collator.for_evaluation()(rows)["image_embeds"][:, :6] == torch.eye(6)).all()


def test_mixing_is_refused_where_what_goes_with_the_clouds_cannot_be_mixed(raw_rows):
    augmentation = PointAugmentation(mix_share=0.5)
    with pytest.raises(ValueError, match="mix_share needs the towers' embeddings"):
        TripletCollator(tiny_processor(), augmentation=augmentation)(raw_rows)
    with pytest.raises(ValueError, match="mix_share must be 0: ClassificationCollator"):
        ClassificationCollator(tiny_processor().feature_extractor, augmentation)
