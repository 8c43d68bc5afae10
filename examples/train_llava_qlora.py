# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Fine-tune LLaVA-1.5-7B in 4 bits on data that someone else collected: settings for one card of 24 GB.

    python examples/train_llava_qlora.py --tiny
    python examples/train_llava_qlora.py --data my_data.parquet --output_dir out

`--data` is as in train_llava.py. `--tiny` runs on a CPU in a few minutes, on the built-in model, in 4 bits too.

What saves memory: the language model in NF4 with quantised constants (double quantisation), adapters on it only, a
paged 8-bit optimiser on GPUs, one row at a time with accumulated gradients, and checkpointed activations. The 7B model
itself was not run. `--tiny` takes too few steps for its audit to mean much.

This is a script for TRL's SFTTrainer with two class names changed, and with the screening and the audit added:

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
    parser = argparse.ArgumentParser(description="Fine-tune LLaVA in 4 bits with the backdoor defence.")
    parser.add_argument("--model", default="llava-hf/llava-1.5-7b-hf", help="Model name or folder.")
    parser.add_argument("--data", help="Data set folder, JSON or Parquet file, or data set name.")
    parser.add_argument("--output_dir", default="outputs/llava_qlora")
    parser.add_argument("--screening", choices=["drop", "off"], default="drop", help="drop: without suspicious rows.")
    parser.add_argument("--lambda_patch", type=float, default=0.0, help="Feature consistency; start at 0.01.")
    parser.add_argument("--lambda_discrepancy", type=float, default=0.0, help="Output similarity; start at 0.5.")
    parser.add_argument("--lambda_entropy", type=float, default=0.0, help="Entropy hinge; start at 0.1.")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--tiny", action="store_true", help="The built-in model and scenes, on a CPU.")
    args = parser.parse_args()
    if not args.tiny and args.data is None:
        parser.error("--data is required, unless --tiny is given")
    return args


def main() -> None:
    args = parse_args()
    bf16 = torch.accelerator.is_available() and not args.tiny
    dtype = torch.bfloat16 if bf16 else torch.float32

    # Data, and for --tiny a folder with a model that is then loaded as any other
    if args.tiny:
        dataset = make_scenes(300, seed=0, style="finetune").remove_columns("references")
        args.model = f"{args.output_dir}/base"
        for part in load_base_model():
            part.save_pretrained(args.model)
    else:
        dataset = open_dataset(args.data, split="train")
    dataset = dataset.train_test_split(test_size=0.05, seed=0)

    # Model in 4 bits, adapters in full
    quantization_config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        # Small beside the language model, and what is seen counts
        llm_int8_skip_modules=["vision_tower", "multi_modal_projector", "lm_head"],
    )
    model = AutoModelForImageTextToText.from_pretrained(
        args.model, dtype=dtype, quantization_config=quantization_config
    )
    processor = AutoProcessor.from_pretrained(args.model)
    peft_config = LoraConfig(
        r=64,
        lora_alpha=16,
        lora_dropout=0.05,
        target_modules=r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)",
        task_type="CAUSAL_LM",
    )

    # Training
    training_args = CrossViewDefenseConfig(
        screening=args.screening,
        lambda_patch=args.lambda_patch,
        lambda_discrepancy=args.lambda_discrepancy,
        lambda_entropy=args.lambda_entropy,
        output_dir=args.output_dir,
        max_length=None,
        num_train_epochs=args.epochs,
        learning_rate=2e-3 if args.tiny else 2e-4,
        lr_scheduler_type="cosine",
        warmup_steps=0.03,
        optim="paged_adamw_8bit" if bf16 else "adamw_torch",
        per_device_train_batch_size=8 if args.tiny else 1,
        gradient_accumulation_steps=1 if args.tiny else 16,
        per_device_eval_batch_size=64 if args.tiny else 4,
        activation_checkpointing=not args.tiny,
        bf16=bf16,
        use_cpu=args.tiny,
        logging_steps=5,
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
