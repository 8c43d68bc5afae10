# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Fine-tune BLIP-2 for captioning with LoRA, from a torch `Dataset` and a `collate_fn` of one's own.

    python examples/train_blip2.py --tiny
    python examples/train_blip2.py --model Salesforce/blip2-opt-2.7b --data captions.parquet --output_dir out

`--data` is a folder written by `Dataset.save_to_disk`, or a JSON (lines) or Parquet file with the columns `image` (in
JSON: a path) and `caption`. OPT and Flan-T5 versions of BLIP-2 both work. `--tiny` takes a small random BLIP-2 and the
scenes that come with the package, on a CPU in under two minutes: it shows that all parts fit, not what a trained model
says.

This is a script for transformers' Trainer with two class names changed, and with the defence's options and the audit
of the data added (TRL's own SFTTrainer cannot train BLIP-2):

    -from transformers import Trainer, TrainingArguments
    +from cvreg_trainer import CrossViewDefenseConfig, CrossViewDefenseTrainer

    -    training_args = TrainingArguments(
    +    training_args = CrossViewDefenseConfig(
    +        screening=args.screening,
    +        lambda_patch=args.lambda_patch,
    +        lambda_discrepancy=args.lambda_discrepancy,
    +        lambda_entropy=args.lambda_entropy,

    -    trainer = Trainer(
    +    trainer = CrossViewDefenseTrainer(

    +    # Look at the page before you trust the model: honest rows may be among the flagged, and poisoned ones missed
    +    if args.screening != "off":
    +        folder = Path(args.output_dir) / "audit"
    +        print(trainer.audit(folder).summary())
    +        print(f"Look at {folder / 'audit.html'}")
"""

import argparse
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch.utils.data import Dataset
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    BatchFeature,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessorPil,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from cvreg_trainer import CrossViewDefenseConfig, CrossViewDefenseTrainer


PROMPT = "a photo of"


class CaptionDataset(Dataset):
    """Rows of an image and its caption."""

    def __init__(self, rows: datasets.Dataset) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        return {"image": row["image"].convert("RGB"), "caption": row["caption"]}


def make_collate_fn(processor: Blip2Processor, is_encoder_decoder: bool):
    """A `collate_fn` that puts the caption where the language model predicts it."""
    tokenizer = processor.tokenizer

    def collate_fn(rows: list[dict[str, Any]]) -> BatchFeature:
        images, captions = [row["image"] for row in rows], [row["caption"] for row in rows]
        options = {"padding": True, "return_tensors": "pt"}
        if is_encoder_decoder:  # Flan-T5: the encoder reads the prompt, the decoder writes the caption
            batch = processor(images=images, text=[PROMPT] * len(rows), **options)
            target = tokenizer(captions, **options)
            batch["labels"] = target["input_ids"].masked_fill(target["attention_mask"] == 0, -100)
        else:  # OPT: prompt and caption follow the image tokens; the caption is supervised
            texts = [f"{PROMPT} {caption}{tokenizer.eos_token}" for caption in captions]
            batch = processor(images=images, text=texts, padding_side="right", **options)
            batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
            prompt_length = processor.num_query_tokens + len(tokenizer(PROMPT)["input_ids"])
            batch["labels"][:, :prompt_length] = -100
        return batch

    return collate_fn


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fine-tune BLIP-2 with LoRA and the backdoor defence.")
    parser.add_argument("--model", default="Salesforce/blip2-opt-2.7b", help="Model name or folder.")
    parser.add_argument("--data", help="Data set folder, JSON or Parquet file.")
    parser.add_argument("--output_dir", default="outputs/blip2")
    parser.add_argument("--screening", choices=["drop", "off"], default="drop", help="drop: without suspicious rows.")
    parser.add_argument("--lambda_patch", type=float, default=0.0, help="Feature consistency; start at 0.01.")
    parser.add_argument("--lambda_discrepancy", type=float, default=0.0, help="Output similarity; start at 0.5.")
    parser.add_argument("--lambda_entropy", type=float, default=0.0, help="Entropy hinge; start at 0.1.")
    parser.add_argument("--learning_rate", type=float, default=2e-4)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--tiny", action="store_true", help="A small random BLIP-2 and the built-in scenes, on a CPU.")
    args = parser.parse_args()
    if not args.tiny and args.data is None:
        parser.error("--data is required, unless --tiny is given")
    return args


def load_data(path: str) -> datasets.Dataset:
    if Path(path).is_dir():
        return datasets.load_from_disk(path)
    file_format = "parquet" if path.endswith(".parquet") else "json"
    rows = datasets.load_dataset(file_format, data_files=path, split="train")
    return rows.cast_column("image", datasets.Image())


def tiny_data() -> datasets.Dataset:
    """The built-in scenes, as rows of `image` and `caption`."""
    from cvreg_trainer import make_scenes

    scenes = make_scenes(400, seed=0, style="finetune")
    return scenes.map(
        lambda row: {"image": row["images"][0], "caption": row["completion"][0]["content"]},
        remove_columns=scenes.column_names,
        features=datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")}),
    )


def tiny_blip2(captions: list[str]) -> tuple[PreTrainedModel, Blip2Processor]:
    """A random BLIP-2 of some 200,000 parameters, and a processor whose words are those of the captions."""
    words = Tokenizer(models.WordLevel(unk_token="<unk>"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    words.train_from_iterator([PROMPT, *captions], trainers.WordLevelTrainer(special_tokens=special))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    processor = Blip2Processor(BlipImageProcessorPil(size={"height": 48, "width": 48}), tokenizer, num_query_tokens=8)
    size = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
    config = Blip2Config(
        vision_config={**size, "intermediate_size": 128, "image_size": 48, "patch_size": 8, "initializer_range": 0.02},
        qformer_config={**size, "intermediate_size": 128, "vocab_size": 4},
        text_config={
            **size,
            "model_type": "opt",
            "ffn_dim": 128,
            "word_embed_proj_dim": 64,
            "max_position_embeddings": 128,
            "vocab_size": len(tokenizer),
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        num_query_tokens=8,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return Blip2ForConditionalGeneration(config), processor


def main() -> None:
    args = parse_args()
    bf16 = torch.accelerator.is_available() and not args.tiny
    dtype = torch.bfloat16 if bf16 else torch.float32

    # Data and model
    rows = tiny_data() if args.tiny else load_data(args.data)
    rows = rows.train_test_split(test_size=0.05, seed=0)
    if args.tiny:
        torch.manual_seed(0)
        model, processor = tiny_blip2(rows["train"]["caption"])
    else:
        model = AutoModelForImageTextToText.from_pretrained(args.model, dtype=dtype)
        processor = AutoProcessor.from_pretrained(args.model)

    names = ["q", "v"] if model.config.is_encoder_decoder else ["q_proj", "v_proj"]
    lora_config = LoraConfig(
        r=16, lora_alpha=32, lora_dropout=0.05, target_modules=rf".*language_model.*\.({'|'.join(names)})"
    )
    model = get_peft_model(model, lora_config)
    model.print_trainable_parameters()

    # Training
    training_args = CrossViewDefenseConfig(
        screening=args.screening,
        lambda_patch=args.lambda_patch,
        lambda_discrepancy=args.lambda_discrepancy,
        lambda_entropy=args.lambda_entropy,
        output_dir=args.output_dir,
        num_train_epochs=args.epochs,
        learning_rate=args.learning_rate,
        warmup_steps=0.03,
        per_device_train_batch_size=args.batch_size,
        per_device_eval_batch_size=args.batch_size,
        bf16=bf16,
        use_cpu=args.tiny,
        logging_steps=10,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to="none",
    )
    trainer = CrossViewDefenseTrainer(
        model=model,
        args=training_args,
        train_dataset=CaptionDataset(rows["train"]),
        eval_dataset=CaptionDataset(rows["test"]),
        data_collator=make_collate_fn(processor, model.config.is_encoder_decoder),
        processing_class=processor,
    )
    trainer.train()
    trainer.save_model(args.output_dir)

    # Look at the page before you trust the model: honest rows may be among the flagged, and poisoned ones missed
    if args.screening != "off":
        folder = Path(args.output_dir) / "audit"
        print(trainer.audit(folder).summary())
        print(f"Look at {folder / 'audit.html'}")

    # What the model says to one image that it was not trained on
    row = rows["test"][0]
    inputs = processor(images=row["image"], text=PROMPT, return_tensors="pt").to(trainer.model.device, model.dtype)
    generated = trainer.model.eval().generate(**inputs, max_new_tokens=40, do_sample=False)
    if not model.config.is_encoder_decoder:
        generated = generated[:, inputs["input_ids"].shape[1] :]
    answer = processor.decode(generated[0], skip_special_tokens=True)
    print(f"{PROMPT} {answer.strip()}\nreference: {row['caption']}")


if __name__ == "__main__":
    main()
