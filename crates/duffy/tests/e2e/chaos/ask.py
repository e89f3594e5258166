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


def read_variables(path):
    # The interpreter starts without the site's packages, which is faster: this is the only one of them that is needed.
    version = "python{}.{}".format(*sys.version_info)
    environment = os.path.dirname(os.path.dirname(sys.executable))
    sys.path.append(os.path.join(environment, "lib", version, "site-packages"))
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))
    with open(path) as file:
        return yaml.load(file, loader)


if sys.argv[1] == "-e":
    variables = read_variables(sys.argv[2][1:])
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
