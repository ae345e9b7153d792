"""A `switchyard` whose heavy commands are played: for the demo's tests, run as a program.

`demo-data`, `train` and `serve` are stand-ins that take a moment; every other
command is the real one.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import grpc

# Run as a program under PYTHONSAFEPATH, its own directory is not on the path.
sys.path.append(str(Path(__file__).parent))

from fake_services import FakeServer, Refusal, running_fakes

from switchyard.proto.inference.v1 import inference_pb2 as pb

TASKS = os.environ.get("FAKE_TASKS", "sums,tags").split(",")
ROWS = 12
METRICS = """# HELP switchyard_requests_total Accepted requests that ended.
# TYPE switchyard_requests_total counter
switchyard_requests_total{outcome="stop"} 40.0
switchyard_requests_total{outcome="length"} 2.0
switchyard_time_to_first_token_seconds_sum{adapter="base"} 0.5
switchyard_time_to_first_token_seconds_count{adapter="base"} 10.0
"""


def completion_of(prompt: str) -> str:
    task, _, number = prompt.partition(" ")
    return json.dumps({"sum": int(number)}) if task == "sums" else f"tag{number}"


def demo_data(arguments: list[str]) -> None:
    for task in TASKS:
        place = Path(arguments[0]) / task
        place.mkdir(parents=True)
        prompts = [f"{task} {number}" for number in range(ROWS)]
        rows = [{"prompt": prompt, "completion": completion_of(prompt)} for prompt in prompts]
        (place / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        recipe = place / f"{task}.yaml"
        recipe.write_text(f"name: {task}\nbase: {{path: ../../base}}\ndata:\n  test: test.jsonl\n", encoding="utf-8")
        sys.stdout.write(f"{recipe}\n")


def train(arguments: list[str]) -> None:
    recipe, out = Path(arguments[0]), Path(arguments[arguments.index("--out") + 1])
    if os.environ.get("FAKE_TRAIN_FAILS") == recipe.parent.name:
        sys.stderr.write("error RECIPE_INVALID: made to fail\n")
        raise SystemExit(1)
    if "FAKE_SERVE_FAILS" in os.environ:
        signal.pause()  # a run that would take minutes
    adapter = out / "adapter"
    adapter.mkdir(parents=True)
    with (out / "metrics.jsonl").open("w", encoding="utf-8") as log:
        for step in (1, 2):
            entry = {"kind": "train", "step": step, "total_steps": 2, "loss": 1 / step, "tokens_per_s": 100}
            log.write(json.dumps(entry) + "\n")
    (adapter / "adapter_config.json").write_text(json.dumps({"r": 8, "lora_alpha": 16, "name": recipe.parent.name}))
    (adapter / "adapter_model.safetensors").write_bytes(recipe.parent.name.encode() * 1000)


def serve(arguments: list[str]) -> None:
    if "FAKE_SERVE_FAILS" in os.environ:
        sys.stderr.write("error BASE_REFUSED: made to fail\n")
        raise SystemExit(1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with (
        running_fakes(os.environ.get("FAKE_LISTEN", "127.0.0.1:0")) as server,
        HTTPServer(("127.0.0.1", 0), Metrics) as http,
    ):
        server.inference.script = lambda request: answer(server, request)
        threading.Thread(target=http.serve_forever, daemon=True).start()
        facts = {"grpc": server.address, "http": f"127.0.0.1:{http.server_port}", "pid": os.getpid()}
        ready = Path(arguments[arguments.index("--ready-file") + 1])
        partial = ready.with_suffix(".part")
        partial.write_text(json.dumps(facts), encoding="utf-8")
        partial.replace(ready)
        threading.Event().wait()


class Metrics(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(METRICS.encode())

    def log_message(self, *arguments: object) -> None:
        del arguments


def answer(server: FakeServer, request: pb.GenerateRequest) -> list[object]:
    """The base answers with a question mark, an adapter answers its own task, at half strength with `half`."""
    served = pb.ServedBy(base_digest="sha256:" + "b" * 64, quantization="nf4+double/float32")
    asked = [(request.adapter, 1.0)] if request.adapter else []
    if request.HasField("composition"):
        asked = [(one.ref, one.weight) for one in request.composition.adapters]
        served.recipe_digest = "sha256:" + "c" * 64
    for ref, weight in asked:
        found = server.registry.lookup(ref)
        if found is None:
            return [Refusal(grpc.StatusCode.NOT_FOUND, "VERSION_NOT_FOUND", f"nothing is named {ref}")]
        version, alias, generation = found
        served.adapters.add(
            namespace=version.namespace,
            adapter=version.adapter,
            version=version.version,
            digest=version.digest,
            alias=alias,
            alias_generation=generation,
            weight=weight,
        )
    text = "?"
    if served.adapters:
        first = served.adapters[0]
        text = completion_of(request.prompt) if request.prompt.startswith(first.adapter) else "not mine"
        text = "half" if first.version == 2 else text
    finished = pb.Finished(
        reason=pb.FINISH_REASON_STOP,
        usage=pb.Usage(prompt_tokens=2, completion_tokens=len(text)),
        timing=pb.Timing(time_to_first_token_s=0.01, decode_s=0.1),
        served_by=served,
    )
    return [
        pb.GenerateResponse(started=pb.Started(served_by=served)),
        *(pb.GenerateResponse(chunk=pb.Chunk(text=one, token_ids=[ord(one)])) for one in text),
        pb.GenerateResponse(finished=finished),
    ]


def main() -> None:
    played = {"demo-data": demo_data, "train": train, "serve": serve}
    if sys.argv[1] in played:
        played[sys.argv[1]](sys.argv[2:])
        return
    from switchyard.clients.cli import main as real

    real()


if __name__ == "__main__":
    main()
