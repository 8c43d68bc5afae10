# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Encoder-decoder collation, held to BLIP-2's processor and to T5's own shift and loss."""

import pytest
import torch
from tiny_models import tiny_blip2_t5, tiny_tokenizer, vision_rows
from transformers import CLIPImageProcessorPil, Florence2Processor

from cvreg_trainer.collators.cross_view import DataCollatorForCrossView
from cvreg_trainer.collators.encoder_decoder import DataCollatorForEncoderDecoder
from cvreg_trainer.perturbations import PatchPerturbation


pytestmark = pytest.mark.lowest


PAD, EOS = 0, 2


@pytest.fixture(scope="module")
def tiny():
    return tiny_blip2_t5()


@pytest.fixture
def collator(tiny) -> DataCollatorForEncoderDecoder:
    return DataCollatorForEncoderDecoder(tiny.processor, decoder_start_token_id=PAD)


def rows_of(n: int = 4, **options) -> list[dict]:
    return vision_rows(n, style="plain", image_token="", **options)


def texts(ids: torch.Tensor, tiny) -> list[str]:
    return [tiny.processor.tokenizer.decode([i for i in row if i >= 0 and i != PAD]) for row in ids.tolist()]


def test_prompt_goes_to_the_encoder_and_completion_to_the_decoder(tiny, collator):
    rows = rows_of()
    batch = collator(rows)
    assert set(batch) == {"input_ids", "attention_mask", "pixel_values", "labels", "decoder_input_ids"}
    assert texts(batch["input_ids"], tiny) == ["<image> " * 4 + row["prompt"] + " </s>" for row in rows]
    assert texts(batch["labels"], tiny) == [row["completion"].strip() for row in rows]  # these end with </s> already
    expected = tiny.processor(
        images=[row["images"][0] for row in rows],
        text=[row["prompt"] for row in rows],
        padding=True,
        return_tensors="pt",
    )
    assert all(torch.equal(batch[key], expected[key]) for key in expected)


@pytest.mark.parametrize("ending", ["", " </s>", " </s> </s>"])
def test_labels_end_with_exactly_one_eos_whatever_the_tokenizer_adds(ending):
    for single in ("$A", "$A </s>"):
        processor = tiny_blip2_t5().processor
        processor.tokenizer = tiny_tokenizer(single=single)
        collator = DataCollatorForEncoderDecoder(processor, decoder_start_token_id=PAD)
        labels = collator([{"prompt": "describe", "completion": f"a red circle{ending}"}])["labels"][0].tolist()
        assert labels.count(EOS) == 1 and labels[-1] == EOS and len(labels) == 4


def test_decoder_inputs_are_t5s_own_and_the_loss_falls_on_completions_alone(tiny, collator):
    batch = collator(rows_of())
    assert torch.equal(batch["decoder_input_ids"], tiny.model.language_model._shift_right(batch["labels"]))
    valid = batch["labels"] != -100
    assert valid.sum(1).tolist() == [len(row["completion"].split()) for row in rows_of()]
    with torch.no_grad():
        output = tiny.model(**batch)
    assert output.logits.shape[:2] == batch["labels"].shape
    log_probs = output.logits.log_softmax(-1)[valid].gather(-1, batch["labels"][valid][:, None])
    assert torch.allclose(output.loss, -log_probs.mean(), atol=1e-6)


def test_rows_with_and_without_images_mix(tiny, collator):
    rows = rows_of(image_free=[0, 2])
    batch = collator(rows)
    assert batch["pixel_values"].shape[0] == 2
    images = batch["input_ids"] == tiny.model.config.image_token_index
    assert images.sum(1).tolist() == [0, 4, 0, 4]
    with torch.no_grad():
        logits = tiny.model(**batch).logits
        for index, row in enumerate(rows):
            alone = collator([row])
            length = alone["labels"].shape[1]
            if "pixel_values" in alone:
                assert torch.allclose(tiny.model(**alone).logits[0], logits[index, :length], atol=1e-5)


def test_batch_without_images_has_no_visual_tensors(collator):
    batch = collator(rows_of(2, image_free=[0, 1]))
    assert set(batch) == {"input_ids", "attention_mask", "labels", "decoder_input_ids"}
    assert batch["input_ids"].shape == batch["attention_mask"].shape


def test_conversations_without_a_template_become_lines(tiny, collator):
    rows = vision_rows(2, style="prompt_completion")
    rows[0]["prompt"].insert(0, {"role": "system", "content": [{"type": "text", "text": "question"}]})
    rows[1] = {**rows[1], "image": rows[1].pop("images")[0]}
    prompts = ["question " + rows[0]["prompt"][1]["content"], rows[1]["prompt"][0]["content"]]
    batch = collator(rows)
    assert texts(batch["input_ids"], tiny) == ["<image> " * 4 + prompt + " </s>" for prompt in prompts]
    assert texts(batch["labels"], tiny) == [row["completion"][0]["content"] + " </s>" for row in rows]


def test_conversations_follow_the_chat_template(tiny):
    processor = tiny_blip2_t5().processor
    processor.chat_template = (
        "{% for message in messages %}{{ message['role'] }} : {% for part in message['content'] %}"
        "{% if part['type'] == 'text' %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
        "{% if add_generation_prompt %}assistant : {% endif %}"
    )
    rows = vision_rows(2, style="prompt_completion", image_free=[1])
    batch = DataCollatorForEncoderDecoder(processor, decoder_start_token_id=PAD)(rows)
    prompts = [f"user : {row['prompt'][0]['content']} assistant : </s>" for row in rows]
    assert texts(batch["input_ids"], tiny) == ["<image> " * 4 + prompts[0], prompts[1]]
    assert texts(batch["labels"], tiny) == [row["completion"][0]["content"] + " </s>" for row in rows]


def test_max_length_cuts_text_and_keeps_image_tokens_and_eos(tiny):
    collator = DataCollatorForEncoderDecoder(tiny.processor, decoder_start_token_id=PAD, max_length=7)
    batch = collator([rows_of(1)[0] | {"completion": "a red circle above a blue square near a star"}])
    assert batch["input_ids"].shape == (1, 7) and batch["labels"].shape == (1, 7)
    assert (batch["input_ids"] == tiny.model.config.image_token_index).sum() == 4
    assert batch["labels"][0, -1] == EOS


def test_both_views_share_text_and_labels(collator):
    rows = rows_of(image_free=[1])
    batch = DataCollatorForCrossView(collator, PatchPerturbation(operations=["noise"]))(rows)
    assert batch["has_image"].tolist() == [True, False, True, True]
    assert {key for key in batch if key.startswith("perturbed_")} == {"perturbed_pixel_values"}
    changed = (batch["pixel_values"] != batch["perturbed_pixel_values"]).any(1).float().mean((1, 2))
    assert (changed > 0).all() and (changed < 0.25).all()


def test_florence_gets_its_special_tokens_behind_the_image():
    tokenizer = tiny_tokenizer("<image>", single="<s> $A </s>")
    image_processor = CLIPImageProcessorPil(
        size={"height": 24, "width": 24}, crop_size={"height": 24, "width": 24}, image_seq_length=5
    )
    processor = Florence2Processor(image_processor, tokenizer)
    batch = DataCollatorForEncoderDecoder(processor, decoder_start_token_id=EOS)(
        [rows_of(1)[0] | {"prompt": "describe this", "completion": "a star"}]
    )
    assert tokenizer.decode(batch["input_ids"][0]) == "<image> " * 5 + "<s> describe this </s>"
    assert tokenizer.decode(batch["labels"][0]) == "<s> a star </s>"
    assert tokenizer.decode(batch["decoder_input_ids"][0]) == "</s> <s> a star"


@pytest.mark.parametrize("row", [{"text": "a red circle"}, {"messages": [{"role": "user", "content": "a"}]}])
def test_rows_of_one_text_are_refused(collator, row):
    with pytest.raises(ValueError, match="prompt-completion rows.*keys.*columns `prompt` and `completion`"):
        collator([row])


def test_images_the_processor_would_drop_are_refused(collator):
    with pytest.raises(ValueError, match="Blip2Processor gives a row of 2 images no more tokens.*Keep one image"):
        collator(rows_of(2, several=[1]))


def test_missing_tokens_are_refused(tiny):
    with pytest.raises(ValueError, match="`decoder_start_token_id` is None"):
        DataCollatorForEncoderDecoder(tiny.processor, None)
    processor = tiny_blip2_t5().processor
    processor.tokenizer.pad_token = None
    with pytest.raises(ValueError, match="no `pad_token`"):
        DataCollatorForEncoderDecoder(processor, PAD)
