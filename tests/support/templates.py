"""Chat templates of the families in use, shortened, and of kinds that would be read wrongly."""

from __future__ import annotations

from typing import Any

from support.tiny import CHATML, chat_tokenizer

GENERATE = "{% if add_generation_prompt %}"
PHI3 = (
    "{% for m in messages %}{% if m.role == 'system' %}<|system|>\n{{ m.content }}<|end|>\n{% elif m.role == 'user' %}"
    "<|user|>\n{{ m.content }}<|end|>\n{% else %}<|assistant|>\n{{ m.content }}<|end|>\n{% endif %}{% endfor %}"
    + GENERATE
    + "<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
GEMMA = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' "
    "+ message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
LLAMA3 = (
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}"
    "{%- endif %}{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content']|trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system_message = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + date_string + '\n\n' + system_message }}"
    "{{- '<|eot_id|>' }}{%- for message in messages %}{{- '<|start_header_id|>' + message['role'] "
    "+ '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
MISTRAL = (  # the system message goes into the last user turn
    "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}"
    "{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}"
    "{%- for message in loop_messages %}{%- if message['role'] == 'user' %}"
    "{%- if loop.last and system_message is defined %}"
    "{{- '[INST] ' + system_message + '\n\n' + message['content'] + '[/INST]' }}{%- else %}"
    "{{- '[INST] ' + message['content'] + '[/INST]' }}{%- endif %}{%- else %}"
    "{{- ' ' + message['content'] + eos_token }}{%- endif %}{%- endfor %}"
)
R1 = (
    "{% set ns = namespace(system='') %}{%- for message in messages %}{%- if message['role'] == 'system' %}"
    "{% set ns.system = message['content'] %}{%- endif %}{%- endfor %}{{ ns.system }}{%- for message in messages %}"
    "{%- if message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}{%- endif %}"
    "{%- if message['role'] == 'assistant' %}{% set content = message['content'] %}{% if '</think>' in content %}"
    "{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}{%- endif %}{%- endfor -%}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}"
)
QWEN3 = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}"
    "{%- endif %}"
)
HARMONY = (
    "{{- '<|start|>system<|message|>Current date: ' + strftime_now('%Y-%m-%d') + '\n\nReasoning: ' "
    "+ (reasoning_effort | default('medium')) + '<|end|>' }}{%- for message in messages %}"
    "{%- if message.role == 'system' %}{{- '<|start|>developer<|message|>' + message.content + '<|end|>' }}"
    "{%- elif message.role == 'assistant' %}{{- '<|start|>assistant<|channel|>final<|message|>' + message.content }}"
    "{{- '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' }}"
    "{%- else %}{{- '<|start|>user<|message|>' + message.content + '<|end|>' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}<|start|>assistant{%- endif %}"
)
DROPS = (
    CHATML.replace("{{ m.content }}<|im_end|>\n", "{{ m.content }}<|im_end|>\n")
    .replace("{% for m in messages %}", "{% for m in messages %}{% if m.role != 'system' %}")
    .replace("{% endfor %}", "{% endif %}{% endfor %}")
)
FAMILIES: dict[str, tuple[str, str]] = {  # template, and the token that ends a turn
    "chatml": (CHATML, "<|im_end|>"),
    "phi-3": (PHI3, "<|end|>"),
    "phi-3, first version": (PHI3.replace("m.role == 'system'", "false"), "<|end|>"),
    "gemma": (GEMMA, "<end_of_turn>"),
    "llama-3": (LLAMA3, "<|eot_id|>"),
    "mistral": (MISTRAL, "<|endoftext|>"),
    "deepseek-r1": (R1, "<｜end▁of▁sentence｜>"),
    "qwen3": (QWEN3, "<|im_end|>"),
    "gpt-oss": (HARMONY, "<|return|>"),
    "drops the system message": (DROPS, "<|im_end|>"),
    "drops it but for a default": (
        DROPS.replace("{% for", "<|im_start|>system\nBe kind.<|im_end|>\n{% for", 1),
        "<|im_end|>",
    ),
    "cuts it at a tag": (
        CHATML.replace("m.content", "m.content.split('</reasoning>')[-1] if m.role == 'system' else m.content"),
        "<|im_end|>",
    ),
    "takes the first message only": (CHATML.replace("in messages", "in messages[-1:]"), "<|im_end|>"),
    "wants a list of parts": (
        CHATML.replace(
            "{{ m.content }}",
            "{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}",
        ),
        "<|im_end|>",
    ),
    "requires a system message": (
        "{% if messages[0].role != 'system' %}{{ raise_exception('no') }}{% endif %}" + CHATML,
        "<|im_end|>",
    ),
    "leaves the last response open": (
        CHATML.replace(
            "<|im_end|>\n{% endfor",
            "{% if not (loop.last and m.role == 'assistant') %}<|im_end|>\n{% endif %}{% endfor",
        ),
        "<|im_end|>",
    ),
    "in capitals": (CHATML.replace("{{ m.content }}", "{{ m.content | upper }}"), "<|im_end|>"),
    "as JSON": (CHATML.replace("{{ m.content }}", "{{ m.content | tojson }}"), "<|im_end|>"),
    "strips": (CHATML.replace("{{ m.content }}", "{{ m.content | trim }}"), "<|im_end|>"),
    "ends turns by an added token": (CHATML.replace("<|im_end|>", "<eot>"), "<eot>"),
}
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
SPECIAL += ["<start_of_turn>", "<end_of_turn>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|return|>"]
SPECIAL += ["<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>", "<|start|>", "<|message|>", "<|channel|>"]


def tokenizer_of(template: str | None, **options: Any) -> Any:
    return chat_tokenizer(template, **{"eos": "<|endoftext|>", "special": SPECIAL, "added": ["<eot>"]} | options)


def reasoning_template(begin: str) -> str:
    """A template that shows reasoning in the last response only, and writes `begin` before a new one."""
    return (
        "{%- for m in messages %}{%- if m.role != 'assistant' %}"
        "{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- else %}"
        "{%- set text = m.content.split('</think>')[-1].lstrip('\n') %}{{- '<|im_start|>assistant\n' }}"
        "{%- if loop.last %}{{- '<think>\n' + (m.reasoning_content or '') + '\n</think>\n\n' }}{%- endif %}"
        "{{- text + '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}" + begin + "{%- endif %}"
    )


EMPTY = "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}"
REASONING = {  # template, marks, what begins a response as it is, and with enable_thinking = false where that is known
    "qwen3": (reasoning_template(EMPTY + "{%- endif %}"), ("<think>", "</think>"), "", "<think>\n\n</think>\n\n"),
    "qwen3.5": (
        reasoning_template(EMPTY + "{%- else %}{{- '<think>\n' }}{%- endif %}"),
        ("<think>", "</think>"),
        "<think>\n",
        "<think>\n\n</think>\n\n",
    ),
    "always thinks": (reasoning_template("{{- '<think>\n' }}"), ("<think>", "</think>"), "<think>\n", None),
    "smollm3": (
        "{%- set off = enable_thinking is defined and not enable_thinking %}"
        "{%- set empty = '<think>\n\n</think>\n' if off else '' %}{%- set told = messages[0].role == 'system' %}"
        "{{- '<|im_start|>system\nMode: ' + ('/no_think' if off else '/think') + '\n' }}"
        "{{- (messages[0].content if told else '') + '<|im_end|>\n' }}{%- for m in messages %}"
        "{%- if m.role == 'user' %}{{- '<|im_start|>user\n' + m.content + '<|im_end|>\n' }}"
        "{%- elif m.role == 'assistant' %}{{- '<|im_start|>assistant\n' + empty + m.content + '<|im_end|>\n' }}"
        "{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' + empty }}{%- endif %}",
        ("<think>", "</think>"),
        "",
        "<think>\n\n</think>\n",
    ),
    "gpt-oss": (
        HARMONY.replace(
            "{{- '<|start|>assistant<|channel|>final",
            "{%- if loop.last and not add_generation_prompt and 'thinking' in message %}{{- '<|start|>assistant"
            "<|channel|>analysis<|message|>' + message.thinking + '<|end|>' }}{%- endif %}"
            "{{- '<|start|>assistant<|channel|>final",
        ),
        ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
        "",
        None,
    ),
    "other words": (
        "{%- for m in messages %}{{- '<|turn>' + m.role + '\n' + m.content + '<turn|>\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|turn>assistant\n' }}{%- if not enable_thinking | default(false) %}"
        "{{- '<|channel>thought\n<channel|>' }}{%- endif %}{%- endif %}",
        ("<|channel>thought", "<channel|>"),
        "<|channel>thought\n<channel|>",
        "<|channel>thought\n<channel|>",
    ),
    "deepseek-r1": (R1, ("<think>", "</think>"), "<think>\n", None),
}
