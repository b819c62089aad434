"""MOTIF inside TRL's GRPOTrainer, on a CPU, in a few minutes.

    pip install 'motif-rl' 'trl>=1.16,<1.17'
    python examples/trl_motif.py                                    # the embedded model, the paper's credit
    python examples/trl_motif.py recommended runs/trl --set model=Qwen/Qwen2.5-0.5B-Instruct    # LoRA, the whole tree
    accelerate launch examples/trl_motif.py …                       # several processes

Afterwards the folder is a run like any other: motif eval runs/trl, motif solve --run runs/trl "What is 15 × 24?".
"""

import argparse

from motif.integrations.trl import train

parser = argparse.ArgumentParser(description="Train a motif recipe with TRL.")
parser.add_argument("recipe", nargs="?", default="demo", help="a shipped recipe or a TOML file")
parser.add_argument("out", nargs="?", default="runs/trl", help="the run folder")
parser.add_argument("--set", action="append", default=[], dest="settings", metavar="a.b=c", help="change the recipe")
parser.add_argument("--sampler", choices=["motif", "trl"], default="motif", help="trl: TRL's own generation")
parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in the folder")
parser.add_argument("--vllm", action="store_true", help="TRL's vLLM engine, in this process (needs --sampler trl)")

if __name__ == "__main__":
    args = parser.parse_args()
    # Whatever else GRPOConfig takes can be given here too: report_to="wandb", log_completions=True, …
    more = {"use_vllm": True, "vllm_mode": "colocate"} if args.vllm else {}
    train(args.recipe, args.out, settings=args.settings, sampler=args.sampler, resume=args.resume, **more)
