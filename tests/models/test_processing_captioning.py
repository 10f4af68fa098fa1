"""`Ulip2CaptioningProcessor`: placeholders, templates, labels, instructions, and bad input to it and the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modeling_ulip2 import Ulip2CaptioningConfig, Ulip2CaptioningProcessor, Ulip2ForConditionalGeneration
from modeling_ulip2.models.chat import PLAIN_TEMPLATE
from modeling_ulip2.models.language import language_location
from tests.dataset_scripts.shapes import write_box
from tests.models import captioning_world as world

POINT = "<point_cloud>"


def words_of(processor: Any, ids: Any) -> str:
    return processor.tokenizer.decode(ids)


def test_a_point_token_becomes_the_positions_of_a_cloud(captioner: tuple[Any, Any]) -> None:
    model, processor = captioner
    batch = processor(
        [world.cloud(0), world.cloud(1), world.cloud(2)], [f"{POINT} and {POINT} compare", f"what is {POINT}"]
    )
    ids = batch["input_ids"]
    assert (ids == processor.point_token_id).sum(dim=1).tolist() == [2 * world.QUERIES, world.QUERIES]
    assert words_of(processor, ids[1][batch["attention_mask"][1].bool()]) == f"what is {' '.join([POINT] * 3)}"
    assert batch["attention_mask"][0].all() and not batch["attention_mask"][1][0]  # padded left
    assert batch["point_values"].shape == (3, 40, 6) and batch["point_values"].dtype == torch.float32
    # the language model's embeddings are not touched: the token lies beyond them in many tokenizers
    assert model.language_model.get_input_embeddings().weight.shape[0] == world.VOCABULARY
    instructions = [processor.qformer_tokenizer.decode(row) for row in batch["qformer_input_ids"]]
    assert instructions == ["and compare", "and compare", "what is"]
    given = processor([world.cloud(0)], f"{POINT} compare", instruction="a lamp")["qformer_input_ids"]
    assert processor.qformer_tokenizer.decode(given[0]) == "a lamp"
    arrays = processor([world.cloud(0)], f"{POINT} compare", return_tensors="np")
    assert {type(value) for value in arrays.values()} == {np.ndarray}


def test_the_token_may_lie_beyond_the_vocabulary(parts: tuple[str, str], tmp_path: Path) -> None:
    world.language_model(vocab_size=len(world.WORDS)).save_pretrained(tmp_path)
    world.tokenizer().save_pretrained(tmp_path)
    model = Ulip2ForConditionalGeneration.from_point_language_pretrained(
        parts[0], str(tmp_path), connector="mlp", num_query_tokens=2, connector_hidden_size=16
    )
    processor = Ulip2CaptioningProcessor.from_model(model)
    assert processor.point_token_id == len(world.WORDS) == model.config.text_vocab_size
    batch = processor([world.cloud(0)], f"{POINT} what is it")
    assert model.generate(**batch, max_new_tokens=4).max() < len(world.WORDS)


def test_chat_templates_are_respected(captioner: tuple[Any, Any], tmp_path: Path) -> None:
    _, processor = captioner
    talk = world.conversation(world.cloud(0), answer="a red chair.")
    rendered = processor.apply_chat_template(talk)
    assert rendered == f"<s>user : {POINT}{world.PROMPT}</s>assistant : a red chair.</s>"
    asked = processor.apply_chat_template([talk[:1]], add_generation_prompt=True)
    assert asked == [f"<s>user : {POINT}{world.PROMPT}</s>assistant : "]
    assert processor.apply_chat_template(talk, chat_template="plain") == f"{POINT}{world.PROMPT}\na red chair.</s>"
    own = "{% for m in messages %}[{{ m['content'] }}]{% endfor %}"
    assert processor.apply_chat_template(talk[:1], chat_template=own) == f"[{POINT}{world.PROMPT}]"
    # a language model without a template
    points, language = world.save_parts(tmp_path, chat=False)
    _, plain = world.captioner(points, language)
    assert plain.chat_template == PLAIN_TEMPLATE
    plain.save_pretrained(tmp_path / "saved")
    again = Ulip2CaptioningProcessor.from_pretrained(tmp_path / "saved")
    assert again.apply_chat_template(talk) == f"{POINT}{world.PROMPT}\na red chair.</s>"
    # content may be a string, and the system may speak
    said = [{"role": "system", "content": "a"}, {"role": "user", "content": "what is it"}]
    assert again.apply_chat_template(said) == "a\nwhat is it\n"


def test_paths_arrays_and_mappings(captioner: tuple[Any, Any], tmp_path: Path) -> None:
    _, processor = captioner
    box = write_box(tmp_path / "box.obj", size=(1, 2, 0.3))
    cloud = world.cloud(0)
    shapes = [{"path": str(box)}, {"point_cloud": box}, {"point_cloud": {"xyz": cloud[:, :3]}}, {"point_cloud": cloud}]
    talks = [
        [{"role": "user", "content": [{"type": "point_cloud", **s}, {"type": "text", "text": "it"}]}] for s in shapes
    ]
    batch = processor.apply_chat_template(talks, tokenize=True, return_dict=True)
    values = batch["point_values"]
    assert torch.equal(values[0], values[1]) and not torch.equal(values[2], values[3])
    assert torch.equal(values[2, :, :3], values[3, :, :3]) and (values[2, :, 3:] == 0.4).all()
    torch.testing.assert_close(values[3:], processor.feature_extractor(cloud)["point_values"])


def test_labels_are_what_the_assistant_says(captioner: tuple[Any, Any]) -> None:
    _, processor = captioner
    talk = [
        *world.conversation(world.cloud(0), prompt="what is it", answer="a red chair."),
        {"role": "user", "content": "what color is the chair"},
        {"role": "assistant", "content": "red"},
    ]
    short = world.conversation(world.cloud(1), answer="a lamp.")
    for template in (None, "plain"):
        batch = processor.apply_chat_template(
            [talk, short], chat_template=template, tokenize=True, return_dict=True, return_labels=True
        )
        labels, ids = batch["labels"], batch["input_ids"]
        assert labels.dtype == torch.int64 and ((labels == ids) | (labels == -100)).all()
        assert "offset_mapping" not in batch
        said = [words_of(processor, row[row != -100]) for row in labels]
        assert said == ["a red chair . </s> red </s>", "a lamp . </s>"]


def refused(processor: Any, match: str, *talks: Any, **kwargs: Any) -> None:
    with pytest.raises(ValueError, match=match):
        processor.apply_chat_template(list(talks), tokenize=True, return_dict=True, **kwargs)


def test_bad_texts(captioner: tuple[Any, Any]) -> None:
    _, processor = captioner
    clouds = [world.cloud(0), world.cloud(1)]
    with pytest.raises(ValueError, match="Text 0 is empty"):
        processor(clouds[:1], POINT)
    with pytest.raises(ValueError, match="There is no text"):
        processor(clouds[:1])
    with pytest.raises(ValueError, match="1 clouds but 0 point tokens: put <point_cloud> where"):
        processor(clouds[:1], "what is it")
    with pytest.raises(ValueError, match=r"2 clouds but 3 point tokens \(in each text: 2, 1\): leave some out"):
        processor(clouds, [f"{POINT} {POINT} compare", f"{POINT} it"])
    with pytest.raises(ValueError, match="2 clouds but 1 point tokens"):
        processor(clouds, f"{POINT} it")
    with pytest.raises(ValueError, match="Of 3 positions for clouds the tokenizer left 2: the text is too long"):
        processor(clouds[:1], f"what is {POINT}", truncation=True, max_length=4)
    with pytest.raises(ValueError, match="An instruction has 30 tokens, the Q-Former reads 24 at most"):
        processor(clouds[:1], f"{POINT} {'a ' * 30}")
    with pytest.raises(ValueError, match="1 clouds but 2 instructions"):
        processor(clouds[:1], f"{POINT} it", instruction=["a", "b"])
    with pytest.raises(ValueError, match="Cloud 0 has no points"):
        processor([np.zeros((0, 3))], f"{POINT} it")


def test_bad_conversations(captioner: tuple[Any, Any]) -> None:
    _, processor = captioner
    cloud = world.cloud(0)
    refused(processor, "There is no message")
    refused(processor, "There is no message", [])
    refused(processor, "A message of the user is empty", world.conversation(cloud, prompt=" "))
    refused(processor, "holds <point_cloud>: give a cloud as a part", world.conversation(prompt=f"what is {POINT}"))
    refused(processor, "got type 'image'", [{"role": "user", "content": [{"type": "image"}]}])
    refused(processor, "Of 2 point clouds 1 come without data", world.conversation(cloud, None))
    refused(processor, "needs a message of role 'assistant'", world.conversation(cloud), return_labels=True)
    refused(processor, "assistant's message 1 is empty", world.conversation(cloud, answer=" "), return_labels=True)
    backwards = "{% for m in messages | reverse %}{{ m['content'] }}{% endfor %}"
    talk = world.conversation(cloud, answer="a lamp.")
    refused(processor, "pass chat_template='plain'", talk, chat_template=backwards, return_labels=True)
    with pytest.raises(ValueError, match="A shape is a path, an array"):
        processor.apply_chat_template(world.conversation(7), tokenize=True)


def test_a_processor_of_another_model(captioner: tuple[Any, Any]) -> None:
    model, _ = captioner
    with pytest.raises(ValueError, match="pass its qformer_tokenizer"):
        Ulip2CaptioningProcessor.from_model(model)
    larger = world.qformer_tokenizer()
    larger.add_tokens([f"word{i}" for i in range(40)])
    with pytest.raises(ValueError, match=r"qformer_tokenizer has \d+ tokens, but the Q-Former's vocabulary has 50"):
        Ulip2CaptioningProcessor.from_model(model, larger)
    other = world.tokenizer()
    other.add_tokens(["another"])
    with pytest.raises(ValueError, match="it is the tokenizer of another language model"):
        Ulip2CaptioningProcessor.from_model(model, world.qformer_tokenizer(), tokenizer=other)


def test_batches_that_do_not_fit_the_model(captioner: tuple[Any, Any]) -> None:
    model, processor = captioner
    batch = processor([world.cloud(0)], f"{POINT} what is it")

    def fails(match: str, **changes: Any) -> None:
        changed = {name: value for name, value in {**batch, **changes}.items() if value is not None}
        for call in (model, model.generate):
            with pytest.raises(ValueError, match=match):
                call(**changed)

    placed = batch["input_ids"] == processor.point_token_id
    fails("hold 3 placeholders .* but 0 clouds", point_values=None)
    fails(
        "hold 3 placeholders .* but 2 clouds .* need 6",
        point_values=batch["point_values"].repeat(2, 1, 1),
        **{name: batch[name].repeat(2, 1) for name in ("qformer_input_ids", "qformer_attention_mask")},
    )
    fails("hold 0 placeholders", input_ids=batch["input_ids"].masked_fill(placed, 1))
    fails("vocabulary has 40 entries: the tokenizer is another", input_ids=batch["input_ids"] + 60 * ~placed)
    long = torch.cat([torch.full((1, 130), 7), batch["input_ids"]], dim=1)
    fails("has 13[67] positions, .* reads 128 at most", input_ids=long, attention_mask=torch.ones_like(long))
    fails("reads an instruction: pass qformer_input_ids", qformer_input_ids=None)
    fails("needs one row for each of 1 clouds, got 2", qformer_input_ids=torch.ones(2, 3, dtype=torch.int64))
    fails("Q-Former's vocabulary has 50", qformer_input_ids=torch.full((1, 3), 50))
    fails("has 30 tokens; the Q-Former reads 24", qformer_input_ids=torch.ones(1, 30, dtype=torch.int64))
    fails("not both", point_features=torch.zeros(1, 8, 24))
    fails("encoder of another width", point_values=None, point_features=torch.zeros(1, 8, 20))
    with pytest.raises(ValueError, match="nothing to learn from"):
        model(**batch, labels=torch.full_like(batch["input_ids"], -100))
    two = processor([world.cloud(0)] * 2, [f"{POINT} it", f"{POINT} what is it"], padding_side="right")
    with pytest.raises(ValueError, match="must be padded left"):
        model.generate(**two)


def test_parts_that_do_not_fit_the_connector(captioner: tuple[Any, Any], parts: tuple[str, str]) -> None:
    model, processor = captioner
    before = model.language_model
    with pytest.raises(ValueError, match="embeddings of width 16, but the connector makes text_hidden_size = 32"):
        model.set_language_model(world.language_model(hidden_size=16))
    with pytest.raises(ValueError, match="vocabulary of 50 entries, but the connector was made for .* = 40"):
        model.set_language_model(world.language_model(vocab_size=50))
    with pytest.raises(ValueError, match="needs a Ulip2PointModel, not a Ulip2PointModelWithProjection"):
        model.set_point_model(world.point_model())
    assert model.language_model is before
    with pytest.raises(OSError, match="(?s)The point encoder 'nowhere' .* pass point_model_name_or_path"):
        Ulip2ForConditionalGeneration.from_point_language_pretrained("nowhere", parts[1])
    with pytest.raises(OSError, match="(?s)The language model 'nowhere/model.gguf' .* GGUF files need: pip install"):
        Ulip2ForConditionalGeneration.from_point_language_pretrained(parts[0], "nowhere/model.gguf")
    empty = Ulip2ForConditionalGeneration(Ulip2CaptioningConfig(connector="mlp", connector_hidden_size=8))
    with pytest.raises(ValueError, match="no point encoder: set config.point_model_name_or_path"):
        empty.get_point_features(torch.zeros(1, 40, 6))


def test_an_encoder_of_another_width(parts: tuple[str, str], tmp_path: Path) -> None:
    model, processor = world.captioner(*parts, connector="mlp", compression="resample", point_feature_type="pooled")
    model.save_pretrained(tmp_path)
    wider = Ulip2ForConditionalGeneration.from_pretrained(tmp_path, point_feature_type="embeds")  # 20 instead of 48
    with pytest.raises(ValueError, match=r"features \(clouds, tokens, 48\), got \(1, 1, 20\): .* another width"):
        wider(**processor([world.cloud(0)], f"{POINT} what is it"))


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"connector": "linear"}, "connector must be one of 'qformer', 'mlp', got 'linear'"),
        ({"compression": "max"}, "compression must be one of"),
        ({"point_feature_type": "all"}, "point_feature_type must be one of"),
        ({"num_query_tokens": 0}, "num_query_tokens"),
        ({"connector": "mlp", "point_feature_type": "embeds"}, "nothing to pool"),
        ({"connector": "mlp", "compression": "resample", "connector_hidden_size": 9}, "must be a multiple"),
        ({"text_config": {"model_type": "unheard-of"}}, "text_config.model_type is 'unheard-of'"),
    ],
)
def test_bad_configurations(fields: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Ulip2CaptioningConfig(**fields)


def test_names_of_language_models(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert language_location("owner/model") == ("owner/model", {})
    assert language_location("owner/model/folder") == ("owner/model", {"subfolder": "folder"})
    assert language_location("owner/model/Model.Q4_1.gguf") == ("owner/model", {"gguf_file": "Model.Q4_1.gguf"})
    assert language_location(f"{tmp_path}/a/b") == (f"{tmp_path}/a/b", {})
    assert language_location(f"{tmp_path}/x.gguf") == (str(tmp_path), {"gguf_file": "x.gguf"})
    assert language_location("x.gguf") == (".", {"gguf_file": "x.gguf"})
