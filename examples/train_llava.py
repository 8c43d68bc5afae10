# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Fine-tune LLaVA on image-instruction data that someone else collected.

    python examples/train_llava.py --tiny
    python examples/train_llava.py --model llava-hf/llava-1.5-7b-hf --data my_data.parquet --output_dir out --lora

`--data` is a folder written by `Dataset.save_to_disk`, a JSON (lines) or Parquet file, or a data set's name, of which
the split `train` is taken. Rows have the columns that TRL reads, `images` (or `image`) and `messages`, or `images`,
`prompt` and `completion`; or they are LLaVA's own, with `conversations`. In JSON, images are paths inside the file's
folder. `--tiny` runs on a CPU in under two minutes, with the model and the scenes that come with the package.

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
from peft import LoraConfig
from transformers import AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig

from cvreg_trainer import CrossViewDefenseConfig, CrossViewDefenseTrainer
from cvreg_trainer.data import open_dataset
from cvreg_trainer.evaluation import generate_captions
from cvreg_trainer.lab import load_base_model, make_scenes


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fine-tune LLaVA with the backdoor defence.")
    parser.add_argument("--model", default="llava-hf/llava-1.5-7b-hf", help="Model name or folder.")
    parser.add_argument("--data", help="Data set folder, JSON or Parquet file, or data set name.")
    parser.add_argument("--output_dir", default="outputs/llava")
    parser.add_argument("--screening", choices=["drop", "off"], default="drop", help="drop: without suspicious rows.")
    parser.add_argument("--lambda_patch", type=float, default=0.0, help="Feature consistency; start at 0.01.")
    parser.add_argument("--lambda_discrepancy", type=float, default=0.0, help="Output similarity; start at 0.5.")
    parser.add_argument("--lambda_entropy", type=float, default=0.0, help="Entropy hinge; start at 0.1.")
    parser.add_argument("--learning_rate", type=float, help="Defaults to 2e-5, with adapters to 2e-4.")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--lora", action="store_true", help="Train adapters on the language model's attention.")
    parser.add_argument("--qlora", action="store_true", help="The same, on a model loaded in 4 bits.")
    parser.add_argument("--tiny", action="store_true", help="The built-in model and scenes, on a CPU.")
    args = parser.parse_args()
    if not args.tiny and args.data is None:
        parser.error("--data is required, unless --tiny is given")
    if args.tiny and args.qlora:
        parser.error("--qlora needs a model to load in 4 bits: leave out --tiny, or use --lora")
    return args


def main() -> None:
    args = parse_args()
    bf16 = torch.accelerator.is_available() and not args.tiny
    dtype = torch.bfloat16 if bf16 else torch.float32

    # Model and data
    if args.tiny:
        model, processor = load_base_model()
        dataset = make_scenes(1000, seed=0, style="finetune").remove_columns("references")
    else:
        quantization_config = None
        if args.qlora:
            quantization_config = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=dtype,
            )
        model = AutoModelForImageTextToText.from_pretrained(
            args.model, dtype=dtype, quantization_config=quantization_config
        )
        processor = AutoProcessor.from_pretrained(args.model)
        dataset = open_dataset(args.data, split="train")
    dataset = dataset.train_test_split(test_size=0.05, seed=0)
    # As in LLaVA's own recipe. Screening asks what the model sees, and a tower trained on little data forgets that
    model.model.vision_tower.requires_grad_(False)

    peft_config = None
    if args.lora or args.qlora:
        peft_config = LoraConfig(
            r=16,
            lora_alpha=32,
            lora_dropout=0.05,
            target_modules=r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj)",
            task_type="CAUSAL_LM",
        )

    # Training
    learning_rate = args.learning_rate or (1e-3 if args.tiny else 2e-4 if peft_config else 2e-5)
    training_args = CrossViewDefenseConfig(
        screening=args.screening,
        lambda_patch=args.lambda_patch,
        lambda_discrepancy=args.lambda_discrepancy,
        lambda_entropy=args.lambda_entropy,
        output_dir=args.output_dir,
        max_length=None,
        num_train_epochs=args.epochs,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
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
    print(generate_captions(trainer.model, processor, [dataset["test"][0]], max_new_tokens=40)[0])


if __name__ == "__main__":
    main()
