# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
r"""Fine-tune OpenFlamingo for captioning, with the parts frozen that its authors froze.

    python examples/train_openflamingo.py --tiny
    python examples/train_openflamingo.py --model openflamingo-9b --data captions_train2014.json --images train2014

`--model` is a folder that was converted once from the published files:

    hf download openflamingo/OpenFlamingo-9B-vitl-mpt7b checkpoint.pt --local-dir published
    python -m cvreg_trainer.models.flamingo.convert_openflamingo published/checkpoint.pt \
        mosaicml/mpt-7b openai/clip-vit-large-patch14 openflamingo-9b

`--data` with `--images` are COCO's captions and the folder of their images: an official file, or Karpathy's with
`--split train+restval`. Without `--images`, `--data` is a folder written by `Dataset.save_to_disk` (or by `cvreg
poison`), a JSON (lines) or Parquet file, or a data set's name, with the columns `images` (or `image`), `prompt` and
`completion`: OpenFlamingo's plain text, or conversations whose answer is the caption.

`--tiny` runs on a CPU in under two minutes: a Flamingo with new layers on top of the vision tower and the language
model that come with the package. The screening takes what new layers cannot explain yet for suspicious, and leaves out
many honest rows: this shows that all parts fit, not how well poison is found.

This is a script for TRL's SFTTrainer with two class names changed, and with the defence's options and the audit of the
data added:

    +from pathlib import Path

    -from trl import SFTConfig, SFTTrainer
    +from cvreg_trainer import CrossViewDefenseConfig, CrossViewDefenseTrainer

    -    training_args = SFTConfig(
    +    training_args = CrossViewDefenseConfig(
    +        screening=args.screening,
    +        lambda_patch=args.lambda_patch,
    +        lambda_discrepancy=args.lambda_discrepancy,
    +        lambda_entropy=args.lambda_entropy,

    -    trainer = SFTTrainer(
    +    trainer = CrossViewDefenseTrainer(

    +    # Look at the page before you trust the model: honest rows may be among the flagged, and poisoned ones missed
    +    if args.screening != "off":
    +        folder = Path(args.output_dir) / "audit"
    +        print(trainer.audit(folder).summary())
    +        print(f"Look at {folder / 'audit.html'}")
"""

import argparse
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig

from cvreg_trainer import CrossViewDefenseConfig, CrossViewDefenseTrainer
from cvreg_trainer.data import format_row, load_coco, open_dataset
from cvreg_trainer.evaluation import generate_captions
from cvreg_trainer.lab import make_scenes, make_tiny_flamingo
from cvreg_trainer.models.flamingo import FlamingoForConditionalGeneration, FlamingoProcessor


NEW_TOKENS = ["<|endofchunk|>", "<image>"]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fine-tune OpenFlamingo with the backdoor defence.")
    parser.add_argument("--model", help="Folder written by convert_openflamingo.")
    parser.add_argument("--data", help="COCO captions, data set folder, JSON or Parquet file, or data set name.")
    parser.add_argument("--images", help="Folder of COCO's images.")
    parser.add_argument("--split", help="Split of the data, where there are several.")
    parser.add_argument("--output_dir", default="outputs/openflamingo")
    parser.add_argument("--screening", choices=["drop", "off"], default="drop", help="drop: without suspicious rows.")
    parser.add_argument("--lambda_patch", type=float, default=0.0, help="Feature consistency; start at 0.01.")
    parser.add_argument("--lambda_discrepancy", type=float, default=0.0, help="Output similarity; start at 0.5.")
    parser.add_argument("--lambda_entropy", type=float, default=0.0, help="Entropy hinge; start at 0.1.")
    parser.add_argument("--learning_rate", type=float, help="Defaults to 1e-4, with adapters to 2e-4.")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--lora", action="store_true", help="Train adapters on all attention but the vision tower's.")
    parser.add_argument("--tiny", action="store_true", help="A small Flamingo and the built-in scenes, on a CPU.")
    args = parser.parse_args()
    if not args.tiny and (args.model is None or args.data is None):
        parser.error("--model and --data are required, unless --tiny is given")
    return args


def load_data(args: argparse.Namespace) -> Dataset:
    """Rows of `images`, `prompt` (`<image>Output:`) and `completion` (the caption and `<|endofchunk|>`)."""
    if args.images:
        return load_coco(args.data, args.images, args.split, rows="caption", family="openflamingo")
    rows = make_scenes(2000, seed=0) if args.tiny else open_dataset(args.data, args.split)
    if isinstance(rows[0]["prompt"], str):
        return rows
    return rows.map(
        lambda answer: format_row("openflamingo", answer[-1]["content"]),
        input_columns="completion",
        remove_columns=["prompt", "completion"],
    )


def freeze(model: FlamingoForConditionalGeneration, new_ids: list[int]) -> None:
    """Leave to training what OpenFlamingo trained: resampler, gated blocks, and the new tokens' embeddings."""
    model.requires_grad_(False)
    model.model.perceiver.requires_grad_(True)
    model.model.gated_cross_attention.requires_grad_(True)
    [embeddings] = model.get_input_embeddings().parameters()
    embeddings.requires_grad_(True)
    is_new = torch.zeros(len(embeddings), 1)
    is_new[new_ids] = 1
    # Enough as long as there is no weight decay, which would move the other rows without a gradient
    embeddings.register_hook(lambda gradient: gradient * is_new.to(gradient))


def main() -> None:
    args = parse_args()
    bf16 = torch.accelerator.is_available() and not args.tiny

    # Model and data
    if args.tiny:
        torch.manual_seed(0)
        model, processor = make_tiny_flamingo(NEW_TOKENS)
    else:
        # Weights that train stay in float32: bfloat16 rounds their small steps away
        dtype = torch.bfloat16 if bf16 and args.lora else torch.float32
        model = FlamingoForConditionalGeneration.from_pretrained(args.model, dtype=dtype)
        processor = FlamingoProcessor.from_pretrained(args.model)
    dataset = load_data(args).train_test_split(test_size=0.05, seed=0)

    peft_config = None
    if args.lora:
        peft_config = LoraConfig(
            r=16,
            lora_alpha=32,
            lora_dropout=0.05,
            # The names that OpenFlamingo's parts, MPT, GPT-NeoX, LLaMA and OPT give to their projections
            target_modules=r".*\.(perceiver|gated_cross_attention|language_model)\..*\."
            r"(to_q|to_kv|to_out|Wqkv|query_key_value|q_proj|k_proj|v_proj|out_proj|o_proj)",
            task_type="CAUSAL_LM",
        )
    else:
        freeze(model, processor.tokenizer.convert_tokens_to_ids(NEW_TOKENS))

    # Training
    learning_rate = args.learning_rate or (1e-3 if args.tiny else 2e-4 if peft_config else 1e-4)
    training_args = CrossViewDefenseConfig(
        screening=args.screening,
        lambda_patch=args.lambda_patch,
        lambda_discrepancy=args.lambda_discrepancy,
        lambda_entropy=args.lambda_entropy,
        output_dir=args.output_dir,
        max_length=None,
        num_train_epochs=args.epochs,
        learning_rate=learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=0.03,
        per_device_train_batch_size=args.batch_size,
        per_device_eval_batch_size=args.batch_size,
        activation_checkpointing=not args.tiny,
        bf16=bf16,
        use_cpu=args.tiny,
        logging_steps=10,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        report_to="none",
    )
    trainer = CrossViewDefenseTrainer(
        model=model,
        args=training_args,
        train_dataset=dataset["train"],
        eval_dataset=dataset["test"],
        processing_class=processor,
        peft_config=peft_config,
    )
    trainer.train()
    trainer.save_model(args.output_dir)

    # Look at the page before you trust the model: honest rows may be among the flagged, and poisoned ones missed
    if args.screening != "off":
        folder = Path(args.output_dir) / "audit"
        print(trainer.audit(folder).summary())
        print(f"Look at {folder / 'audit.html'}")

    # What the model says to one image that it was not trained on
    row = dataset["test"][0]
    captions = generate_captions(trainer.model, processor, [row], max_new_tokens=40, add_special_tokens=False)
    print(f"{row['prompt']} {captions[0]}\nreference: {row['completion']}")


if __name__ == "__main__":
    main()
