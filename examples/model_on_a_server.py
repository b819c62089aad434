"""Put a model behind OpenAI's API, and ask it: the rounds are thought on the server, and the client sees an answer.

    python examples/model_on_a_server.py                          # the embedded model, on a free port of this machine
    python examples/model_on_a_server.py runs/demo                # a run of your own
    python examples/model_on_a_server.py --url http://gpu1:8000/v1 --model demo     # a server that is there already

Any client of that API works; this one needs none. `motif serve` is described in docs/serving.md.
"""

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys

import httpx2

QUESTIONS = ("What is 15 × 24?", "What is 43 × 77?")


@contextlib.contextmanager
def served(model):
    """The address of a server of this model, which ends with the block."""
    recipe = [] if os.path.isdir(model) else ["--recipe", "demo"]
    command = [sys.executable, "-m", "motif", "serve", model, *recipe, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        for line in process.stdout:
            if address := re.search(r"http://[\w.]+:\d+", line):
                yield f"{address[0]}/v1"
                return
        raise SystemExit("the server has ended; its message is above")
    finally:
        process.send_signal(signal.SIGINT)  # it finishes what it is answering
        process.wait(30)


def ask(client, url, model, question):
    """Ask a question, and show what was thought in each round."""
    reply = client.post(
        f"{url}/chat/completions", json={"model": model, "messages": [{"role": "user", "content": question}]}
    )
    reply.raise_for_status()
    choice = reply.json()["choices"][0]
    print(question)
    for number, thought in enumerate(choice["motif"]["rounds"], start=1):
        print(f"  round {number}: {thought['completion_tokens']} tokens, note: {thought['note'] or '(none)'}")
    print(f"  answer: {choice['motif']['answer']}")


def main():
    """Ask the questions of a server that is there, or of one that is started here."""
    parser = argparse.ArgumentParser(description="Serve a model and ask it.")
    parser.add_argument("run", nargs="?", default="embedded", help="a run folder, or a model")
    parser.add_argument("--url", help="ask this server instead of starting one")
    parser.add_argument("--model", help="the name of the model there")
    parser.add_argument("questions", nargs="*", default=QUESTIONS, help="what to ask")
    args = parser.parse_args()
    server = contextlib.nullcontext(args.url.rstrip("/")) if args.url else served(args.run)
    headers = {"Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', 'none')}"}
    with server as url, httpx2.Client(timeout=600, headers=headers) as client:
        model = args.model or client.get(f"{url}/models").json()["data"][0]["id"]
        for question in args.questions:
            ask(client, url, model, question)


if __name__ == "__main__":
    main()
