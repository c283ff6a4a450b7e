"""The Trainer of transformers, and trl's on top of it: `optimizers=(optimizer, face)`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
import trl
from torch import nn
from torch.utils.data import SequentialSampler

from tests.frameworks.beside import (
    ACCUMULATION,
    ROWS,
    SAVED,
    STEPS,
    WORLD,
    Make,
    Rows,
    Run,
    compare,
    in_two_processes,
    make_model,
    make_optimizer,
    parameters,
    resume,
    watch,
    with_tensors,
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = make_model()

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        out = self.model(x)
        return {"loss": nn.functional.mse_loss(out, labels), "logits": out}


class InOrder(transformers.Trainer):
    """Theirs shuffles by a seed that depends on the epoch where it is resumed."""

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


def collate(rows: list[Any]) -> dict[str, torch.Tensor]:
    return {"x": torch.stack([x for x, _ in rows]), "labels": torch.stack([y for _, y in rows])}


def options(folder: Path, until: int) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "max_steps": until,
        "per_device_train_batch_size": ROWS,
        "gradient_accumulation_steps": ACCUMULATION,
        "save_steps": SAVED,
        "eval_strategy": "steps",
        "eval_steps": SAVED // 2,
        "logging_steps": 1,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
    }


def finish(trainer: Any, used: list[Any], *, resume: bool) -> Run:
    trainer.train(resume_from_checkpoint=resume)
    logged = [row["learning_rate"] for row in trainer.state.log_history if "learning_rate" in row]
    return Run(used, parameters(trainer.model), logged)


def train(make: Make, folder: Path, until: int = STEPS, *, resume: bool = False) -> Run:
    model = Net()
    optimizer = make_optimizer(model)
    used = watch(optimizer)
    trainer = InOrder(
        model,
        transformers.TrainingArguments(**options(folder, until)),
        train_dataset=Rows(STEPS * ACCUMULATION * ROWS * WORLD),
        eval_dataset=Rows(ROWS),
        data_collator=collate,
        optimizers=(optimizer, make(optimizer)),
    )
    return finish(trainer, used, resume=resume)


RUNS = {"ddp": train}


def test_it_trains_logs_and_resumes_as_with_lambda_lr(tmp_path):
    whole = compare(train, tmp_path)
    assert len(whole.logged) == STEPS
    resume(train, tmp_path, whole)


def test_tensor_slots(tmp_path):
    with_tensors(train, tmp_path)


def test_two_processes(tmp_path):
    failed = in_two_processes(__name__, tmp_path, "ddp")
    assert not failed["ddp"], failed["ddp"]


# -- trl ---------------------------------------------------------------------------------------------------------------


class Words(transformers.PreTrainedTokenizerFast):
    """A tokenizer of digits, made here: nothing is downloaded."""


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415

    words = ["<pad>", "<eos>", *map(str, range(10))]
    model = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    return Words(tokenizer_object=model, pad_token="<pad>", eos_token="<eos>")


def train_with_trl(make: Make, folder: Path, until: int = STEPS, *, resume: bool = False) -> Run:
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=12,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            pad_token_id=0,
            eos_token_id=1,
        )
    )
    optimizer = make_optimizer(model)
    used = watch(optimizer)
    count = STEPS * ACCUMULATION * ROWS
    texts = [" ".join(str((row * k) % 10) for k in range(6)) for row in range(count)]
    trainer = trl.SFTTrainer(
        model,
        args=trl.SFTConfig(**options(folder, until), bf16=False, gradient_checkpointing=False),
        train_dataset=datasets.Dataset.from_dict({"text": texts}),
        eval_dataset=datasets.Dataset.from_dict({"text": texts[:ROWS]}),
        processing_class=tokenizer(),
        optimizers=(optimizer, make(optimizer)),
    )
    return finish(trainer, used, resume=resume)


def test_trl_s_sft_trainer_too(tmp_path):
    whole = compare(train_with_trl, tmp_path)
    resume(train_with_trl, tmp_path, whole)
