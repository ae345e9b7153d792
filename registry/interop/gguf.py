"""What a merged copy says to people who go on to GGUF, the file format of llama.cpp.

Nothing is converted here: llama.cpp's own scripts know its architectures, and they change with it.
"""

from __future__ import annotations

from typing import Final

HAND_OVER_FILE: Final = "GGUF.md"
"""Name of the text inside a merged copy."""

_TYPES: Final = {"bfloat16": "bf16", "float16": "f16"}
"""llama.cpp's names of the 16-bit types."""


def hand_over(name: str, dtype: str) -> str:
    """Returns the steps from a merged copy to a GGUF file, as Markdown.

    Args:
        name: what the files are called.
        dtype: `bfloat16` or `float16`, the type of the copy.
    """
    kind = _TYPES[dtype]
    return f"""# From this directory to GGUF

Everything that llama.cpp's converter reads is here: config, {dtype} weights, tokenizer and chat template.
In a checkout of llama.cpp:

```
pip install -r requirements.txt
python convert_hf_to_gguf.py THIS_DIRECTORY --outfile {name}-{kind}.gguf --outtype {kind}
```

The converter names the architectures that it does not know; nothing can be done about those here.

The {kind} file answers as this directory does. A quantised one rounds the merged weights again:

```
llama-quantize {name}-{kind}.gguf {name}-Q4_K_M.gguf Q4_K_M
```

llama.cpp's 4-bit types are not the NF4 that an adapter is trained on, so measure the quantised file on the
held-out rows before it replaces anything.

An adapter can also stay beside its base. `switchyard pull REF ADAPTER_DIRECTORY` gets it, then:

```
python convert_lora_to_gguf.py ADAPTER_DIRECTORY --base BASE_DIRECTORY --outfile {name}-lora.gguf
llama-cli -m BASE.gguf --lora {name}-lora.gguf
```

That takes plain LoRA only: no DoRA, no biases, no copied modules.
"""
