# Asks the machine room of the chaos run to make or take down machines.
#
# Called as ansible-playbook (`-e @VARIABLES PLAYBOOK`) it stands in for it, and does with the answer what playbook and
# callback would do. Called by a playbook (`PORT ACTION DUFFY_IN`) it prints the answer, for set_fact.
import json
import os
import socket
import sys


def ask(port, question):
    with socket.create_connection(("127.0.0.1", int(port))) as room:
        room.sendall(json.dumps(question).encode() + b"\n")
        answer = room.makefile().readline()
    if not answer:
        sys.exit("the machine room has hung up")
    return json.loads(answer)


if sys.argv[1] == "-e":
    with open(sys.argv[2][1:]) as file:
        variables = json.load(file)
    action = os.path.basename(sys.argv[3]).partition(".")[0]
    answer = ask(variables["room"], {"action": action, "nodes": variables["duffy_in"]["nodes"]})
    print(answer["print"], flush=True)
    with open(os.environ["DUFFY_ANSIBLE_EVENTS"], "a") as events:
        events.write(answer["events"])
else:
    port, action, nodes = sys.argv[1:]
    answer = ask(port, {"action": action, "nodes": json.loads(nodes)["nodes"]})
    print(json.dumps(answer["result"]))
sys.exit(answer["exit"])
