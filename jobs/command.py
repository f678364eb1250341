"""What a program does that kind = "command" optimises, see command.toml; its loss here costs nothing."""

import json
import math
import os

with open(os.environ["FRACTOPT_EVALUATION"]) as file:
    asked = json.load(file)
rate, rank = asked["parameters"]["learning_rate"], asked["parameters"]["lora_rank"]

steps, loss = 20, 4.0
for step in range(1, steps + 1):
    loss = 1.6 + 2.4 * math.exp(-step * rate * 800) + 0.02 * abs(math.log2(rank / 32))
    with open(os.environ["FRACTOPT_PROGRESS"], "a") as file:
        print("train", step, steps, loss, file=file)

if rate > 0.05:
    answer = {"status": "diverged", "message": f"the loss left all bounds at step {steps}"}
else:
    answer = {"value": loss + 40 * rate, "metrics": {"steps": steps}}
path = os.environ["FRACTOPT_OUTCOME"]
with open(path + ".part", "w") as file:
    json.dump(answer, file)
os.replace(path + ".part", path)
